"""Reading of an archive's bytes in order, with skipping forward."""

from collections.abc import Iterable, Iterator

from preprocess.reading.byte_range import DamagedFile

MOST_AT_ONCE = 4 << 20
"""Largest number of bytes that one call of `Sequential.read` returns. Headers are smaller, but a damaged
archive may ask for more."""


class TooLarge(Exception):  # noqa: N818
    """A header of an archive is larger than any real one."""


class Backwards(Exception):  # noqa: N818
    """A position before the present one was asked for."""


class Sequential:
    """A file object over chunks of bytes, which moves forward only.

    Args:
        chunks: the bytes from ``start`` on.
        start: offset of the first one.

    Attributes:
        bytes_read: bytes that were read or skipped.
        error: the error that ended the chunks, if any. It concerns the whole archive.
    """

    def __init__(self, chunks: Iterable[bytes], start: int = 0) -> None:
        self._chunks = iter(chunks)
        self._held = memoryview(b"")
        self._start = self._position = start
        self.error: DamagedFile | None = None

    @property
    def bytes_read(self) -> int:
        return self._position - self._start

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        """Skip forward to an offset, or to the end.

        Raises:
            Backwards: the offset is before the present one.
            DamagedFile: the chunks ended with this error.
        """
        if position < self._position:
            raise Backwards(f"offset {position:,} is before {self._position:,}")
        for _ in self.pieces(position - self._position):
            pass
        return self._position

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end.

        Raises:
            TooLarge: ``size`` is larger than `MOST_AT_ONCE`.
            DamagedFile: the chunks ended with this error.
        """
        if size > MOST_AT_ONCE:
            raise TooLarge(f"a header of {size:,} bytes")
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next ``size`` bytes in pieces as they come, fewer at the end."""
        while size > 0 and (self._held or self._pull()):
            piece = self._held[:size]
            self._held = self._held[len(piece) :]
            self._position += len(piece)
            size -= len(piece)
            yield bytes(piece)

    def _pull(self) -> bool:
        if self.error:
            raise self.error
        try:
            self._held = memoryview(next(self._chunks, b""))
        except DamagedFile as error:
            self.error = error
            raise
        return bool(self._held)
