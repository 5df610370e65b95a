"""Reading documents from raw files of any supported format, encoding and compression.

Every record becomes a document or a `Rejected` with its reason and location. A file that cannot be
read to its end raises an error; with ``damaged_files=skip``, it is counted as a `Rejected` after its
readable documents. Memory is bounded by one block and one record of at most ``max_document_bytes``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import BinaryIO

import xxhash

from preprocess.config import PrepareConfig, Source
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.reading.block import Block, Place, Rejected, join_small
from preprocess.reading.byte_range import (
    HEAD_BYTES,
    NOTHING,
    OLD_LINE_ENDS,
    DamagedFile,
    RangeRead,
    RawRange,
    Tape,
    UnreadableFile,
    damaged_file,
    first_bytes,
    in_pieces,
    read_at,
    read_errors_as_damaged,
)
from preprocess.reading.compression import find_compression, unpack
from preprocess.reading.encodings.decoding import AUTO, blank_lines, is_cuttable, to_utf8
from preprocess.reading.encodings.wrong import (
    STRETCH_BYTES,
    ReadBytes,
    Stretches,
    choose_encoding,
)
from preprocess.reading.formats import Format, find_format
from preprocess.reading.kinds.detector import Detector
from preprocess.reading.parquet import read_parquet
from preprocess.reading.records import (
    Oversized,
    Records,
    has_old_line_ends,
    whole_file,
    whole_lines,
    whole_paragraphs,
    without_mark,
)
from preprocess.reading.text_reader import TextReader
from preprocess.reading.units import Range, Unit
from preprocess.text.config import CleaningConfig

MOST_MESSAGES = 20
"""Maximum number of unreadable files of a unit that an error names."""
BLOCK_BYTES = 256 * 1024
"""Default raw bytes per block. This fits the processor's cache; with blocks of 4 MB, reading takes
about 1.5 times as long."""
_FIELDS = PrepareConfig.model_fields


@dataclass(frozen=True)
class Limits:
    """Limits of a reader, with the defaults of `PrepareConfig`.

    Attributes:
        max_document_bytes: bytes above which a record is rejected as "oversized".
        max_expansion: ratio of uncompressed to compressed bytes above which a file counts as damaged;
            files that unpack to at most 256 MB never do.
        skip_damaged: yield a `Rejected` for a damaged file instead of raising `DamagedFile`.
    """

    max_document_bytes: int = _FIELDS["max_document_bytes"].default
    max_expansion: int = _FIELDS["max_expansion"].default
    skip_damaged: bool = False

    @staticmethod
    def of(config: PrepareConfig) -> "Limits":
        """Return the limits that a config sets."""
        return Limits(
            config.max_document_bytes, config.max_expansion, config.damaged_files == "skip"
        )


def read_unit(
    unit: Unit,
    source: Source,
    cleaning: CleaningConfig,
    limits: Limits = Limits(),
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
    return UnitReader(unit, source, cleaning, limits, block_bytes, alive)


class UnitReader:
    """Iterates over the `Block`s of a unit; created by `read_unit`.

    Attributes:
        digests: after iteration, the xxh128 of the raw bytes of each range, in hexadecimal; for a
            damaged file, of the bytes that could be read.
        encodings: after iteration, the encoding found for each range of a text file of a source with
            ``encoding: auto``; empty for other ranges.
        notes: after iteration, `OLD_LINE_ENDS` for the first range of each file whose lines seem to end
            with a carriage return, which ends no document; `NOTHING` for a compressed file or Parquet
            file without text; empty for other ranges.
    """

    def __init__(
        self,
        unit: Unit,
        source: Source,
        cleaning: CleaningConfig,
        limits: Limits,
        block_bytes: int,
        alive: Callable[[], None],
    ) -> None:
        self._unit = unit
        self._source = source
        self._drop_invalid = cleaning.invalid_bytes == "drop"
        self._limits = limits
        self._block_bytes = block_bytes
        self._alive = alive
        self.digests: list[str] = []
        self.encodings: list[str] = []
        self.notes: list[str] = []
        self._open: tuple[RawRange, xxhash.xxh3_128] | None = None

    def read_so_far(self) -> list[RangeRead]:
        """Return what was read of each range until now.

        These bytes contain all documents that were yielded, except perhaps the end of the last one.
        """
        ends = [(r.end, d) for r, d in zip(self._unit.ranges, self.digests, strict=False)]
        if self._open:
            ends.append((self._open[0].position, self._open[1].hexdigest()))
        found = zip(ends, self.encodings, self.notes, strict=False)
        return [RangeRead(end, digest, *others) for (end, digest), *others in found]

    def __iter__(self) -> Iterator[Block]:
        """Read the unit.

        Raises:
            DamagedFile: a file is missing, has shrunk, cannot be read, is not text or is in another
                encoding, and ``skip_damaged`` is not set.
            UserError: a file needs a package that is not installed, or more memory.
        """
        self.digests, self.encodings, self.notes, self._open = [], [], [], None
        return join_small(self._blocks(), self._block_bytes)

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
        self.encodings.append("")
        self.notes.append("")
        digest = xxhash.xxh3_128()
        rejected: list[Rejected] = []
        try:
            with read_errors_as_damaged(piece.path), storage.open_read(piece.path) as file:
                raw = RawRange(file, piece, self._block_bytes, digest)
                self._open = raw, digest
                try:
                    for block in self._read_documents(piece, file, raw):
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
        if not self._limits.skip_damaged:
            raise error
        if isinstance(error, UnreadableFile) and piece.start > 0:
            # The first range counts the file.
            return []
        # By its name, because no result contains an absolute path.
        message = str(error).replace(one_line(piece.path), one_line(piece.name))
        return [Rejected(error.reason, message, piece.name)]

    def _read_documents(self, piece: Range, file: BinaryIO, raw: RawRange) -> Iterator[Block]:
        source, limit = self._source, self._limits.max_document_bytes
        head = first_bytes(piece, file)
        compression = find_compression(head)
        if compression and piece.start > 0:
            return
        chunks: Iterable[bytes] = raw
        read: ReadBytes = partial(read_at, file)
        if compression:
            most = self._limits.max_expansion
            unpacked = unpack(raw, compression, self._block_bytes, piece.path, piece.bytes, most)
            chunks = tape = self._tape(unpacked)
            head, read = tape.read(0, HEAD_BYTES), tape.read
            if not head:
                self.notes[-1] = NOTHING
        kind = find_format(source, piece.name, head)
        detector = Detector(source, piece, compression is not None, limit)
        detector.check(kind, head)
        if kind == "parquet":
            # Rows are not read in the order of bytes, so the range is hashed before them.
            yield from (Block([], [], 0, 0) for _ in raw.rest_of_range())
            blocks = read_parquet(file, piece, source, self._drop_invalid, limit, self._block_bytes)
            first = next(blocks, None)
            if first is None and piece.end - piece.start == piece.bytes:
                self.notes[-1] = NOTHING
            yield from chain([first] if first else [], blocks)
            return
        stream = compression is not None
        place: Place = "unpacked byte" if stream else "byte"
        skip = self._limits.skip_damaged
        encoding = known = "utf-8"
        if kind != "docstrings":
            try:
                size = None if stream else piece.bytes
                encoding = known = choose_encoding(piece.path, head, source.encoding, size, read)
            except DamagedFile:
                # The first range counts the file.
                if piece.start > 0 and skip:
                    return
                raise
            if source.encoding == AUTO:
                self.encodings[-1] = encoding
        if not is_cuttable(encoding):
            if piece.start > 0:
                return
            chunks = tape = self._tape(_as_utf8(chunks, encoding, piece.path))
            encoding, stream, read, place = "utf-8", True, tape.read, "UTF-8 byte"
        if not piece.start and kind != "docstrings" and source.document != "file":
            start = head if known == encoding else read(0, HEAD_BYTES)
            if has_old_line_ends(start):
                self.notes[-1] = OLD_LINE_ENDS
        if kind is None:
            kind = detector.find(in_pieces(read), encoding)
        stretches = Stretches(piece.path, encoding, known, read, skip)
        text = TextReader(piece.name, encoding, self._drop_invalid, limit, stretches, place)
        for records in self._records(kind, self._reported(chunks), piece, raw, stream, encoding):
            if isinstance(records, Oversized):
                yield text.read_oversized(records)
            elif kind == "docstrings":
                yield text.read_python(records)
            elif kind == "jsonl":
                yield text.read_jsonl(records, source.text_field, source.id_field)
            elif source.document == "line":
                yield text.read_lines(records)
            elif source.document == "paragraph":
                yield text.read_paragraphs(records)
            else:
                yield text.read_file(records)

    def _reported(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._alive()
            yield chunk

    def _tape(self, chunks: Iterable[bytes]) -> Tape:
        return Tape(chunks, self._limits.max_document_bytes + STRETCH_BYTES + self._block_bytes)

    def _records(
        self,
        kind: Format,
        chunks: Iterable[bytes],
        piece: Range,
        raw: RawRange,
        stream: bool,
        encoding: str,
    ) -> Iterator[Records | Oversized]:
        """Yield the records of a range, or of a whole file if ``chunks`` are a ``stream``."""
        limit = self._limits.max_document_bytes
        if kind == "docstrings":
            return whole_file(chunks, limit)
        marked = encoding == "utf-8"
        if kind == "text" and self._source.document == "file":
            records = whole_file(chunks, limit)
            return without_mark(records) if marked else records
        start, end = (0, None) if stream else (piece.start, piece.end)
        paragraphs = kind == "text" and self._source.document == "paragraph"
        starts_line = stream or raw.starts_line()
        last = None if paragraphs else end
        size = None if stream else piece.bytes
        lines = whole_lines(chunks, start, last, starts_line, limit, size)
        lines = without_mark(lines) if marked else lines
        if not paragraphs:
            return lines
        return whole_paragraphs(lines, start, end, blank_lines(encoding), limit)


def _as_utf8(chunks: Iterable[bytes], encoding: str, path: str) -> Iterator[bytes]:
    try:
        yield from to_utf8(chunks, encoding)
    except UnicodeError as error:
        # Python's decoder fails on long runs of invalid escape sequences.
        raise damaged_file(path, f"cannot be read as {encoding} ({error})") from error
