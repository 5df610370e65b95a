"""Detection and decompression of compressed files, in bounded memory.

A file may have several members (concatenated compressed streams). The file objects of the standard
library treat damage after the first bzip2 or xz member as the end of the file, so this module calls
the decompressors itself.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import zstandard

from preprocess.reading.byte_range import DamagedFile, damaged_file

FREE_EXPANSION_BYTES = 256_000_000
"""A file that unpacks to at most this many bytes is never treated as a decompression bomb."""
# The library has no output limit, and four bytes can expand to 128 KiB: at most 16 MiB per call.
_ZSTANDARD_BYTES = 512


class _Decompressor(Protocol):
    """Interface of the decompressors in bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of those in bz2 and lzma."""

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


class _Zstandard:
    """Zstandard's decompressor with the same interface; a skippable frame is an empty member."""

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor().decompressobj()
        self._left = memoryview(b"")
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def needs_input(self) -> bool:
        return not self._left

    def decompress(self, data: bytes, max_length: int) -> bytes:
        left = self._left if not data else memoryview(bytes(self._left) + data)
        out: list[bytes] = []
        size = offset = 0
        while offset < len(left) and size < max_length and not self._inner.eof:
            out.append(self._inner.decompress(left[offset : offset + _ZSTANDARD_BYTES]))
            size += len(out[-1])
            offset += _ZSTANDARD_BYTES
        self._left = left[offset:]
        if self._inner.eof:
            self.unused_data = self._inner.unused_data + bytes(self._left)
        return b"".join(out)


Compression = Callable[[], _Decompressor]
_ERRORS = (zlib.error, lzma.LZMAError, OSError, zstandard.ZstdError)


def find_compression(head: bytes, path: str) -> Compression | None:
    """Return the decompressor class of a file, or None if it is not compressed.

    Args:
        head: the first bytes of the file: at least 10, or all of a shorter file.
        path: the file, for error messages.

    Raises:
        DamagedFile: the file is a zip archive, which is not supported.
    """
    if head.startswith(b"\x1f\x8b\x08"):
        return _Gzip
    # A text may start with these letters, so check for the magic number of a block or of the end.
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _Zstandard
    # Files of parallel compressors start with a skippable frame.
    if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return _Zstandard
    if head.startswith(b"PK\x03\x04"):
        raise damaged_file(
            path, "this is a zip file; unpack it, or use gzip, bzip2, xz or Zstandard"
        )
    return None


def unpack(
    chunks: Iterable[bytes],
    compression: Compression,
    size: int,
    path: str,
    packed_bytes: int,
    max_expansion: int,
) -> Iterator[bytes]:
    """Yield the uncompressed bytes of all members of a compressed file.

    Bytes yielded before an error may be wrong, because a checksum follows the data it covers.

    Args:
        chunks: the compressed bytes.
        compression: decompressor class, from `find_compression`.
        size: bytes of a yielded chunk, approximately.
        path: the file, for error messages.
        packed_bytes: size of the compressed file.
        max_expansion: largest ratio of uncompressed to compressed bytes, see
            `PrepareConfig.max_expansion`.

    Raises:
        DamagedFile: the file is damaged, truncated or a decompression bomb.
    """
    allowed = max(packed_bytes * max_expansion, FREE_EXPANSION_BYTES)
    total = 0
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
            except _ERRORS as error:
                raise damaged_file(path, f"damaged compressed file ({error})") from error
            total += len(out)
            if total > allowed:
                raise _bomb(path, allowed, max_expansion)
            if out:
                yield out
            data = inner.unused_data if inner.eof else b""
            if not inner.eof and inner.needs_input:
                break
    if not inner.eof:
        raise damaged_file(path, "this compressed file is truncated")


def _bomb(path: str, allowed: int, max_expansion: int) -> DamagedFile:
    return damaged_file(
        path,
        f"unpacks to more than {allowed:,} bytes and {max_expansion:,} times its size; if it is "
        "intact, raise prepare.max_expansion",
    )
