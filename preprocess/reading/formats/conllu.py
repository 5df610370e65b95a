"""Reading CoNLL-U: the sentences that its comments ``# text`` have."""

from collections.abc import Iterable, Iterator

from preprocess.reading.block import Block
from preprocess.reading.encodings.decoding import decode
from preprocess.reading.formats.record_blocks import Record, as_utf8, blocks_of
from preprocess.reading.options import ReadOptions
from preprocess.reading.records import Oversized, whole_lines, without_mark
from preprocess.reading.stream import Stream

_TEXT, _ID = "# text = ", "# sent_id = "
SENTENCE = b"# text = "
"""Begins the line with the text of a sentence."""


def read_conllu(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield a document for each sentence; see `conllu_records`."""
    chunks, place = as_utf8(stream)
    records = conllu_records(chunks, options.limits.max_document_bytes)
    return blocks_of(records, stream, options, place)


def conllu_records(chunks: Iterable[bytes], limit: int) -> Iterator[Record]:
    """Yield the sentences of a CoNLL-U file, numbered by their byte offsets.

    The text is that of the comment ``# text``, the id that of ``# sent_id``. A sentence without the
    comment, as in other CoNLL formats, is rejected, because its words have no spaces of their own.

    Args:
        chunks: the file, in UTF-8.
        limit: largest bytes of a line; a longer one makes its sentence oversized.
    """
    start: int | None = None
    first = text = name = reason = ""
    for offset, line in _lines(chunks, limit):
        if line is None or line.strip():
            start = offset if start is None else start
            first = first or (line or "").strip()
            if line is None:
                reason = "oversized"
            elif line.startswith(_TEXT):
                text = line.removeprefix(_TEXT).rstrip("\r")
            elif line.startswith(_ID):
                name = line.removeprefix(_ID).strip()
        elif start is not None:
            yield _sentence(start, first, text, name, reason)
            start, first, text, name, reason = None, "", "", "", ""
    if start is not None:
        yield _sentence(start, first, text, name, reason)


def _sentence(start: int, first: str, text: str, name: str, reason: str) -> Record:
    reason = reason or ("" if text else "missing_text_field")
    return Record(start, first if reason else text, name, reason)


def _lines(chunks: Iterable[bytes], limit: int) -> Iterator[tuple[int, str | None]]:
    """Yield the byte offset of each line and the line, or None if it is longer than the limit."""
    for block in without_mark(whole_lines(chunks, 0, None, True, limit)):
        if isinstance(block, Oversized):
            yield block.offset, None
            continue
        offset = block.offset
        for data in block.data.removesuffix(b"\n").split(b"\n"):
            yield offset, decode(data, "utf-8")[0]
            offset += len(data) + 1
