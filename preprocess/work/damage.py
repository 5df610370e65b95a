"""The error for a damaged file of unfinished work, and the checksum of such files."""

import re
from contextlib import suppress

import xxhash

from preprocess.errors import UserError, one_line
from preprocess.files.manifest import FileRecord
from preprocess.files.paths import is_remote
from preprocess.files.verified import difference

_WORK = re.compile(r"(.*/_work(?:/[0-9a-f]{64}(?=/))?)/.*", re.DOTALL)
_RESULT = re.compile(r"(.*)/_work/[0-9a-f]{64}/result/(.*)", re.DOTALL)


class DamagedWork(UserError):  # noqa: N818
    """A file of unfinished work that is damaged; the work must be done again."""


def damaged_work(path: str, reason: str, file: str = "") -> DamagedWork:
    """Return the error for a damaged file of unfinished work.

    Args:
        path: path or URL of the file.
        reason: what is wrong with it.
        file: where the file is now, if it was published.
    """
    match = _WORK.fullmatch(path)
    folder = match[1] if match else path.rpartition("/")[0]
    return DamagedWork(
        f"{one_line(file or path)} is damaged ({one_line(reason)}); delete {one_line(folder)}, which "
        "holds unfinished work only, and run the same command again"
    )


def check_made(path: str, record: FileRecord) -> None:
    """Compare a file of an unfinished result with its record.

    A stage that was killed while it published its result has moved some files to its folder; such a file
    is compared there. A file in a store is not compared: a store compares its objects with checksums.

    Args:
        path: path of the file before it is published.
        record: its record.

    Raises:
        DamagedWork: the file is damaged.
    """
    if is_remote(path):
        return
    match = _RESULT.fullmatch(path)
    for place in (path, *([f"{match[1]}/{match[2]}"] if match else [])):
        with suppress(FileNotFoundError):
            if problem := difference(place, record):
                raise damaged_work(path, problem, place)
            return


def compare_checksum(path: str, data: bytes, recorded: str | None) -> None:
    """Compare the content of a file with its recorded checksum, which former versions did not record.

    Raises:
        DamagedWork: they differ.
    """
    if recorded is not None and recorded != checksum(data):
        raise damaged_work(path, "its checksum does not match")


def checksum(data: bytes, seed: int = 0) -> str:
    """Return the 64-bit XXH3 hash of ``data``, as 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(data, seed)
