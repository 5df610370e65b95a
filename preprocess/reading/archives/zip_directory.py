"""The central directory of a zip archive, in compact form.

Field names and layouts are those of PKWARE's APPNOTE.TXT, version 6.3.
"""

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.reading.archives.members import damaged_archive
from preprocess.reading.stream import Stream

_END = struct.Struct("<4s4H2LH")
_END_MARK = b"PK\x05\x06"
_LONGEST_COMMENT = 0xFFFF
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MARK = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MARK = b"PK\x06\x06"
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_ENTRY_MARK = b"PK\x01\x02"
_ZIP64_EXTRA = 1
_MAX32 = 0xFFFFFFFF
_PART = 1 << 20
MOST_BYTES = 1 << 30
"""Largest central directory that is read, enough for ten million members."""


class Entry(NamedTuple):
    """A member of a zip archive.

    Attributes:
        name: its name, in an encoding that only ``flags`` may tell.
        offset: offset of its local header.
        packed: bytes in the archive.
        size: bytes after decompression.
        crc: CRC-32 of these.
        method: number of the compression method.
        flags: general purpose bit flag.
        mode: Unix mode; 0 if another system wrote it.
    """

    name: bytes
    offset: int
    packed: int
    size: int
    crc: int
    method: int
    flags: int
    mode: int


class Directory:
    """The members of an archive, ordered by the offset of their local headers.

    Takes about 80 bytes for each member, and its name.
    """

    def __init__(self) -> None:
        self._numbers = tuple(array("Q") for _ in Entry._fields[1:])
        self._ends = array("Q", [0])
        self._names = bytearray()
        self._order: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._offsets: npt.NDArray[np.uint64] = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, entry: Entry) -> None:
        self._names += entry.name
        self._ends.append(len(self._names))
        for column, value in zip(self._numbers, entry[1:], strict=True):
            column.append(value)

    def sort(self) -> None:
        """Order the members; call it once, after the last `add`."""
        offsets = np.frombuffer(self._numbers[0], np.uint64) if len(self) else self._offsets
        self._order = np.argsort(offsets, kind="stable")
        self._offsets = offsets[self._order]

    def between(self, start: int, end: int) -> Iterator[Entry]:
        """Yield the members whose local header starts in ``[start, end)``."""
        first, last = np.searchsorted(self._offsets, np.array([start, end], np.uint64)).tolist()
        for index in self._order[first:last].tolist():
            name = bytes(self._names[self._ends[index] : self._ends[index + 1]])
            yield Entry(name, *(column[index] for column in self._numbers))


def read_directory(archive: Stream) -> Directory:
    """Return the central directory of an archive, which is read at most once per process.

    Raises:
        DamagedFile: there is no directory, because the archive is truncated, or it is damaged.
    """
    assert archive.size is not None, "the size of a file on storage is known"
    tail_start = max(0, archive.size - _END.size - _LONGEST_COMMENT - _LOCATOR.size)
    tail = archive.read(tail_start, archive.size)
    key = (archive.path, archive.size, xxhash.xxh3_64_intdigest(tail))
    directory = _kept.get(key)
    if directory is None:
        directory = _read(archive, tail, tail_start)
        directory.sort()
        _kept.clear()
        _kept[key] = directory
    return directory


_kept: dict[tuple[str, int, int], Directory] = {}
"""The last directory, because the ranges of an archive are often read one after the other."""


def _read(archive: Stream, tail: bytes, tail_start: int) -> Directory:
    at = _end_of_directory(tail)
    if at is None:
        raise damaged_archive(archive, "zip", "it has no directory at its end, so it is truncated")
    _, disk, _, _, count, size, start, _ = _END.unpack_from(tail, at)
    if at >= _LOCATOR.size and tail[at - _LOCATOR.size :].startswith(_LOCATOR_MARK):
        _, disk, at64, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
        record = archive.read(at64, at64 + _END64.size)
        if len(record) < _END64.size or not record.startswith(_END64_MARK):
            raise damaged_archive(archive, "zip", "its directory is not where its end says")
        count, size, start = _END64.unpack(record)[7:]
    if disk not in (0, 0xFFFF):
        raise damaged_archive(archive, "zip", "it is the last of several parts; join them")
    if start + size > tail_start + at or size > MOST_BYTES:
        raise damaged_archive(archive, "zip", "its directory is not where its end says")
    directory = Directory()
    for entry in _entries(archive, start, start + size):
        directory.add(entry)
    # Old programs write the number of members modulo 2 ** 16.
    if (len(directory) - count) % (1 << 16):
        problem = f"its directory has {len(directory):,} members, but should have {count:,}"
        raise damaged_archive(archive, "zip", problem)
    return directory


def _end_of_directory(tail: bytes) -> int | None:
    """Return the offset of the last record of an archive, or None."""
    at = len(tail)
    while (at := tail.rfind(_END_MARK, 0, at)) >= 0:
        # The comment after the record may contain its mark.
        comment = tail[at + _END.size - 2 : at + _END.size]
        if len(comment) == 2 and at + _END.size + int.from_bytes(comment, "little") <= len(tail):
            return at
    return None


def _entries(archive: Stream, start: int, end: int) -> Iterator[Entry]:
    """Yield the entries of a directory in ``[start, end)``, which is read in parts."""
    data, at, position = b"", 0, start
    while True:
        # The variable fields of an entry have at most 3 * 65535 bytes.
        if len(data) - at < _ENTRY.size + 3 * _LONGEST_COMMENT and position < end:
            part = archive.read(position, min(end, position + _PART))
            if not part:
                raise damaged_archive(archive, "zip", "its directory ends early")
            position += len(part)
            data, at = data[at:] + part, 0
        if at == len(data):
            return
        try:
            entry, at = _entry(data, at)
        except (struct.error, ValueError) as error:
            raise damaged_archive(archive, "zip", "its directory is damaged") from error
        yield entry


def _entry(data: bytes, at: int) -> tuple[Entry, int]:
    """Return the entry at an offset, and the offset after it."""
    fields = _ENTRY.unpack_from(data, at)
    mark, _, system, _, _, flags, method, _, _, crc, packed, size, name, extra, comment, *rest = (
        fields
    )
    *_, attributes, offset = rest
    if mark != _ENTRY_MARK:
        raise ValueError("no entry starts here")
    begin = at + _ENTRY.size
    end = begin + name + extra + comment
    if end > len(data):
        raise ValueError("the entry is longer than the directory")
    if _MAX32 in (packed, size, offset):
        numbers = _zip64(data[begin + name : begin + name + extra])
        # Only the fields that do not fit in 32 bits are there, in this order.
        size, packed, offset = (
            next(numbers) if value == _MAX32 else value for value in (size, packed, offset)
        )
    mode = attributes >> 16 if system == _UNIX else 0
    label = data[begin : begin + name]
    return Entry(label, offset, packed, size, crc, method, flags, mode), end


def _zip64(extra: bytes) -> Iterator[int]:
    """Return the numbers in the extra field for large archives; none if it is missing."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_EXTRA:
            field = extra[at + 4 : at + 4 + size]
            return iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
        at += 4 + size
    return iter(())


_UNIX = 3
