"""Blocks of documents from single records, for formats that are read record by record."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from preprocess.reading.block import (
    EXCERPT_CHARACTERS,
    Block,
    Locations,
    Place,
    Rejected,
    location,
    place_prefix,
    shortened,
)
from preprocess.reading.byte_range import NOTHING
from preprocess.reading.encodings.decoding import is_invalid, replace_invalid, to_utf8
from preprocess.reading.encodings.wrong import checked_chunks
from preprocess.reading.formats.fields import without_surrogates
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream


class Record(NamedTuple):
    """A document, or a record that is none.

    Attributes:
        number: its byte offset or its row, as the place of the file counts.
        text: the text; for a record that is rejected, its beginning. It may have invalid bytes as
            `decoding.decode` leaves them.
        id: its id; empty if it has none.
        reason: reason to reject it; empty for a document.
    """

    number: int
    text: str
    id: str = ""
    reason: str = ""


def blocks_of(
    records: Iterable[Record], stream: Stream, options: ReadOptions, place: Place
) -> Iterator[Block]:
    """Yield the documents and rejections of records in blocks, whose ``raw_bytes`` are 0.

    A text above the limit is rejected as "oversized". If there are no records, that is noted.

    Args:
        records: the records. An error that they raise follows the blocks of the records before it.
        stream: the file.
        options: settings.
        place: what the numbers of the records count.
    """
    first = None
    for block in _blocks(records, stream, options, place):
        first = block
        yield block
    if first is None:
        stream.findings.note = NOTHING


def _blocks(
    records: Iterable[Record], stream: Stream, options: ReadOptions, place: Place
) -> Iterator[Block]:
    name, limit = stream.name, options.limits.max_document_bytes
    prefix = place_prefix(name, place)
    documents: list[str] = []
    rejected: list[Rejected] = []
    numbers: list[int] = []
    ids: list[str] = []
    replaced = size = 0
    error: Exception | None = None
    rows = iter(records)
    while True:
        try:
            record = next(rows, None)
        except Exception as raised:
            record, error = None, raised
        if record is not None:
            number, text, key, reason = record
            if not reason and not text.isascii():
                reason, text, count = _checked(text, options.drop_invalid)
                replaced += count
            if not reason and len(text) > limit // 4 and len(text.encode()) > limit:
                reason = "oversized"
            if reason:
                shown = shortened(text[:EXCERPT_CHARACTERS])
                rejected.append(Rejected(reason, shown, location(prefix, number, key)))
                size += len(shown)
            else:
                documents.append(text)
                numbers.append(number)
                ids.append(key)
                size += len(text)
        if size >= options.block_bytes or (record is None and (documents or rejected)):
            kept = ids if any(ids) else ()
            places = Locations(name, place, lambda numbers=numbers: numbers, kept)  # type: ignore[misc]
            yield Block(documents, rejected, replaced, 0, ((0, places),))
            documents, rejected, numbers, ids = [], [], [], []
            replaced = size = 0
        if error:
            raise error
        if record is None:
            return


def _checked(text: str, drop_invalid: bool) -> tuple[str, str, int]:
    """Return the reason to reject a text, the text, and the characters that were replaced in it."""
    if is_invalid(text):
        if drop_invalid:
            return "invalid_bytes", text, 0
        text, count = replace_invalid(text)
        text, more = without_surrogates(text)
        return "", text, count + more
    return "", *without_surrogates(text)


def as_utf8(stream: Stream) -> tuple[Iterable[bytes], Place]:
    """Return the bytes of a text in UTF-8, and what their offsets count.

    Invalid bytes become FF, which is invalid in UTF-8.

    Raises:
        DamagedFile: while the bytes are read, if a stretch of them is not in the file's encoding.
    """
    chunks = checked_chunks(stream.path, stream.chunks, stream.encoding, stream.stored_encoding)
    if stream.encoding == "utf-8":
        return chunks, stream.place
    return to_utf8(chunks, stream.encoding), "UTF-8 byte"
