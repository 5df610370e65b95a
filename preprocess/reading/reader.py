"""Reading documents from raw files of any supported format, encoding and compression.

Every record becomes a document or a `Rejected` with its reason and location. A file that cannot be
read to its end raises an error; with ``damaged_files=skip``, it is counted as a `Rejected` after its
readable documents. Memory is bounded by one block and one record of at most ``max_document_bytes``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import BinaryIO

import xxhash

from preprocess.config import Source
from preprocess.errors import UserError, one_line
from preprocess.reading.block import Block, Rejected, join_small
from preprocess.reading.byte_range import (
    NOT_TEXT,
    DamagedFile,
    RangeRead,
    RawRange,
    UnreadableFile,
    first_bytes,
    open_range,
    read_errors_as_damaged,
)
from preprocess.reading.documents import read_documents
from preprocess.reading.options import BLOCK_BYTES, DEFAULT_LIMITS, ReadOptions
from preprocess.reading.options import Limits as Limits
from preprocess.reading.stream import Findings, Stream, read_at
from preprocess.reading.units import Range, Unit
from preprocess.text.config import CleaningConfig

MOST_MESSAGES = 20
"""Maximum number of unreadable files of a unit that an error names."""


def read_unit(
    unit: Unit,
    source: Source,
    cleaning: CleaningConfig,
    limits: Limits = DEFAULT_LIMITS,
    block_bytes: int = BLOCK_BYTES,
    alive: Callable[[], None] = lambda: None,
) -> "UnitReader":
    """Return an iterable over the documents of a unit, in blocks.

    A document is, by format: a line, paragraph or file of text (`Source.document`; lines end with
    LF or CRLF); an object of a JSON Lines file, whose blank lines are ignored; a row of a Parquet
    file; a paragraph of prose in a Python source. A byte order mark at the start of a file is
    removed.

    gzip, bzip2, xz and Zstandard are detected by content, UTF-16 and UTF-32 by their byte order
    marks. If such a file was cut into ranges because planning cannot know its content, its first
    range yields all documents and the other ranges yield none. Byte offsets in locations count
    uncompressed bytes, or bytes of the converted text if the file was converted to UTF-8 (see
    `preprocess.reading.encodings.decoding`).

    Args:
        unit: the unit.
        source: its source.
        cleaning: its ``invalid_bytes`` decides whether documents with invalid bytes are rejected; no
            text is cleaned here.
        limits: limits of record size and compression.
        block_bytes: raw bytes per block, approximately.
        alive: called after every few hundred kilobytes, also inside a long document, to show progress.
    """
    drop_invalid = cleaning.invalid_bytes == "drop"
    return UnitReader(unit, ReadOptions(source, limits, drop_invalid, block_bytes, alive))


class UnitReader:
    """Iterates over the `Block`s of a unit; created by `read_unit`.

    Attributes:
        digests: after iteration, the xxh128 of the raw bytes of each range, in hexadecimal; for a
            damaged file, of the bytes that could be read; for a file of which only parts are needed, of
            these (`RangeRead.parts`).
        encodings: after iteration, the encoding found for each range of a text file of a source with
            ``encoding: auto``; empty for other ranges.
        notes: after iteration, `OLD_LINE_ENDS` for the first range of each file whose lines seem to end
            with a carriage return, which ends no document; `NOTHING` for a compressed file or Parquet
            file without text; empty for other ranges.
        findings: what was found out about the file of each range, also during iteration.
    """

    def __init__(self, unit: Unit, options: ReadOptions) -> None:
        self._unit = unit
        self._options = options
        self.digests: list[str] = []
        self.findings: list[Findings] = []
        self._open: tuple[RawRange, xxhash.xxh3_128] | None = None

    @property
    def encodings(self) -> list[str]:
        """Encoding of each range; see the class."""
        return [found.encoding for found in self.findings]

    @property
    def notes(self) -> list[str]:
        """Note of each range; see the class."""
        return [found.note for found in self.findings]

    def read_so_far(self) -> list[RangeRead]:
        """Return what was read of each range until now.

        These bytes contain all documents that were yielded, except perhaps the end of the last one.
        """
        ends = [(r.end, d) for r, d in zip(self._unit.ranges, self.digests, strict=False)]
        if self._open:
            ends.append((self._open[0].position, self._open[1].hexdigest()))
        return [
            RangeRead(
                *(end, digest, found.encoding, found.note, found.parts),
                tuple(sorted(found.encodings.items())),
                tuple(found.members.items()),
            )
            for (end, digest), found in zip(ends, self.findings, strict=False)
        ]

    def __iter__(self) -> Iterator[Block]:
        """Read the unit.

        Raises:
            DamagedFile: a file is missing, has shrunk, cannot be read, is not text or is in another
                encoding, and ``skip_damaged`` is not set.
            UserError: a file needs a package that is not installed, or more memory.
        """
        self.digests, self.findings, self._open = [], [], None
        return join_small(self._blocks(), self._options.block_bytes)

    def _blocks(self) -> Iterator[Block]:
        for number, piece in enumerate(self._unit.ranges):
            try:
                yield from self._read_range(piece)
            except UnreadableFile as error:
                raise self._with_others(error, self._unit.ranges[number + 1 :]) from error

    def _with_others(self, error: UnreadableFile, others: Sequence[Range]) -> UnreadableFile:
        """Add the messages of unreadable files among ``others``, so that one run names many."""
        messages = {str(error): None}
        for piece in others:
            if len(messages) == MOST_MESSAGES:
                break
            try:
                next(self._read_range(piece), None)
            except UnreadableFile as other:
                messages[str(other)] = None
            except (UserError, OSError):
                continue
        return UnreadableFile("\n".join(messages))

    def _read_range(self, piece: Range) -> Iterator[Block]:
        """Yield the blocks of a range; their raw bytes sum to its length, even in a damaged file."""
        taken = 0
        findings = Findings()
        self.findings.append(findings)
        digest = xxhash.xxh3_128()
        rejected: list[Rejected] = []
        try:
            with read_errors_as_damaged(piece.path), open_range(piece) as file:
                raw = RawRange(file, piece, self._options.block_bytes, digest)
                self._open = raw, digest
                try:
                    stream = _range_stream(piece, file, raw, findings)
                    for block in read_documents(stream, self._options):
                        size = raw.take()
                        taken += size
                        yield replace(block, raw_bytes=size)
                except DamagedFile as error:
                    rejected = self._skipped(piece, error)
                for _ in raw.rest_of_range():
                    size = raw.take()
                    taken += size
                    yield Block([], [], 0, size)
        except DamagedFile as error:
            rejected = rejected or self._skipped(piece, error)
        if rejected or taken < piece.end - piece.start:
            yield Block([], rejected, 0, piece.end - piece.start - taken)
        self.digests.append(digest.hexdigest())
        self._open = None

    def _skipped(self, piece: Range, error: DamagedFile) -> list[Rejected]:
        # No one has said that the files in a folder are text.
        is_other = piece.in_folder and error.reason == NOT_TEXT
        if not is_other and not self._options.limits.skip_damaged:
            raise error
        if isinstance(error, UnreadableFile) and piece.start > 0:
            # The first range counts the file.
            return []
        # By its name, because no result contains an absolute path.
        message = str(error).replace(one_line(piece.path), one_line(piece.name))
        return [Rejected(error.reason, message, piece.name)]


def _range_stream(piece: Range, file: BinaryIO, raw: RawRange, findings: Findings) -> Stream:
    return Stream(
        piece.name,
        piece.path,
        first_bytes(piece, file),
        raw,
        partial(read_at, file),
        piece.start,
        piece.end,
        piece.bytes,
        file,
        read_parts=raw.read_parts,
        findings=findings,
    )
