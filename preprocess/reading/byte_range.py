"""Reading of the raw bytes of a range of a file, and the error for files that cannot be read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import xxhash

from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.errors import DamagedArchive
from preprocess.reading.units import Range

HEAD_BYTES = 64 * 1024
"""Leading bytes from which a file's compression, encoding and format are detected."""
_TAIL_BYTES = 64 * 1024
_REQUEST_BYTES = 8 << 20
OLD_LINE_ENDS, NOTHING = "old line ends", "no text"
WRONG_DECLARED = "declared encoding"
"""Values of `RangeRead.note`."""
NAMED_MEMBERS = 1000
"""Members of a range of an archive that are named with their encoding; an archive may have millions."""

NOT_TEXT = "not_text"
"""Reason under which a file is counted whose content is not text."""


class DamagedFile(UserError):  # noqa: N818
    """A raw file that cannot be read to its end.

    Attributes:
        reason: reason under which the file is counted if damaged files are skipped.
        problem: what is wrong, without the path and the remedy; empty if the message has it only.
    """

    reason = "damaged_file"
    problem = ""


class UnreadableFile(DamagedFile):
    """A raw file from which nothing can be read, because of its kind or its columns.

    Every range of the file raises it, and the first range counts it.
    """


def damaged_file(path: str, problem: str) -> DamagedFile:
    """Return the error for the file ``path``; the message adds what users can do."""
    error = DamagedFile(
        f"{one_line(path)}: {problem}; replace it with an intact copy, leave it out of the input, or "
        "keep what can be read with prepare.damaged_files=skip"
    )
    error.problem = problem
    return error


def unreadable_file(path: str, problem: str, remedy: str, reason: str) -> UnreadableFile:
    """Return the error for a file from which nothing can be read.

    Args:
        path: the file.
        problem: what is wrong.
        remedy: what users can do, apart from leaving the file out or skipping it.
        reason: see `DamagedFile.reason`.
    """
    error = UnreadableFile(
        f"{one_line(path)}: {problem}; {remedy}, leave it out of the input, or count it with "
        "prepare.damaged_files=skip"
    )
    error.reason, error.problem = reason, problem
    return error


@contextmanager
def read_errors_as_damaged(path: str) -> Iterator[None]:
    """Convert errors of a missing or unreadable file, or a broken disk, to `DamagedFile`.

    Possibly temporary errors of remote files pass unchanged, so that a Beam engine can retry.
    """
    try:
        yield
    except OSError as error:
        lasting = FileNotFoundError | PermissionError | IsADirectoryError | DamagedArchive
        if storage.is_remote(path) and not isinstance(error, lasting):
            raise
        raise damaged_file(path, f"cannot be read ({error.strerror or error})") from error


class RangeRead(NamedTuple):
    """What was read of a range.

    Attributes:
        end: offset in the file after the last byte that was read.
        xxh128: hash of the bytes from the start of the range to ``end``, in hexadecimal.
        encoding: the encoding that was detected, if `Source.encoding` is "auto"; otherwise empty.
        note: `OLD_LINE_ENDS`, `WRONG_DECLARED` or `NOTHING`, as in `UnitReader.notes`; empty for most files.
        parts: (start, end) of the bytes that were read and hashed, if they are not the whole range. They
            may be outside it, as the footer of a Parquet file is.
        encodings: (encoding, number of members) of an archive, of the members whose encoding was detected, in
            the order of the encodings' names.
        members: (name, encoding) of the first members that are not in UTF-8, at most `NAMED_MEMBERS`.
    """

    end: int
    xxh128: str
    encoding: str = ""
    note: str = ""
    parts: Sequence[tuple[int, int]] = ()
    encodings: Sequence[tuple[str, int]] = ()
    members: Sequence[tuple[str, str]] = ()


class RawRange:
    """Iterates over chunks of bytes from a range's start to the end of the file.

    No chunk crosses the range's end. Chunks after it are small, because they only serve to complete
    the last record. Callers may seek in the file between two chunks.

    Args:
        file: the open file.
        piece: the range.
        chunk_bytes: bytes of a chunk inside the range.
        digest: hash that is updated with the bytes of the range, but not with those after it.

    Raises:
        DamagedFile: the file is shorter than when the work was planned.
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

    @property
    def position(self) -> int:
        """End of the bytes of the range that were read and hashed."""
        return min(self._position, self._piece.end)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.rest_of_range()
        while self._position < self._piece.bytes:
            yield self._read(min(_TAIL_BYTES, self._piece.bytes - self._position))

    def rest_of_range(self) -> Iterator[bytes]:
        """Yield the chunks up to the range's end that have not been read yet."""
        while (left := self._piece.end - self._position) > 0:
            data = self._read(min(self._chunk_bytes, left))
            self._digest.update(data)
            yield data

    def read_parts(self, parts: Sequence[tuple[int, int]], file: BinaryIO) -> Iterator[bytes]:
        """Yield the bytes of some parts of the file, in place of those of the range.

        They are hashed in place of the range, which counts as read after the last one.

        Args:
            parts: (start, end) of each.
            file: the same file, perhaps opened in another way.
        """
        # A request to a store takes as long as reading megabytes.
        size = self._chunk_bytes if file is self._file else _REQUEST_BYTES
        try:
            for start, end in parts:
                for at in range(start, end, size):
                    data = self._at(at, min(size, end - at), file)
                    self._digest.update(data)
                    yield data
        except DamagedFile:
            # The range itself is hashed then.
            self._digest.reset()
            raise
        self._position = self._piece.end

    def take(self) -> int:
        """Return the number of bytes of the range read since the last call."""
        previous, self._taken = self._taken, self.position
        return self._taken - previous

    def _read(self, size: int) -> bytes:
        data = self._at(self._position, size, self._file)
        self._position += len(data)
        return data

    def _at(self, position: int, size: int, file: BinaryIO) -> bytes:
        file.seek(position)
        data = file.read(size)
        if not data:
            raise damaged_file(
                self._piece.path,
                f"ends after {position:,} bytes, but had {self._piece.bytes:,} when the work "
                "was planned",
            )
        return data


def open_range(piece: Range) -> BinaryIO:
    """Open the file of a range, from which the range and the end of its last record will be read."""
    start, end = max(piece.start - 1, 0), min(piece.end + _TAIL_BYTES, piece.bytes)
    return storage.open_read(piece.path, piece.bytes, storage.Part(start, end))


def first_bytes(piece: Range, file: BinaryIO) -> bytes:
    """Return the first `HEAD_BYTES` of the file of a range."""
    # At most the file's size, because reading past the end costs another call.
    return file.read(min(HEAD_BYTES, piece.bytes))
