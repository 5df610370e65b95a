"""Raw files to documents: whatever the format, the encoding or the compression.

Nothing is lost in silence: what is not a document is a `Rejected` with its reason and place, and a
file that cannot be read to its end is an error, or is counted where that is asked for. A file is
read in blocks of megabytes; what is held is a block, and of a longer record no more than
``max_document_bytes``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import BinaryIO

import xxhash

from preprocess.config import PrepareConfig, Source
from preprocess.files import storage
from preprocess.reading.block import Block, Rejected, join_small
from preprocess.reading.byte_range import (
    HEAD_BYTES,
    DamagedFile,
    RawRange,
    damaged_file,
    unreadable_as_damaged,
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
"""Small enough for the processor's cache: in blocks of 4 MB, reading takes half as much time again."""
_PARTS = PrepareConfig.model_fields


@dataclass(frozen=True)
class Limits:
    """What a reader puts up with; the defaults are those of `PrepareConfig`."""

    max_document_bytes: int = _PARTS["max_document_bytes"].default
    max_expansion: int = _PARTS["max_expansion"].default
    skip_damaged: bool = False

    @staticmethod
    def of(config: PrepareConfig) -> "Limits":
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
    """The documents of a unit in blocks of about ``block_bytes`` raw bytes.

    text: a document a line, a paragraph or a file, as `Source.document` says; a line ends at LF or
    CRLF. jsonl: an object a line, in which a blank line is not a document. parquet: a row. docstrings:
    a paragraph of a Python source's prose. A byte order mark at the start of a file is dropped.

    gzip, bzip2, xz and Zstandard are known by content, and so are UTF-16 and UTF-32 by their marks. A
    file that must be read from its start and whose name did not tell it may have been cut: its first
    range then holds all documents, the others none. Offsets in places count the unpacked bytes, of a
    file in UTF-16, UTF-32, EBCDIC or an encoding with shift states those of its text as UTF-8.
    """
    return UnitReader(unit, source, cleaning, limits, block_bytes)


class UnitReader:
    """Iterates over the `Block`s of a unit; made by `read_unit`."""

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
        """After iteration: for each range the xxh128 of its raw bytes ``[start, end)``, in hex; of a
        damaged_file file that of the bytes that could be read."""

    def __iter__(self) -> Iterator[Block]:
        """Read the unit.

        Raises:
            DamagedFile: a file has vanished, has shrunk, may not be read, or is broken; not with
                ``skip_damaged``.
            UserError: a Parquet file has no such column.
        """
        self.digests = []
        ranges = (self._read_range(piece) for piece in self._unit.ranges)
        return join_small(chain.from_iterable(ranges), self._block_bytes)

    def _read_range(self, piece: Range) -> Iterator[Block]:
        """The blocks of a range; their bytes sum to its length, whatever happens."""
        taken = 0
        digest = xxhash.xxh3_128()
        rejected: list[Rejected] = []
        try:
            with unreadable_as_damaged(piece.path), storage.open_read(piece.path) as file:
                raw = RawRange(file, piece, self._block_bytes, digest)
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

    def _skipped(self, piece: Range, error: DamagedFile) -> list[Rejected]:
        if not self._limits.skip_damaged:
            raise error
        return [Rejected("damaged_file", str(error), piece.name)]

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
                    piece.path, "this is a Parquet file inside a compressed one; unpack it"
                )
            yield from read_parquet(
                file, piece, source, self._drop_invalid, limit, self._block_bytes
            )
            return
        encoding = find_encoding(head, source.encoding)
        stream = compression is not None
        if not is_cuttable(encoding) and kind != "docstrings":
            if piece.start > 0:
                return
            chunks, encoding, stream = _as_utf8(chunks, encoding, piece.path), "utf-8", True
        if kind is None:
            if stream:
                kind, chunks = self._tell_stream(chunks, encoding)
            else:
                kind = self._tell(chain([head], _behind_head(file)), encoding)
        text = TextReader(piece.name, encoding, self._drop_invalid, limit)
        for one in self._records(kind, chunks, piece, raw, stream, encoding):
            if isinstance(one, Oversized):
                yield text.read_oversized(one)
            elif kind == "docstrings":
                yield text.read_python(one)
            elif kind == "jsonl":
                yield text.read_jsonl(one, source.text_field, source.id_field)
            elif source.document == "line":
                yield text.read_lines(one)
            elif source.document == "paragraph":
                yield text.read_paragraphs(one)
            else:
                yield text.read_file(one)

    def _tell(self, chunks: Iterable[bytes], encoding: str) -> Format:
        limit = self._limits.max_document_bytes
        found = holds_json(chunks, encoding, self._source.text_field, limit)
        return "jsonl" if found else "text"

    def _tell_stream(
        self, chunks: Iterable[bytes], encoding: str
    ) -> tuple[Format, Iterable[bytes]]:
        """The format of what can be read once only, and all of it again."""
        chunks = iter(chunks)
        read: list[bytes] = []

        def beginning() -> Iterator[bytes]:
            for data in chunks:
                read.append(data)
                yield data

        return self._tell(beginning(), encoding), chain(read, chunks)

    def _records(
        self,
        kind: Format,
        chunks: Iterable[bytes],
        piece: Range,
        raw: RawRange,
        stream: bool,
        encoding: str,
    ) -> Iterator[Records | Oversized]:
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
        wanted = None if paragraphs else end
        size = None if stream else piece.bytes
        lines = whole_lines(chunks, start, wanted, starts_line, limit, size)
        lines = without_mark(lines) if marked else lines
        if not paragraphs:
            return lines
        return whole_paragraphs(lines, start, end, blank_lines(encoding), limit)


def _head(piece: Range, file: BinaryIO) -> bytes:
    """The first bytes of the whole file."""
    if piece.start > 0 and storage.is_remote(piece.path):
        # An open remote file reads ahead by megabytes, which the range then does not need.
        return storage.read_bytes(piece.path, 0, HEAD_BYTES)
    # No more than there is: to find the end of a small file takes as long as to read it.
    return file.read(min(HEAD_BYTES, piece.bytes))


def _behind_head(file: BinaryIO) -> Iterator[bytes]:
    file.seek(HEAD_BYTES)
    yield from iter(partial(file.read, 1 << 16), b"")


def _as_utf8(chunks: Iterable[bytes], encoding: str, path: str) -> Iterator[bytes]:
    try:
        yield from to_utf8(chunks, encoding)
    except UnicodeError as error:
        # Python gives up on a file with long runs of broken escape sequences.
        raise damaged_file(path, f"cannot be read as {encoding} ({error})") from error


def _peek(chunks: Iterable[bytes]) -> tuple[bytes, Iterable[bytes]]:
    """The first bytes, enough for a byte order mark and a magic number, and all chunks again."""
    chunks = iter(chunks)
    read: list[bytes] = []
    for data in chunks:
        read.append(data)
        if sum(map(len, read)) >= 4:
            break
    head = b"".join(read)
    return head, chain([head], chunks)
