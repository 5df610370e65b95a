"""Raw text cut into whole records: lines, paragraphs or whole files, many at a time.

A record too long is passed over without being held; only its beginning is kept. So memory is bounded
by the chunk and the longest record allowed. A record's length is its bytes without the line feed at
its end. A carriage return alone ends no line: a file of the old Mac OS is one line.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from preprocess.reading.block import EXCERPT_BYTES


class Records(NamedTuple):
    """Whole records."""

    offset: int
    data: bytes


class Oversized(NamedTuple):
    """A record above the limit."""

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
    """The lines that begin in ``[start, end)``.

    Args:
        chunks: the bytes from ``start`` on; none crosses ``end``.
        start: offset of the first chunk.
        end: offset from which lines are another's; none: all are wanted.
        starts_line: whether a line begins at ``start``.
        limit: bytes of the longest line that is held.
        size: where the text ends, if that is known: a small file is then one piece.
    """
    position = offset = start
    pieces: list[bytes] = []
    held = 0
    passing: bytes | None = None  # the beginning of a line too long
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
        # Past the end only the line that is open there is still wanted.
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
    """Whole lines without those that are too long."""
    if len(data) - data.endswith(b"\n") <= limit:
        yield Records(offset, data)
        return
    begin = place = 0
    for line in data.removesuffix(b"\n").split(b"\n"):
        after = place + len(line) + 1
        if len(line) > limit:
            if begin < place:
                yield Records(offset + begin, data[begin:place])
            yield Oversized(offset + place, line[:EXCERPT_BYTES])
            begin = after
        place = after
    if begin < len(data):
        yield Records(offset + begin, data[begin:])


def whole_paragraphs(
    lines: Iterable[Records | Oversized],
    start: int,
    end: int | None,
    blank: re.Pattern[bytes],
    limit: int,
) -> Iterator[Records | Oversized]:
    """The paragraphs of a range, which begin behind its first blank line and end at the next range's.

    So a paragraph belongs to the range in which the blank line before it begins, and the first of
    all to the first.

    Args:
        lines: the lines that begin at ``start`` and behind, also those behind ``end``.
        start: where the range begins; 0: a paragraph may begin there.
        end: where the next range begins; none: all is wanted.
        blank: finds a line end and the blank lines behind it, as `encodings.blank_lines`.
        limit: bytes of the longest paragraph that is held.
    """
    owned = start == 0
    offset = 0
    pieces: list[bytes] = []
    held = 0
    passing: bytes | None = None  # the beginning of a paragraph too long
    first: int | None = None if start == 0 else start
    for one in lines:
        first = one.offset if first is None else first
        if isinstance(one, Oversized):
            # A line too long makes its paragraph too long.
            if owned:
                offset = offset if pieces or passing is not None else one.offset
                passing = _beginning([passing or b"", *pieces, one.beginning, b"\n"])
                pieces, held = [], 0
            continue
        place, data = one
        theirs = False
        # data[whole:after] are paragraphs that end in this block.
        whole = after = 0
        for run in blank.finditer(b"\n" + data):
            last_blank = place + run.string.rfind(b"\n", 0, run.end() - 1)
            # A byte order mark moves the file's first line, but into no other range.
            theirs = end is not None and last_blank >= end and last_blank != first
            after = run.end() - 1
            if not owned:
                owned, whole = not theirs, after
            elif passing is not None:
                passing = _beginning([passing, data[: run.start()]])
                yield Oversized(offset, passing.removesuffix(b"\n"))
                passing, whole = None, after
            if theirs:
                break
        if not owned:
            if theirs or (end is not None and place >= end):
                return
            continue
        if whole < after:
            yield Records(
                offset if pieces else place + whole, b"".join([*pieces, data[whole:after]])
            )
            pieces, held = [], 0
        if theirs:
            return
        if passing is not None:
            passing = _beginning([passing, data])
        elif after < len(data):
            offset = offset if pieces else place + after
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
    """For each paragraph of whole ``lines`` where it begins and where its last line's text ends."""
    begin = 1
    for run in blank.finditer(b"\n" + lines + b"\n"):
        if run.start() > begin:
            yield begin - 1, run.start() - 1
        begin = run.end()
    if begin <= len(lines):
        yield begin - 1, len(lines)


def whole_file(chunks: Iterable[bytes], limit: int) -> Iterator[Records | Oversized]:
    """All of a file as one record; none where it is empty."""
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


def without_mark(items: Iterable[Records | Oversized]) -> Iterator[Records | Oversized]:
    """The same without the byte order mark of UTF-8 at the very start."""
    mark = codecs.BOM_UTF8
    for one in items:
        if one.offset > 0 or not one[1].startswith(mark):
            yield one
        elif isinstance(one, Oversized):
            yield Oversized(len(mark), one.beginning[len(mark) :])
        elif len(one.data) > len(mark):
            yield Records(len(mark), one.data[len(mark) :])


def _beginning(pieces: list[bytes]) -> bytes:
    """What is kept of a record too long; the more of it is given, whatever the chunks."""
    return b"".join(pieces)[:EXCERPT_BYTES]
