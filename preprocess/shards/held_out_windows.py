"""Windows over held-out text for evaluation, in which every position is scored exactly once."""

import heapq
from collections.abc import Iterator

import numpy as np

from preprocess.shards.stream import Int64Ids, TokenStream
from preprocess.tokenizers.base import IGNORE


class HeldOutWindows:
    """Windows over pass 0 of a split, with random access by window number.

    The positions of the split are divided into rows of similar length, and a window has the next
    ``unroll`` positions of each row. A row is read forward from its left end, and backward from its
    right end. After the end of a row, inputs are 0 and targets are `IGNORE`.

    All ranks have the same number of windows, at least one. A rank without rows has a row of padding.

    Args:
        stream: the split.
        rows: maximum number of rows over all ranks.
        unroll: positions of a row per window.
        share: (rank, world size). Each rank has a contiguous block of rows, and the blocks differ in
            size by at most one.
        whole_documents: False means contiguous rows that may begin within a document, whose lengths
            differ by at most one. True means that each row is a sequence of whole documents, so that
            a state that is reset at their starts reads each document from its start. There are then
            only as many rows as the longest document can fill.

    Attributes:
        rows: number of rows of this rank.

    Raises:
        ShardError: a shard is missing or damaged.
    """

    def __init__(
        self,
        stream: TokenStream,
        rows: int,
        unroll: int,
        share: tuple[int, int] = (0, 1),
        whole_documents: bool = False,
    ) -> None:
        self._stream, self._unroll = stream, unroll
        divide = _rows_of_documents if whole_documents else _contiguous_rows
        divided = divide(stream, rows)
        self._windows = max([1, *(-(-row.length // unroll) for row in divided)])
        (rank, world), count = share, len(divided)
        self._rows = divided[count * rank // world : count * (rank + 1) // world]
        self.rows = max(1, len(self._rows))

    def __len__(self) -> int:
        return self._windows

    def __getitem__(self, window: int) -> tuple[Int64Ids, Int64Ids]:
        """Return the inputs and targets of a window, each int64 (2, unroll, rows of this rank).

        Index 0 of the first axis is the forward direction, index 1 the backward direction.
        """
        if not 0 <= window < self._windows:
            raise IndexError(f"window {window} of {self._windows}")
        ids = np.zeros((2, self._unroll, self.rows), np.int64)
        targets = np.full_like(ids, IGNORE)
        offset = window * self._unroll
        for number, row in enumerate(self._rows):
            size = min(self._unroll, row.length - offset)
            if size > 0:
                left, right = row.read(self._stream, offset, offset + size)
                ids[0, :size, number], targets[0, :size, number] = left, right
                end = row.length - offset
                left, right = row.read(self._stream, end - size, end)
                ids[1, :size, number], targets[1, :size, number] = right[::-1], left[::-1]
        return ids, targets

    def __iter__(self) -> Iterator[tuple[Int64Ids, Int64Ids]]:
        return map(self.__getitem__, range(len(self)))


class _Row:
    """Parts of the stream, one after the other.

    Args:
        starts: position in the stream of the start of each part, at least one.
        ends: position after the end of each part.
    """

    def __init__(self, starts: Int64Ids, ends: Int64Ids) -> None:
        # Parts that are neighbours in the stream are read together.
        is_new = np.append(True, starts[1:] != ends[:-1])
        self._starts = starts[is_new]
        sizes = np.add.reduceat(ends - starts, np.flatnonzero(is_new))
        self._offsets = np.append(0, np.cumsum(sizes))  # of each part in the row
        self.length = int(self._offsets[-1])

    def read(self, stream: TokenStream, start: int, end: int) -> tuple[Int64Ids, Int64Ids]:
        """Return the left and right tokens of positions [start, end) of the row, int64."""
        part = int(np.searchsorted(self._offsets, start, "right")) - 1
        read = []
        while start < end:
            stop = min(end, int(self._offsets[part + 1]))
            shift = int(self._starts[part] - self._offsets[part])
            read.append(stream.read(0, start + shift, stop + shift))
            start, part = stop, part + 1
        left, right = zip(*read, strict=True)
        return np.concatenate(left), np.concatenate(right)


def _contiguous_rows(stream: TokenStream, rows: int) -> list[_Row]:
    """Divide the n positions into rows; row r has those from n r // rows to n (r + 1) // rows."""
    length = len(stream)
    rows = min(rows, length)
    bounds = np.array([length * row // rows for row in range(rows + 1)] if rows else [], np.int64)
    return [_Row(bounds[row : row + 1], bounds[row + 1 : row + 2]) for row in range(rows)]


def _rows_of_documents(stream: TokenStream, rows: int) -> list[_Row]:
    """Return rows of whole documents, which are in the order of the stream within a row.

    The next longest document goes to the shortest row (Graham 1969, longest processing time first).
    The longest row has at most 4/3 of the smallest possible length.
    """
    bounds = stream.documents(0)
    lengths = np.diff(bounds)
    if not len(lengths):
        return []
    # More rows would be no shorter than the longest document, so they would only add padding.
    rows = max(1, min(rows, -(-len(stream) // int(lengths.max()))))
    shortest = [(0, row) for row in range(rows)]  # a heap of (length, row)
    row_of = np.empty(len(lengths), np.int64)
    for document in np.argsort(-lengths, kind="stable").tolist():
        length, row = shortest[0]
        row_of[document] = row
        heapq.heapreplace(shortest, (length + int(lengths[document]), row))
    of_row = [np.flatnonzero(row_of == row) for row in range(rows)]
    return [_Row(bounds[own], bounds[own + 1]) for own in of_row]
