"""Reading documents from raw files of any supported format, encoding and compression.

Every record becomes a document or a `Rejected` with its reason and location. A file that cannot be
read to its end raises an error; with ``damaged_files=skip``, it is counted as a `Rejected` after its
readable documents. Memory is bounded by one block and one record of at most ``max_document_bytes``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import BinaryIO

import xxhash

from preprocess.config import PrepareConfig, Source
from preprocess.files import storage
from preprocess.reading.block import Block, Place, Rejected, join_small
from preprocess.reading.byte_range import (
    HEAD_BYTES,
    DamagedFile,
    RawRange,
    damaged_file,
    read_errors_as_damaged,
)
from preprocess.reading.compression import find_compression, unpack
from preprocess.reading.encodings import blank_lines, find_encoding, is_cuttable, to_utf8
from preprocess.reading.formats import Format, find_format, holds_json
from preprocess.reading.parquet import read_parquet
from preprocess.reading.records import (
    Oversized,
    Records,
    whole_file,
    whole_lines,
    whole_paragraphs,
    without_mark,
)
from preprocess.reading.text_reader import TextReader
from preprocess.reading.units import Range, Unit
from preprocess.text.config import CleaningConfig

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
    `preprocess.reading.encodings`).

    Args:
        unit: the unit.
        source: its source.
        cleaning: its ``invalid_bytes`` decides whether documents with invalid bytes are rejected; no
            text is cleaned here.
        limits: limits of record size and compression.
        block_bytes: raw bytes per block, approximately.
    """
    return UnitReader(unit, source, cleaning, limits, block_bytes)


class UnitReader:
    """Iterates over the `Block`s of a unit; created by `read_unit`.

    Attributes:
        digests: after iteration, the xxh128 of the raw bytes of each range, in hexadecimal; for a
            damaged file, of the bytes that could be read.
    """

    def __init__(
        self,
        unit: Unit,
        source: Source,
        cleaning: CleaningConfig,
        limits: Limits,
        block_bytes: int,
    ) -> None:
        self._unit = unit
        self._source = source
        self._drop_invalid = cleaning.invalid_bytes == "drop"
        self._limits = limits
        self._block_bytes = block_bytes
        self.digests: list[str] = []
        self._open: tuple[RawRange, xxhash.xxh3_128] | None = None

    def read_so_far(self) -> list[tuple[int, str]]:
        """Return, for each range that was read, the end of what was read, and its xxh128.

        All documents that were yielded lie in these bytes, but the end of the last may not.
        """
        read = [(r.end, d) for r, d in zip(self._unit.ranges, self.digests, strict=False)]
        return [*read, (self._open[0].position, self._open[1].hexdigest())] if self._open else read

    def __iter__(self) -> Iterator[Block]:
        """Read the unit.

        Raises:
            DamagedFile: a file is missing, has shrunk, cannot be read or is invalid, and
                ``skip_damaged`` is not set.
            UserError: a Parquet file does not have the columns of the source.
        """
        self.digests, self._open = [], None
        ranges = (self._read_range(piece) for piece in self._unit.ranges)
        return join_small(chain.from_iterable(ranges), self._block_bytes)

    def _read_range(self, piece: Range) -> Iterator[Block]:
        """Yield the blocks of a range; their raw bytes sum to its length, even in a damaged file."""
        taken = 0
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
        # By its name, because no result contains an absolute path.
        message = str(error).replace(piece.path, piece.name)
        return [Rejected("damaged_file", message, piece.name)]

    def _read_documents(self, piece: Range, file: BinaryIO, raw: RawRange) -> Iterator[Block]:
        source, limit = self._source, self._limits.max_document_bytes
        head = _head(piece, file)
        compression = find_compression(head, piece.path)
        if compression and piece.start > 0:
            return
        chunks: Iterable[bytes] = raw
        if compression:
            chunks = unpack(
                raw,
                compression,
                self._block_bytes,
                piece.path,
                piece.bytes,
                self._limits.max_expansion,
            )
            head, chunks = _peek(chunks)
        kind = find_format(source, piece.name, head)
        if kind == "parquet":
            if compression:
                raise damaged_file(
                    piece.path, "this is a Parquet file inside a compressed one; decompress it"
                )
            # Rows are not read in the order of bytes, so the range is hashed before them.
            yield from (Block([], [], 0, 0) for _ in raw.rest_of_range())
            yield from read_parquet(
                file, piece, source, self._drop_invalid, limit, self._block_bytes
            )
            return
        encoding = find_encoding(head, source.encoding)
        stream = compression is not None
        place: Place = "unpacked byte" if stream else "byte"
        if not is_cuttable(encoding) and kind != "docstrings":
            if piece.start > 0:
                return
            chunks, encoding, stream = _as_utf8(chunks, encoding, piece.path), "utf-8", True
            place = "UTF-8 byte"
        if kind is None:
            if stream:
                kind, chunks = self._detect_in_stream(chunks, encoding)
            else:
                kind = self._detect(chain([head], _after_head(file)), encoding)
        text = TextReader(piece.name, encoding, self._drop_invalid, limit, place)
        for records in self._records(kind, chunks, piece, raw, stream, encoding):
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

    def _detect(self, chunks: Iterable[bytes], encoding: str) -> Format:
        limit = self._limits.max_document_bytes
        is_jsonl = holds_json(chunks, encoding, self._source.text_field, limit)
        return "jsonl" if is_jsonl else "text"

    def _detect_in_stream(
        self, chunks: Iterable[bytes], encoding: str
    ) -> tuple[Format, Iterable[bytes]]:
        """Return the format of a stream, and an iterable over all its chunks."""
        chunks = iter(chunks)
        read: list[bytes] = []

        def beginning() -> Iterator[bytes]:
            for data in chunks:
                read.append(data)
                yield data

        return self._detect(beginning(), encoding), chain(read, chunks)

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


def _head(piece: Range, file: BinaryIO) -> bytes:
    """Return the first bytes of the file."""
    if piece.start > 0 and storage.is_remote(piece.path):
        # The open remote file would read megabytes ahead, which the range does not need.
        return storage.read_bytes(piece.path, 0, HEAD_BYTES)
    # At most the file's size, because reading past the end costs another call.
    return file.read(min(HEAD_BYTES, piece.bytes))


def _after_head(file: BinaryIO) -> Iterator[bytes]:
    file.seek(HEAD_BYTES)
    yield from iter(partial(file.read, 1 << 16), b"")


def _as_utf8(chunks: Iterable[bytes], encoding: str, path: str) -> Iterator[bytes]:
    try:
        yield from to_utf8(chunks, encoding)
    except UnicodeError as error:
        # Python's decoder fails on long runs of invalid escape sequences.
        raise damaged_file(path, f"cannot be read as {encoding} ({error})") from error


def _peek(chunks: Iterable[bytes]) -> tuple[bytes, Iterable[bytes]]:
    """Return the first bytes, enough for a byte order mark or magic number, and all chunks."""
    chunks = iter(chunks)
    read: list[bytes] = []
    for data in chunks:
        read.append(data)
        if sum(map(len, read)) >= 4:
            break
    head = b"".join(read)
    return head, chain([head], chunks)
