"""A shuffle through files: rows written by many units are read bucket by bucket.

A unit writes files with its rows grouped by bucket. The reader of a bucket reads that bucket's
slice of every file. Rows never pass through the Beam runner, so its memory does not grow with the
corpus, and the result does not depend on the order of the units.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.files.storage import join, list_names, read_bytes, write_bytes


def write_groups(path: str, data: bytes, bounds: npt.ArrayLike) -> None:
    """Write consecutive groups of bytes so that `read_group` can read each one alone.

    The file holds groups + 1 byte offsets (``<u8``), then ``data``.

    Args:
        path: the file.
        data: the groups, concatenated.
        bounds: offset in ``data`` where each group starts, then its length; shape (groups + 1,).
    """
    offsets = np.asarray(bounds, np.int64)
    head = (offsets + 8 * len(offsets)).astype("<u8")
    write_bytes(path, head.tobytes() + data)


def read_group(path: str, number: int) -> bytes:
    """Read the group with this number from a file written by `write_groups`."""
    begin, end = np.frombuffer(read_bytes(path, 8 * number, 8 * number + 16), "<u8").tolist()
    return read_bytes(path, begin, end) if end > begin else b""


def count_groups(path: str) -> int:
    """Return the number of groups in a file written by `write_groups`."""
    (begin,) = np.frombuffer(read_bytes(path, 0, 8), "<u8").tolist()
    return int(begin) // 8 - 1


def group_rows(
    rows: npt.NDArray[Any], bucket_of: npt.NDArray[Any], buckets: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Sort rows by bucket, keeping their order within a bucket.

    Args:
        rows: shape (rows, ...).
        bucket_of: the bucket of each row, shape (rows,).
        buckets: number of buckets.

    Returns:
        The sorted rows, and the row where each bucket starts and the last one ends, (buckets + 1,).
    """
    order = np.argsort(bucket_of, kind="stable")
    return rows[order], np.searchsorted(bucket_of[order], np.arange(buckets + 1))


class Shuffle:
    """Files of a folder, each with one unit's data (or a part of it) grouped by bucket.

    Args:
        folder: path or URL; created at the first write.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def write(self, unit: int, part: int, data: bytes, bounds: npt.ArrayLike) -> None:
        """Write a numbered part of a unit; ``data`` and ``bounds`` as in `write_groups`."""
        write_groups(join(self._folder, f"{unit:06d}-{part:04d}.bin"), data, bounds)

    def write_rows(
        self,
        unit: int,
        part: int,
        rows: npt.NDArray[Any],
        bucket_of: npt.NDArray[Any],
        buckets: int,
    ) -> None:
        """Write rows as one part of a unit; arguments as in `group_rows`."""
        grouped, bounds = group_rows(rows, bucket_of, buckets)
        row_bytes = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
        self.write(unit, part, grouped.tobytes(), bounds * row_bytes)

    def read(self, bucket: int) -> Iterator[tuple[int, bytes]]:
        """Yield (unit, data) of one bucket, in the order of units and of their parts."""
        for unit, name in self._parts():
            yield unit, read_group(join(self._folder, name), bucket)

    def _parts(self) -> Sequence[tuple[int, str]]:
        parts = []
        for name in list_names(self._folder):
            if name.endswith(".bin"):
                unit, part = map(int, name.removesuffix(".bin").split("-"))
                parts.append((unit, part, name))
        # By number, because names with more digits than the padding do not sort as text.
        return [(unit, name) for unit, _, name in sorted(parts)]
