"""Detection and decompression of compressed files, in bounded memory.

A file may have several members (concatenated compressed streams). The file objects of the standard
library treat damage after the first bzip2 or xz member as the end of the file, so this module calls
the decompressors itself.
"""

import bz2
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import zstandard

from preprocess.errors import UserError, one_line
from preprocess.reading.byte_range import DamagedFile, damaged_file, unreadable_file

FREE_EXPANSION_BYTES = 256_000_000
"""A file that unpacks to at most this many bytes is never treated as a decompression bomb."""
# The library has no output limit, and four bytes can expand to 128 KiB: at most 16 MiB per call.
_ZSTANDARD_BYTES = 512
_FRAME_HEADER_BYTES = 18
SMALL_WINDOW = 1 << 27
"""Window of a Zstandard frame, in bytes, that is always accepted, as by the ``zstd`` program."""
LARGEST_WINDOW = 1 << 31
"""Largest window that the library reads."""
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        *("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
        *("memory/memory.stat", "total_inactive_file"),
    ),
)
"""Files of versions 2 and 1 of control groups: the limit of memory, its use, and the cached files."""
WINDOW_SHARE = 0.5
"""Largest share of the available memory for one window, because workers read several files."""


class _Decompressor(Protocol):
    """Interface of the decompressors in bz2 and lzma."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Zlib:
    """zlib's decompressor with the interface of those in bz2 and lzma.

    Args:
        wbits: 31 for gzip, -15 for the streams in zip archives, which have no header.
    """

    def __init__(self, wbits: int = 31) -> None:
        self._inner = zlib.decompressobj(wbits)
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


class Zstandard:
    """Zstandard's decompressor with the same interface; a skippable frame is an empty member.

    Raises:
        FrameError: a frame needs a dictionary, or more memory than there is.
    """

    def __init__(self) -> None:
        # The library would take as much memory as the header of the frame says.
        self._outer = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        self._inner: zstandard.ZstdDecompressionObj | None = None
        self._left = memoryview(b"")
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return bool(self._inner and self._inner.eof)

    @property
    def needs_input(self) -> bool:
        return not self._left or self._inner is None

    def decompress(self, data: bytes, max_length: int) -> bytes:
        left = self._left if not data else memoryview(bytes(self._left) + data)
        if self._inner is None:
            self._left = left
            if not _has_header(left):
                return b""
            self._inner = self._outer.decompressobj()
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


def _has_header(data: memoryview) -> bool:
    """Return True if the data begins with the whole header of a frame that may be read.

    Raises:
        FrameError: the frame needs a dictionary or too large a window.
        ZstdError: the header is damaged.
    """
    header = bytes(data[:_FRAME_HEADER_BYTES])
    try:
        frame = zstandard.get_frame_parameters(header)
    except zstandard.ZstdError as error:
        if len(header) < _FRAME_HEADER_BYTES:
            return False
        if "memory" in str(error):
            # The library refuses it already here; the window's exponent is in the header's last bits.
            raise _window_error(1 << (10 + (header[5] >> 3))) from error
        raise
    # A skippable frame has another number there.
    if frame.dict_id and header.startswith(b"\x28\xb5\x2f\xfd"):
        problem = f"this Zstandard file needs the dictionary {frame.dict_id} to be decompressed"
        raise FrameError(problem, "decompress it with that dictionary")
    window = frame.window_size
    if window > SMALL_WINDOW and (
        window > LARGEST_WINDOW or window > available_memory() * WINDOW_SHARE
    ):
        raise _window_error(window)
    return True


class FrameError(Exception):
    """A sound Zstandard frame that cannot be read.

    Args:
        problem: what it needs.
        remedy: what users can do.
        lacks_memory: True if it could be read on a machine with more memory.
    """

    def __init__(self, problem: str, remedy: str, lacks_memory: bool = False) -> None:
        super().__init__(problem, remedy, lacks_memory)

    def of(self, path: str) -> UserError:
        """Return the error for the file ``path``.

        A lack of memory cannot be skipped, because results must not depend on the machine.
        """
        problem, remedy, lacks_memory = self.args
        if lacks_memory:
            return UserError(
                f"{one_line(path)}: {problem}; {remedy}, or use a machine with more memory"
            )
        return unreadable_file(path, problem, remedy, "damaged_file")


def _window_error(window: int) -> FrameError:
    problem = f"this Zstandard file needs a window of {window / 1e9:.2f} GB of memory, but "
    remedy = "recompress it with a smaller window (zstd -d --long=31, then zstd without --long)"
    if window > LARGEST_WINDOW:
        return FrameError(f"{problem}at most {LARGEST_WINDOW / 1e9:.2f} GB can be read", remedy)
    free = f"{available_memory() / 1e9:.2f} GB are available, and one file may use half of it"
    return FrameError(problem + free, remedy, lacks_memory=True)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may still take, also in a container.

    Args:
        root: folder that contains ``proc`` and ``sys``.
    """
    free = _numbers(root / "proc/meminfo").get("MemAvailable:", 0) * 1024
    if not free:
        # Not Linux: the size of the memory is the best estimate.
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = root / "sys/fs/cgroup"
    for limit, usage, stat, cache in _CGROUPS:
        try:
            most, used = (int((group / name).read_text()) for name in (limit, usage))
        except (OSError, ValueError):
            continue  # no such file, or "max"
        # The kernel frees cached files when memory is needed.
        cached = _numbers(group / stat).get(cache, 0)
        free = min(free, max(0, most - used + cached))
    return free


def _numbers(file: Path) -> dict[str, int]:
    """Return the number after the name in each line of a file of the kernel, if there is one."""
    if not file.exists():
        return {}
    rows = (line.split() for line in file.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


Compression = Callable[[], _Decompressor]
_ERRORS = (zlib.error, lzma.LZMAError, OSError, zstandard.ZstdError)


def find_compression(head: bytes) -> Compression | None:
    """Return the decompressor class of a file, or None if it is not compressed.

    Args:
        head: the first bytes of the file: at least 10, or all of a shorter file.
    """
    if head.startswith(b"\x1f\x8b\x08"):
        return Zlib
    # A text may start with these letters, so check for the magic number of a block or of the end.
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return Zstandard
    # Files of parallel compressors start with a skippable frame.
    if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return Zstandard
    return None


_NAMES: dict[Any, str] = {
    Zlib: "gzip",
    bz2.BZ2Decompressor: "bzip2",
    lzma.LZMADecompressor: "xz",
    Zstandard: "Zstandard",
}


def compression_name(head: bytes) -> str:
    """Return the name of a file's compression, such as "gzip"; "" if `find_compression` finds none."""
    return _NAMES.get(find_compression(head), "")


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
        UserError: it needs more memory than this machine has.
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
            except FrameError as error:
                raise error.of(path) from error
            except _ERRORS as error:
                raise damaged_file(path, f"damaged compressed file ({error})") from error
            total += len(out)
            if total > allowed:
                raise bomb(path, allowed, max_expansion)
            if out:
                yield out
            data = inner.unused_data if inner.eof else b""
            if not inner.eof and inner.needs_input:
                break
    if not inner.eof:
        raise damaged_file(path, "this compressed file is truncated")


def bomb(path: str, allowed: int, max_expansion: int) -> DamagedFile:
    """Return the error for a file that unpacks to more than ``allowed`` bytes."""
    return damaged_file(
        path,
        f"unpacks to more than {allowed:,} bytes and {max_expansion:,} times its size; if it is "
        "intact, raise prepare.max_expansion",
    )
