"""Raw files as bytes: the range that a unit owns, and files that cannot be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import xxhash

from preprocess.errors import UserError
from preprocess.files.storage import is_remote
from preprocess.reading.units import Range

HEAD_BYTES = 4096
"""Bytes at a file's start by which its compression, encoding and format are known."""
_TAIL_BYTES = 64 * 1024


class DamagedFile(UserError):  # noqa: N818
    """A raw file that cannot be read to its end; the message names it and says what to do."""


def damaged_file(path: str, what: str) -> DamagedFile:
    """The error for the file ``path``, with what can be done about any such file."""
    return DamagedFile(
        f"{path}: {what}; put a sound copy in its place, leave it out of the input, or keep what "
        "can be read with prepare.damaged_files=skip"
    )


@contextmanager
def unreadable_as_damaged(path: str) -> Iterator[None]:
    """Tell as `DamagedFile` that a file has vanished, may not be read, or lies on a broken disk.

    What may pass by itself, as a network does, is raised as it is, so that an engine tries again.
    """
    try:
        yield
    except OSError as error:
        lasting = FileNotFoundError | PermissionError | IsADirectoryError
        if is_remote(path) and not isinstance(error, lasting):
            raise
        raise damaged_file(path, f"cannot be read ({error.strerror or error})") from error


class RawRange:
    """Chunks of a file from a range's start to the file's planned end, hashed inside the range.

    A chunk never crosses the range's end, and those behind it are small: they serve to finish one
    record. The file may be moved between two chunks.
    """

    def __init__(
        self, file: BinaryIO, piece: Range, chunk_bytes: int, digest: xxhash.xxh3_128
    ) -> None:
        self._digest = digest
        self._file = file
        self._piece = piece
        self._chunk_bytes = chunk_bytes
        self._position = piece.start
        self._taken = piece.start

    def starts_line(self) -> bool:
        """Whether a line begins where the range does."""
        if self._piece.start == 0:
            return True
        self._file.seek(self._piece.start - 1)
        return self._file.read(1) == b"\n"

    def __iter__(self) -> Iterator[bytes]:
        yield from self.rest_of_range()
        while self._position < self._piece.bytes:
            yield self._read(min(_TAIL_BYTES, self._piece.bytes - self._position))

    def rest_of_range(self) -> Iterator[bytes]:
        while (left := self._piece.end - self._position) > 0:
            data = self._read(min(self._chunk_bytes, left))
            self._digest.update(data)
            yield data

    def take(self) -> int:
        """Bytes of the range read since the last call."""
        before, self._taken = self._taken, min(self._position, self._piece.end)
        return self._taken - before

    def _read(self, size: int) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(size)
        if not data:
            raise damaged_file(
                self._piece.path,
                f"ends after {self._position:,} bytes, was {self._piece.bytes:,} when the work was "
                "planned",
            )
        self._position += len(data)
        return data
