"""The error for a damaged file of unfinished work, and the checksum of such files."""

import re
from contextlib import suppress

import xxhash

from preprocess.errors import UserError, one_line
from preprocess.files.manifest import FileRecord
from preprocess.files.paths import is_remote
from preprocess.files.verified import difference

_WORK = re.compile(r"(.*/_work(?:/[0-9a-f]{64}(?=/))?)/.*", re.DOTALL)


class DamagedWork(UserError):  # noqa: N818
    """A file of unfinished work that is damaged; the work must be done again."""


def damaged_work(path: str, reason: str) -> DamagedWork:
    """Return the error for a damaged file of unfinished work.

    Args:
        path: path or URL of the file.
        reason: what is wrong with it.
    """
    match = _WORK.fullmatch(path)
    folder = match[1] if match else path.rpartition("/")[0]
    return DamagedWork(
        f"{one_line(path)} is damaged ({one_line(reason)}); delete {one_line(folder)}, which holds "
        "unfinished work only, and run the same command again"
    )


def check_unpublished(path: str, record: FileRecord) -> None:
    """Compare a file of the result with its record before it is published.

    A file that is published already is not compared, nor is one in a store, which compares the objects
    that it keeps with checksums of its own.

    Raises:
        DamagedWork: the file is damaged.
    """
    if not is_remote(path):
        with suppress(FileNotFoundError):
            if problem := difference(path, record):
                raise damaged_work(path, problem)


def checksum(data: bytes, seed: int = 0) -> str:
    """Return the 64-bit XXH3 hash of ``data``, as 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(data, seed)
