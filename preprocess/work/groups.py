"""Files of numbered groups of bytes, each of which can be read alone and is checked when it is read."""

import io
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.files.storage import read_bytes, write_bytes
from preprocess.work.damage import damaged_work

_MARK, _OFFSET = np.uint64(1 << 63), np.uint64((1 << 48) - 1)
_SUM = 8
"""Bytes of a group's checksum."""


def write_groups(path: str, data: bytes, bounds: npt.ArrayLike) -> None:
    """Write consecutive groups of bytes; see `write_pieces`.

    Args:
        path: the file.
        data: the groups, concatenated.
        bounds: offset in ``data`` where each group starts, then its length; shape (groups + 1,).
    """
    view = memoryview(data)
    offsets = np.asarray(bounds, np.int64).tolist()
    write_pieces(path, [[view[begin:end]] for begin, end in pairwise(offsets)])


def write_pieces(path: str, groups: Sequence[Sequence[bytes | memoryview]]) -> None:
    """Write groups of bytes, each given in pieces, so that `read_group` can read each one alone.

    The file holds groups + 1 byte offsets (``<u8``), then the groups. A group that is not empty is
    followed by its checksum (``<u8``). The high 16 bits of an offset are a bit that is 1, because files of
    former versions have no checksums, and a checksum of the offset.
    """
    sizes = np.array([sum(map(len, group)) for group in groups], np.int64)
    ends = np.cumsum(sizes + _SUM * (sizes > 0), dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), ends]) + 8 * (len(groups) + 1)
    pieces: list[bytes | memoryview] = [_pack(offsets).tobytes()]
    for number in np.flatnonzero(sizes).tolist():
        pieces += [*groups[number], _group_sum(groups[number], number)]
    write_bytes(path, b"".join(pieces))


def read_group(path: str, number: int) -> bytes:
    """Read the group with this number from a file written by `write_groups`.

    Raises:
        DamagedWork: the file is damaged.
    """
    return bytes(next(GroupFile(path, range(number, number + 1)).read(number, number + 1)))


def read_groups(path: str) -> list[bytes]:
    """Read all groups of a file written by `write_groups`, in one request.

    Raises:
        DamagedWork: the file is damaged.
    """
    data = read_bytes(path)
    file = GroupFile(path, range(_number(path, data[:8])), data)
    return [*map(bytes, file.read(0, len(file.groups)))]


class GroupFile:
    """Some consecutive groups of a file written by `write_groups`, whose sizes are known.

    Args:
        path: the file.
        groups: numbers of the groups.
        data: the content of the whole file if it has been read.

    Raises:
        DamagedWork: the file is damaged.
    """

    def __init__(self, path: str, groups: range, data: bytes | None = None) -> None:
        self._path, self.groups, self._data = path, groups, data
        self._copied: tuple[IO[bytes], int] | None = None
        begin, end = 8 * groups.start, 8 * groups.stop + 8
        head = read_bytes(path, begin, end) if data is None else data[begin:end]
        if len(head) < end - begin:
            raise damaged_work(path, f"it ends before group {groups.start + len(head) // 8}")
        packed = np.frombuffer(head, "<u8").astype(np.uint64)
        self._offsets = packed & _OFFSET
        self._is_former = not (packed & _MARK).any()
        wrong = np.flatnonzero(packed != _pack(self._offsets, groups.start))
        if len(wrong) and not self._is_former:
            number = groups.start + int(wrong[0])
            raise damaged_work(path, f"the checksum of offset {number} does not match")
        self._offsets = self._offsets.astype(np.int64)
        # Zeros, as a file system may leave after a power failure, must not look like a former version.
        if self._is_former and (self._offsets < 8 * (groups.stop + 1)).any():
            raise damaged_work(path, "an offset lies before the first group")

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Stored bytes of each group, int64, shape (groups,)."""
        return np.diff(self._offsets)

    def copy_to(self, file: IO[bytes]) -> None:
        """Append the groups to a file in one request, and read them from there from now on."""
        start, stop = self._offsets[[0, -1]].tolist()
        at = file.seek(0, io.SEEK_END)
        file.write(read_bytes(self._path, start, stop) if stop > start else b"")
        self._copied = file, at - start

    def read(self, first: int, end: int) -> Iterator[memoryview]:
        """Yield the groups numbered from ``first`` to before ``end``, read in one request.

        Raises:
            DamagedWork: the file is damaged.
        """
        bounds = self._offsets[first - self.groups.start : end - self.groups.start + 1].tolist()
        start, stop = bounds[0], bounds[-1]
        if self._data is not None:
            data = self._data[start:stop]
        elif self._copied is not None:
            file, shift = self._copied
            file.seek(shift + start)
            data = file.read(stop - start)
        else:
            data = read_bytes(self._path, start, stop) if stop > start else b""
        view = memoryview(data)
        for number, (begin, finish) in enumerate(pairwise(bounds), first):
            group = view[max(begin - start, 0) : max(finish - start, 0)]
            if finish > begin and not self._is_former:
                if group[-_SUM:] != _group_sum([group[:-_SUM]], number):
                    raise damaged_work(self._path, f"the checksum of group {number} does not match")
                group = group[:-_SUM]
            yield group


def count_groups(path: str) -> int:
    """Return the number of groups in a file written by `write_groups`.

    Raises:
        DamagedWork: the file is damaged.
    """
    return _number(path, read_bytes(path, 0, 8))


def _number(path: str, head: bytes) -> int:
    """Return the number of groups, from the first 8 bytes of the file."""
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


def _group_sum(pieces: Sequence[bytes | memoryview], number: int) -> bytes:
    # Seeded, so that another group of the file is not taken for this one.
    digest = xxhash.xxh3_64(seed=number)
    for piece in pieces:
        digest.update(piece)
    return digest.intdigest().to_bytes(_SUM, "little")
