"""An object of a store as a seekable stream, read with few requests."""

import io
from collections import deque
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

    A request inside ``part`` continues to the end of the part, or for `MOST_BYTES`. Elsewhere, and at
    the start of the file, from which its format is detected, it has at least `LEAST_BYTES`. So a small
    file takes one request, a unit of a large file two, and little more than what is read is
    transferred. The memory is at most twice `MOST_BYTES`: the last request inside the part, and the last
    ones elsewhere.

    Args:
        read: returns the bytes ``[start, end)`` of the file.
        size: size of the file in bytes.
        part: the part that will be read; None: all of the file.
    """

    def __init__(
        self, read: Callable[[int, int], bytes], size: int, part: Part | None = None
    ) -> None:
        self._read_range, self._size = read, size
        if part is None or size <= SMALL_BYTES:
            part = Part(0, size)
        self._part = Part(part.start, min(part.end, size))
        self._position = 0
        self._ahead = _Kept(0, b"")
        self._elsewhere: deque[_Kept] = deque()

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
        start = self._position
        for kept in (self._ahead, *self._elsewhere):
            if kept.start <= start < kept.start + len(kept.data):
                return kept.data[start - kept.start : end - kept.start]
        in_part = self._part.start <= start < self._part.end
        is_head = start == 0 and end <= LEAST_BYTES and self._size > SMALL_BYTES
        if in_part and not is_head:
            self._ahead = _Kept(0, b"")  # first, so that memory holds one request
            self._ahead = kept = self._request(max(end, self._part.end))
            return kept.data[: end - start]
        least = min(start + LEAST_BYTES, self._size)
        self._elsewhere.appendleft(self._request(max(end, least)))
        while sum(len(kept.data) for kept in self._elsewhere) > MOST_BYTES:
            self._elsewhere.pop()
        return self._elsewhere[0].data[: end - start]

    def _request(self, end: int) -> "_Kept":
        start = self._position
        return _Kept(start, self._read_range(start, min(end, start + MOST_BYTES)))


class _Kept(NamedTuple):
    """Bytes of the file that were requested.

    Attributes:
        start: offset of the first byte.
        data: the bytes.
    """

    start: int
    data: bytes
