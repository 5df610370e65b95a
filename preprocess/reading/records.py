"""Splitting raw bytes into complete records: lines, paragraphs or whole files, many at a time.

Only the start of an oversized record is kept, so memory is bounded by a chunk and the longest record
allowed. The length of a record is its number of bytes without the final line feed. A carriage return
alone does not end a line, so a file in the format of the old Mac OS is one line.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from preprocess.reading.block import EXCERPT_BYTES

FEWEST_RETURNS = 2
"""In a text without line feeds, at least this many carriage returns are taken for line ends."""


class Records(NamedTuple):
    """Complete consecutive records.

    Attributes:
        offset: byte offset of the first one.
        data: their bytes, concatenated.
    """

    offset: int
    data: bytes


class Oversized(NamedTuple):
    """A record longer than the limit.

    Attributes:
        offset: its byte offset.
        beginning: its first bytes, up to `EXCERPT_BYTES`.
    """

    offset: int
    beginning: bytes


def whole_lines(
    chunks: Iterable[bytes],
    start: int,
    end: int | None,
    starts_line: bool,
    limit: int,
    size: int | None = None,
) -> Iterator[Records | Oversized]:
    """Yield the lines that start in ``[start, end)``.

    Args:
        chunks: the bytes from ``start`` to the end of the file; no chunk crosses ``end``.
        start: byte offset of the first chunk.
        end: byte offset where the next range starts; None means to the end of the file.
        starts_line: True if a line starts at ``start``.
        limit: bytes of the longest line; longer ones are yielded as `Oversized`.
        size: byte offset of the end of the file, if known. The last chunk is then not split at its
            last line end.
    """
    position = offset = start
    pieces: list[bytes] = []
    held = 0
    passing: bytes | None = None  # start of an oversized line
    for data in chunks:
        finishing = end is not None and position >= end
        if finishing and not pieces and passing is None:
            return
        position += len(data)
        if not starts_line or passing is not None:
            first = data.find(b"\n") + 1
            if passing is not None:
                passing = _beginning([passing, data[: first - 1] if first else data])
            if not first:
                continue
            if passing is not None:
                yield Oversized(offset, passing)
                if finishing:
                    return
            offset = position - len(data) + first
            starts_line, passing, data = True, None, data[first:]
        # After the range's end, only the line that started before it is needed.
        cut = (data.find(b"\n") if finishing else data.rfind(b"\n")) + 1
        if position == size and not finishing:
            cut = len(data)
        if cut:
            lines = b"".join([*pieces, data[:cut]])
            yield from _lines_within(offset, lines, limit)
            if finishing:
                return
            offset += len(lines)
            pieces, held = [], 0
        if cut < len(data):
            pieces.append(data[cut:])
            held += len(pieces[-1])
            if held > limit:
                passing = _beginning(pieces)
                pieces, held = [], 0
    if passing is not None:
        yield Oversized(offset, passing)
    elif pieces:
        yield Records(offset, b"".join(pieces))


def _lines_within(offset: int, data: bytes, limit: int) -> Iterator[Records | Oversized]:
    """Yield complete lines, with oversized ones separated."""
    if len(data) - data.endswith(b"\n") <= limit:
        yield Records(offset, data)
        return
    begin = position = 0
    for line in data.removesuffix(b"\n").split(b"\n"):
        after = position + len(line) + 1
        if len(line) > limit:
            if begin < position:
                yield Records(offset + begin, data[begin:position])
            yield Oversized(offset + position, line[:EXCERPT_BYTES])
            begin = after
        position = after
    if begin < len(data):
        yield Records(offset + begin, data[begin:])


def whole_paragraphs(
    lines: Iterable[Records | Oversized],
    start: int,
    end: int | None,
    blank: re.Pattern[bytes],
    limit: int,
) -> Iterator[Records | Oversized]:
    """Yield the paragraphs of the range ``[start, end)``.

    A paragraph belongs to the range in which the blank line before it starts. The first paragraph
    of a file belongs to the first range.

    Args:
        lines: the lines that start at ``start`` or later, to the end of the file.
        start: byte offset of the range.
        end: byte offset where the next range starts; None means to the end of the file.
        blank: pattern of a line end and the blank lines after it, from `encodings.blank_lines`.
        limit: bytes of the longest paragraph; longer ones are yielded as `Oversized`.
    """
    owned = start == 0
    offset = 0
    pieces: list[bytes] = []
    held = 0
    passing: bytes | None = None  # start of an oversized paragraph
    first: int | None = None if start == 0 else start
    for block in lines:
        first = block.offset if first is None else first
        if isinstance(block, Oversized):
            # An oversized line makes its paragraph oversized.
            if owned:
                offset = offset if pieces or passing is not None else block.offset
                passing = _beginning([passing or b"", *pieces, block.beginning, b"\n"])
                pieces, held = [], 0
            continue
        block_start, data = block
        beyond = False
        # data[whole:after] are paragraphs that end in this block.
        whole = after = 0
        for run in blank.finditer(b"\n" + data):
            last_blank = block_start + run.string.rfind(b"\n", 0, run.end() - 1)
            # A byte order mark shifts the first line of the file, but not into another range.
            beyond = end is not None and last_blank >= end and last_blank != first
            after = run.end() - 1
            if not owned:
                owned, whole = not beyond, after
            elif passing is not None:
                passing = _beginning([passing, data[: run.start()]])
                yield Oversized(offset, passing.removesuffix(b"\n"))
                passing, whole = None, after
            if beyond:
                break
        if not owned:
            if beyond or (end is not None and block_start >= end):
                return
            continue
        if whole < after:
            yield Records(
                offset if pieces else block_start + whole, b"".join([*pieces, data[whole:after]])
            )
            pieces, held = [], 0
        if beyond:
            return
        if passing is not None:
            passing = _beginning([passing, data])
        elif after < len(data):
            offset = offset if pieces else block_start + after
            pieces.append(data[after:])
            held += len(pieces[-1])
            if held - data.endswith(b"\n") > limit:
                passing = _beginning(pieces)
                pieces, held = [], 0
    if passing is not None:
        yield Oversized(offset, passing.removesuffix(b"\n"))
    elif pieces:
        yield Records(offset, b"".join(pieces))


def paragraph_spans(lines: bytes, blank: re.Pattern[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each paragraph in complete lines; the end is without line end."""
    begin = 1
    for run in blank.finditer(b"\n" + lines + b"\n"):
        if run.start() > begin:
            yield begin - 1, run.start() - 1
        begin = run.end()
    if begin <= len(lines):
        yield begin - 1, len(lines)


def whole_file(chunks: Iterable[bytes], limit: int) -> Iterator[Records | Oversized]:
    """Yield a whole file as one record, or nothing if it is empty.

    Args:
        chunks: the bytes of the file.
        limit: maximum bytes of the file; a longer one is yielded as `Oversized`.
    """
    pieces: list[bytes] = []
    held = 0
    passing: bytes | None = None
    for data in chunks:
        held += len(data)
        if passing is not None:
            passing = _beginning([passing, data])
            continue
        pieces.append(data)
        if held - data.endswith(b"\n") > limit:
            passing = _beginning(pieces)
            pieces = []
    if passing is not None:
        yield Oversized(0, passing.removesuffix(b"\n"))
    elif held:
        yield Records(0, b"".join(pieces))


def has_old_line_ends(head: bytes) -> bool:
    """Return True if the lines of a text seem to end with CR alone, as in files of the old Mac OS.

    Args:
        head: the first bytes of the text, in an encoding for which `is_cuttable` is True.
    """
    text = head.strip(b"\r\n")
    return b"\n" not in text and text.count(b"\r") >= FEWEST_RETURNS


def without_mark(items: Iterable[Records | Oversized]) -> Iterator[Records | Oversized]:
    """Yield the items, without a UTF-8 byte order mark at the start of the file."""
    mark = codecs.BOM_UTF8
    for item in items:
        if item.offset > 0 or not item[1].startswith(mark):
            yield item
        elif isinstance(item, Oversized):
            yield Oversized(len(mark), item.beginning[len(mark) :])
        elif len(item.data) > len(mark):
            yield Records(len(mark), item.data[len(mark) :])


def _beginning(pieces: list[bytes]) -> bytes:
    """Return what is kept of an oversized record, independent of the chunks it came in."""
    return b"".join(pieces)[:EXCERPT_BYTES]
