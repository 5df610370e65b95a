"""Raw files as bytes: the range a unit owns, whole lines of it, and compression.

What a file holds is known by its first bytes, never by its name. Memory is bounded by the chunk and
the longest line.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

import xxhash

from preprocess.errors import UserError
from preprocess.units import Range

HEAD_BYTES = 10
"""Bytes at the start of a file that `find_compression` asks for."""
_TAIL_BYTES = 64 * 1024


class DamagedFile(UserError):  # noqa: N818
    """A raw file that cannot be read to its end; the message names it and says what to do."""


class RawRange:
    """Chunks of a file from a range's start to the file's planned end, hashed inside the range.

    A chunk never crosses the range's end, and those behind it are small: they serve to finish one
    record.
    """

    def __init__(self, file: BinaryIO, piece: Range, chunk_bytes: int) -> None:
        self.digest = xxhash.xxh128()
        self._file = file
        self._piece = piece
        self._chunk_bytes = chunk_bytes
        self._position = piece.start
        self._taken = piece.start
        file.seek(max(piece.start - 1, 0))
        self.starts_line = piece.start == 0 or file.read(1) == b"\n"

    def __iter__(self) -> Iterator[bytes]:
        yield from self.rest_of_range()
        while self._position < self._piece.bytes:
            yield self._read(min(_TAIL_BYTES, self._piece.bytes - self._position))

    def rest_of_range(self) -> Iterator[bytes]:
        while (left := self._piece.end - self._position) > 0:
            data = self._read(min(self._chunk_bytes, left))
            self.digest.update(data)
            yield data

    def take(self) -> int:
        """Bytes of the range read since the last call."""
        before, self._taken = self._taken, min(self._position, self._piece.end)
        return self._taken - before

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if not data:
            raise DamagedFile(
                f"{self._piece.path}: ends after {self._position:,} bytes, was {self._piece.bytes:,} "
                "when the work was planned; put the file back, or start again with --overwrite"
            )
        self._position += len(data)
        return data


def whole_lines(
    chunks: Iterable[bytes], start: int, end: int | None, starts_line: bool
) -> Iterator[tuple[int, bytes]]:
    """``(offset, bytes)`` of the lines that begin in ``[start, end)``, many at a time."""
    position = start
    offset = start
    pieces: list[bytes] = []
    for data in chunks:
        finishing = end is not None and position >= end
        if finishing and not pieces:
            return
        position += len(data)
        if not starts_line:
            first = data.find(b"\n") + 1
            offset += first or len(data)
            if not first:
                continue
            starts_line = True
            data = data[first:]
        # Past the end only the record that is open there is still wanted.
        cut = (data.find(b"\n") if finishing else data.rfind(b"\n")) + 1
        if cut:
            pieces.append(data[:cut])
            lines = b"".join(pieces)
            yield offset, lines
            offset += len(lines)
            pieces = []
            if finishing:
                return
        if cut < len(data):
            pieces.append(data[cut:])
    if pieces:
        yield offset, b"".join(pieces)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of those of bz2 and lzma."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail
        return out


Compression = Callable[[], _Decompressor]


def find_compression(head: bytes, path: str) -> Compression | None:
    """How a file with these first bytes is unpacked; none for a plain file."""
    if head.startswith(b"\x1f\x8b\x08"):
        return _Gzip
    # Three letters alone could begin a text: the magic of a block or of the end follows them.
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor
    for magic, kind in ((b"\x28\xb5\x2f\xfd", "Zstandard"), (b"PK\x03\x04", "zip")):
        if head.startswith(magic):
            raise DamagedFile(
                f"{path}: this is a {kind} file; unpack it, or pack it with gzip, bzip2 or xz"
            )
    return None


def unpack(
    chunks: Iterable[bytes], compression: Compression, size: int, path: str
) -> Iterator[bytes]:
    """The unpacked bytes of all members of a compressed file, at most ``size`` at a time.

    The standard library's file objects take damage behind the first bzip2 or xz member for its end.
    """
    advice = "fetch it or pack it again, or leave it out of the input"
    inner = compression()
    for data in chunks:
        while True:
            if inner.eof:
                # Padding between members is legal.
                data = data.lstrip(b"\0")
                if not data:
                    break
                inner = compression()
            try:
                out = inner.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError) as error:
                raise DamagedFile(f"{path}: damaged compressed file ({error}); {advice}") from error
            if out:
                yield out
            data = inner.unused_data if inner.eof else b""
            if not inner.eof and inner.needs_input:
                break
    if not inner.eof:
        raise DamagedFile(f"{path}: this compressed file is cut off; {advice}")
