"""A shuffle through files: rows written by many units are read bucket by bucket.

A unit writes files with its rows grouped by bucket. The reader of a bucket reads that bucket's
slice of every file. Rows never pass through the Beam runner, so its memory does not grow with the
corpus, and the result does not depend on the order of the units.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.files.storage import join, list_names, read_bytes, write_bytes
from preprocess.work.damage import damaged_work

_MARK, _OFFSET = np.uint64(1 << 63), np.uint64((1 << 48) - 1)
_SUM = 8
"""Bytes of a group's checksum."""


def write_groups(path: str, data: bytes, bounds: npt.ArrayLike) -> None:
    """Write consecutive groups of bytes so that `read_group` can read each one alone.

    The file holds groups + 1 byte offsets (``<u8``), then the groups. A group that is not empty is
    followed by its checksum (``<u8``). The high 16 bits of an offset are a bit that is 1, because files of
    former versions have no checksums, and a checksum of the offset.

    Args:
        path: the file.
        data: the groups, concatenated.
        bounds: offset in ``data`` where each group starts, then its length; shape (groups + 1,).
    """
    offsets = np.asarray(bounds, np.int64)
    sums = _SUM * np.cumsum(np.diff(offsets, prepend=offsets[:1]) > 0)
    view = memoryview(data)
    pieces: list[bytes | memoryview] = [_pack(offsets + 8 * len(offsets) + sums).tobytes()]
    for number, (begin, end) in enumerate(pairwise(offsets.tolist())):
        if end > begin:
            pieces += [view[begin:end], _group_sum(view[begin:end], number)]
    write_bytes(path, b"".join(pieces))


def read_group(path: str, number: int) -> bytes:
    """Read the group with this number from a file written by `write_groups`.

    Raises:
        DamagedWork: the file is damaged.
    """
    head = read_bytes(path, 8 * number, 8 * number + 16)
    if len(head) < 16:
        raise damaged_work(path, f"it ends before group {number}")
    bounds = np.frombuffer(head, "<u8").astype(np.uint64)
    begin, end = (bounds & _OFFSET).tolist()
    is_former = not (bounds & _MARK).any()
    if not is_former and not np.array_equal(bounds, _pack(bounds & _OFFSET, number)):
        raise damaged_work(path, f"the checksum of offset {number} does not match")
    if end <= begin:
        return b""
    data = read_bytes(path, begin, end)
    if is_former:
        return data
    if data[-_SUM:] != _group_sum(data[:-_SUM], number):
        raise damaged_work(path, f"the checksum of group {number} does not match")
    return data[:-_SUM]


def count_groups(path: str) -> int:
    """Return the number of groups in a file written by `write_groups`.

    Raises:
        DamagedWork: the file is damaged.
    """
    head = read_bytes(path, 0, 8)
    if len(head) < 8:
        raise damaged_work(path, "it is empty")
    bounds = np.frombuffer(head, "<u8").astype(np.uint64)
    if (bounds & _MARK).any() and not np.array_equal(bounds, _pack(bounds & _OFFSET)):
        raise damaged_work(path, "the checksum of its first offset does not match")
    return int(bounds[0] & _OFFSET) // 8 - 1


def _pack(offsets: npt.NDArray[Any], first: int = 0) -> npt.NDArray[np.uint64]:
    """Return offsets with their checksums, ``<u8``; ``first`` is the number of the first one."""
    low = offsets.astype(np.uint64)
    numbers = np.arange(first, first + len(low), dtype=np.uint64)
    # Multiplicative hashing: the highest bits depend on all bits of both.
    hashed = (low + numbers * np.uint64(0xC2B2AE3D27D4EB4F)) * np.uint64(0x9E3779B97F4A7C15)
    packed: npt.NDArray[np.uint64] = _MARK | (hashed >> np.uint64(49) << np.uint64(48)) | low
    return packed.astype("<u8")


def _group_sum(data: bytes | memoryview, number: int) -> bytes:
    # Seeded, so that another group of the file is not taken for this one.
    return xxhash.xxh3_64_intdigest(data, number).to_bytes(_SUM, "little")


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
