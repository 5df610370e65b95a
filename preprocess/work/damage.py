"""The error for a damaged file of unfinished work, and the checksum of such files."""

import re

import xxhash

from preprocess.errors import UserError, one_line

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


def checksum(data: bytes, seed: int = 0) -> str:
    """Return the 64-bit XXH3 hash of ``data``, as 16 hexadecimal digits."""
    return xxhash.xxh3_64_hexdigest(data, seed)
