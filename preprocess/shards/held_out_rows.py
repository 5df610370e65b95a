"""Division of a held-out split, or of a sample of it, into rows that are read side by side."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.shards.stream import Int64Ids, TokenStream
from preprocess.tokenizers.base import IGNORE

PIECE = 1024
"""Longest piece of a sample in positions. Longer pieces are more alike, shorter ones spend more on warm-up."""
LEAST_PIECE, LEAST_PIECES = 128, 16
"""A sample that has fewer than `LEAST_PIECES` pieces of `PIECE` has shorter ones, of at least `LEAST_PIECE`."""
GOLDEN = (5**0.5 - 1) / 2
"""The multiples of this number modulo 1 are spread evenly over [0, 1) and have no period (Weyl)."""


class Read(NamedTuple):
    """What one direction reads.

    Attributes:
        ids: inputs, int64 (n,).
        targets: targets, int64 (n,); `IGNORE` where the state only warms up.
        starts: True where a part begins that does not follow the one before it, bool (n,).
    """

    ids: Int64Ids
    targets: Int64Ids
    starts: npt.NDArray[np.bool_]


class Row:
    """Parts of a split that are read one after another: forward from the left, backward from the right.

    Parts that are neighbours in the split are joined, if no state warms up between them.

    Args:
        starts: first position of each part, int64 (parts,), in the order of the split; at least one.
        ends: position after the end of each part.
        leads: positions before and after each part that the forward and the backward direction read
            before it to warm up their state, without scoring them, int64 (2, parts); None means none.

    Attributes:
        length: number of positions that the longer direction reads.
    """

    def __init__(self, starts: Int64Ids, ends: Int64Ids, leads: Int64Ids | None = None) -> None:
        if leads is None:
            leads = np.zeros((2, len(starts)), np.int64)
        joins = (starts[1:] == ends[:-1]) & (leads[0, 1:] == 0) & (leads[1, :-1] == 0)
        first, last = np.append(True, ~joins), np.append(~joins, True)
        starts, ends, before, after = starts[first], ends[last], leads[0, first], leads[1, last]
        self._sides = (
            _Side(starts - before, ends, before, is_backward=False),
            _Side(starts[::-1], (ends + after)[::-1], after[::-1], is_backward=True),
        )
        self.length = max(side.length for side in self._sides)

    def read(self, stream: TokenStream, direction: int, start: int, end: int) -> Read:
        """Return what a direction reads at its positions [start, end), fewer if it ends before.

        Args:
            stream: the split.
            direction: 0 for forward, 1 for backward.
            start: number of positions that the direction reads before.
            end: at least ``start``.
        """
        return self._sides[direction].read(stream, start, end)


class _Side:
    """What one direction reads of a row: spans of the split, in the order in which they are read."""

    def __init__(
        self, starts: Int64Ids, ends: Int64Ids, leads: Int64Ids, is_backward: bool
    ) -> None:
        self._starts, self._ends, self._leads = starts, ends, leads
        self._is_backward = is_backward
        self._offsets = np.append(0, np.cumsum(ends - starts))
        self.length = int(self._offsets[-1])

    def read(self, stream: TokenStream, start: int, end: int) -> Read:
        end = max(start, min(end, self.length))
        read = Read(
            np.empty(end - start, np.int64),
            np.empty(end - start, np.int64),
            np.zeros(end - start, bool),
        )
        span = int(np.searchsorted(self._offsets, start, "right")) - 1
        at = start
        while at < end:
            stop = min(end, int(self._offsets[span + 1]))
            a, b = at - int(self._offsets[span]), stop - int(self._offsets[span])
            place = slice(at - start, stop - start)
            read.ids[place], read.targets[place] = self._pairs(stream, span, a, b)
            read.targets[place][: max(0, int(self._leads[span]) - a)] = IGNORE
            read.starts[at - start] = a == 0
            at, span = stop, span + 1
        return read

    def _pairs(self, stream: TokenStream, span: int, a: int, b: int) -> tuple[Int64Ids, Int64Ids]:
        """Return the inputs and targets at the positions [a, b) of a span."""
        if self._is_backward:
            end = int(self._ends[span])
            left, right = stream.read(0, end - b, end - a)
            return right[::-1], left[::-1]
        begin = int(self._starts[span])
        return stream.read(0, begin + a, begin + b)


def contiguous_rows(stream: TokenStream, rows: int, warm_up: int = 0) -> list[Row]:
    """Divide the n positions of a split into rows, which may begin within a document.

    Row r has the positions from n r // rows to n (r + 1) // rows.

    Args:
        stream: the split.
        rows: number of rows; there are fewer if there are fewer positions.
        warm_up: positions before and after a row that warm up the state.
    """
    length = len(stream)
    rows = min(rows, length)
    bounds = np.array([length * row // rows for row in range(rows + 1)] if rows else [0], np.int64)
    return _rows(bounds[:-1], bounds[1:], np.arange(rows), rows, _leads(bounds, length, warm_up))


def rows_of_documents(stream: TokenStream, rows: int) -> list[Row]:
    """Return rows of whole documents, which are in the order of the split within a row.

    The next longest document goes to the shortest row (Graham 1969, longest processing time first).
    The longest row has at most 4/3 of the smallest possible length.

    Args:
        stream: the split.
        rows: largest number of rows. There are fewer if a document is longer than they would be,
            because more rows would only add padding.
    """
    bounds = stream.documents(0)
    row_of, rows = _deal(np.diff(bounds), rows)
    return _rows(bounds[:-1], bounds[1:], row_of, rows)


def sampled_rows(
    stream: TokenStream, rows: int, positions: int, warm_up: int, whole_documents: bool
) -> list[Row]:
    """Return rows of a sample: pieces that are spread evenly over the split, so over its sources too.

    The sample depends on the sizes of the documents and on the arguments only. Pieces have at most
    `PIECE` positions. With ``whole_documents`` they are documents, and equal parts of longer ones;
    otherwise they may begin within a document. The split is divided into as many stretches as there
    are pieces to be taken; the place of the piece in its stretch varies without a period.

    Args:
        stream: the split, with more positions than the sample.
        rows: largest number of rows.
        positions: largest number of positions to read, including those to warm up; a sample has at
            least one piece.
        warm_up: positions beside a piece that begins within a document that warm up the state.
        whole_documents: what the pieces are.
    """
    longest = min(PIECE, max(LEAST_PIECE, positions // LEAST_PIECES))
    if not whole_documents:
        length = len(stream)
        pieces = max(1, positions // (longest + warm_up))
        size = min(longest, length // pieces)
        starts = _spread(pieces, length - pieces * (size - 1)) + np.arange(pieces) * (size - 1)
        leads = np.minimum(warm_up, np.stack([starts, length - starts - size]))
        rows = min(rows, pieces)
        return _rows(starts, starts + size, np.arange(pieces) * rows // pieces, rows, leads)
    bounds = stream.documents(0)
    lengths = np.diff(bounds)
    parts = -(-lengths // longest)  # of each document
    document = np.repeat(np.arange(len(lengths)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    starts = bounds[document] + lengths[document] * part // parts[document]
    ends = bounds[document] + lengths[document] * (part + 1) // parts[document]
    leads = np.minimum(warm_up, np.stack([starts - bounds[document], bounds[document + 1] - ends]))
    read = ends - starts + leads.max(0)
    chosen = _within(read, positions)
    row_of, rows = _deal(read[chosen], rows)
    return _rows(starts[chosen], ends[chosen], row_of, rows, leads[:, chosen])


def _within(read: Int64Ids, positions: int) -> Int64Ids:
    """Choose evenly spread pieces, as many as ``positions`` allow, at least one.

    Args:
        read: positions that each piece reads.
        positions: largest sum of them.
    """
    number, total = len(read), int(read.sum())
    while True:
        number = max(1, min(number - 1, number * positions // total))
        chosen = _spread(number, len(read))
        total = int(read[chosen].sum())
        if total <= positions or number == 1:
            return chosen


def _spread(number: int, length: int) -> Int64Ids:
    """Return increasing indices below ``length``, one in each of ``number`` stretches of similar size."""
    bounds = np.array([length * n // number for n in range(number + 1)], np.int64)
    within = np.arange(1, number + 1) * GOLDEN % 1.0
    return bounds[:-1] + (within * np.diff(bounds)).astype(np.int64)


def _deal(lengths: Int64Ids, rows: int) -> tuple[Int64Ids, int]:
    """Assign parts to at most ``rows`` rows of similar length; return the row of each part, and rows."""
    if not len(lengths):
        return np.zeros(0, np.int64), 0
    rows = max(1, min(rows, -(-int(lengths.sum()) // int(lengths.max()))))
    shortest = [(0, row) for row in range(rows)]  # a heap of (length, row)
    row_of = np.empty(len(lengths), np.int64)
    for part in np.argsort(-lengths, kind="stable").tolist():
        length, row = shortest[0]
        row_of[part] = row
        heapq.heapreplace(shortest, (length + int(lengths[part]), row))
    return row_of, rows


def _leads(bounds: Int64Ids, length: int, warm_up: int) -> Int64Ids:
    return np.minimum(warm_up, np.stack([bounds[:-1], length - bounds[1:]]))


def _rows(
    starts: Int64Ids, ends: Int64Ids, row_of: Int64Ids, rows: int, leads: Int64Ids | None = None
) -> list[Row]:
    """Return the rows of parts, given the row of each part."""
    if leads is None:
        leads = np.zeros((2, len(starts)), np.int64)
    order = np.argsort(row_of, kind="stable")
    groups = np.split(order, np.searchsorted(row_of[order], np.arange(1, rows))) if rows else []
    return [Row(starts[own], ends[own], leads[:, own]) for own in groups]


def dealt(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Divide rows into blocks of at most ``size`` rows, each spread evenly over all of them."""
    blocks = -(-len(rows) // size)
    return [list(rows[block::blocks]) for block in range(blocks)]
