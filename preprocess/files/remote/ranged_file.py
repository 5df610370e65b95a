"""An object of a store as a seekable stream, read with few requests."""

import io
from collections.abc import Callable
from typing import NamedTuple

MOST_BYTES = (32 << 20) + (128 << 10)
"""Most bytes of a request: a unit of a large corpus with the start of the record that follows it."""
LEAST_BYTES = 64 << 10
"""Bytes of a request outside of the part that will be read, for example of the index of a file."""
SMALL_BYTES = 1 << 20
"""A file of at most this size is read by one request."""


class Part(NamedTuple):
    """The part ``[start, end)`` of a file that will be read in sequence."""

    start: int
    end: int


class RangedFile(io.RawIOBase):
    """A read-only file of known size, of which only what is read is requested.

    A request inside ``part`` continues to the end of the part, or for `MOST_BYTES`. Elsewhere it has at
    least `LEAST_BYTES`. So small files and the units of a large file take one request each, and
    little more than what is read is transferred. The memory is that of one request.

    Args:
        read: returns the bytes ``[start, end)`` of the file.
        size: size of the file in bytes.
        part: the part that will be read; None: all of the file.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], size: int, part: Part | None = None
    ) -> None:
        self._read_range, self._size = read, size
        self._part = Part(0, size) if part is None or size <= SMALL_BYTES else part
        self._position = 0
        self._start, self._data = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"negative position {origin + offset}")
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return ``size`` bytes, fewer at the end of the file; negative or None: all that is left."""
        end = self._size
        if size is not None and size >= 0:
            end = min(end, self._position + size)
        pieces = []
        while self._position < end:
            piece = self._some(end)
            if not piece:
                # The file is shorter than it was.
                break
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _some(self, end: int) -> bytes:
        """Return at least one byte from the present position on, and none from ``end`` on."""
        offset = self._position - self._start
        if not 0 <= offset < len(self._data):
            self._start, offset = self._position, 0
            self._data = b""  # first, so that memory holds one request
            self._data = self._read_range(self._start, self._end_of_request(end))
        if not offset and len(self._data) <= end - self._position:
            return self._data
        return self._data[offset : offset + end - self._position]

    def _end_of_request(self, end: int) -> int:
        start = self._position
        if self._part.start <= start < self._part.end:
            return max(min(end, start + MOST_BYTES), min(self._part.end, start + MOST_BYTES))
        return min(max(min(end, start + MOST_BYTES), start + LEAST_BYTES), self._size)
