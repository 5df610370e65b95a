"""Reading text and JSON Lines: records of the encoded bytes, then documents.

See `preprocess.reading.formats.table` for the interface.
"""

from collections.abc import Callable, Iterator

from preprocess.reading.block import Block
from preprocess.reading.byte_range import OLD_LINE_ENDS
from preprocess.reading.encodings.decoding import blank_lines
from preprocess.reading.encodings.wrong import Stretches
from preprocess.reading.formats.fields import Fields
from preprocess.reading.formats.text_reader import TextReader
from preprocess.reading.options import ReadOptions
from preprocess.reading.records import (
    Oversized,
    Records,
    has_old_line_ends,
    whole_file,
    whole_lines,
    whole_paragraphs,
    without_mark,
)
from preprocess.reading.stream import Stream


def text_reader(stream: Stream, options: ReadOptions) -> TextReader:
    """Return the converter of a stream's records to documents."""
    stretches = Stretches(
        stream.path,
        stream.encoding,
        stream.stored_encoding,
        stream.read,
        options.limits.skip_damaged,
    )
    limit = options.limits.max_document_bytes
    return TextReader(
        stream.name, stream.encoding, options.drop_invalid, limit, stretches, stream.place
    )


def read_text(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of a text: its lines, its paragraphs or the whole file."""
    reader = text_reader(stream, options)
    document, limit = options.source.document, options.limits.max_document_bytes
    read: Callable[[Records], Block]
    records: Iterator[Records | Oversized]
    if document == "line":
        _note_line_ends(stream)
        records, read = _lines(stream, limit), reader.read_lines
    elif document == "paragraph":
        _note_line_ends(stream)
        lines = _lines(stream, limit, beyond=True)
        blank = blank_lines(stream.encoding)
        records = whole_paragraphs(lines, stream.start, stream.end, blank, limit)
        read = reader.read_paragraphs
    elif stream.start > 0:
        # The first range has the whole file.
        return
    else:
        records = _without_mark(whole_file(stream.chunks, limit), stream)
        read = reader.read_file
    for record in records:
        yield reader.read_oversized(record) if isinstance(record, Oversized) else read(record)


def read_jsonl(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of a JSON Lines file, one object a line."""
    reader, fields = text_reader(stream, options), Fields.of(options.source)
    if options.source.document != "file":
        _note_line_ends(stream)
    for record in _lines(stream, options.limits.max_document_bytes):
        if isinstance(record, Oversized):
            yield reader.read_oversized(record)
        else:
            yield reader.read_jsonl(record, fields)


def _note_line_ends(stream: Stream) -> None:
    if stream.start == 0 and has_old_line_ends(stream.head):
        stream.findings.note = OLD_LINE_ENDS


def _lines(stream: Stream, limit: int, beyond: bool = False) -> Iterator[Records | Oversized]:
    """Yield the lines that start in the range, or also those after it (``beyond``)."""
    end = None if beyond else stream.end
    lines = whole_lines(stream.chunks, stream.start, end, stream.starts_line(), limit, stream.size)
    return _without_mark(lines, stream)


def _without_mark(
    records: Iterator[Records | Oversized], stream: Stream
) -> Iterator[Records | Oversized]:
    return without_mark(records) if stream.encoding == "utf-8" else records
