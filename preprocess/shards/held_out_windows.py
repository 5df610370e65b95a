"""Windows over held-out text for evaluation, in which every position is scored exactly once."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from preprocess.shards.stream import Int64Ids, TokenStream
from preprocess.tokenizers.base import IGNORE


def evaluation_windows(
    stream: TokenStream, rows: int, unroll: int, share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Int64Ids, Int64Ids]]:
    """Yield the windows of a split: inputs and targets, each int64 (2, unroll, rows of this rank).

    The n positions of pass 0 are divided into ``rows`` contiguous rows; row r has positions
    ``[n r // rows, n (r + 1) // rows)``. Index 0 of the first axis reads a row forward from its left
    end, index 1 backward from its right end. After the end of a row, inputs are 0 and targets are
    `IGNORE`.

    Args:
        stream: the split.
        rows: number of rows over all ranks.
        unroll: positions of a row per window.
        share: (rank, world size). Each rank reads a contiguous block of rows, and the blocks differ
            in size by at most one. A rank without rows gets no window.
    """
    rank, world = share
    # Further rows have no position.
    rows = max(1, min(rows, len(stream)))
    bounds = [len(stream) * row // rows for row in range(rows + 1)]
    bounds = bounds[rows * rank // world : rows * (rank + 1) // world + 1]
    longest = max((end - first for first, end in pairwise(bounds)), default=0)
    for offset in range(0, longest, unroll):
        ids = np.zeros((2, unroll, len(bounds) - 1), np.int64)
        targets = np.full_like(ids, IGNORE)
        for row, (first, end) in enumerate(pairwise(bounds)):
            size = min(unroll, end - first - offset)
            if size > 0:
                left, right = stream.read(0, first + offset, first + offset + size)
                ids[0, :size, row], targets[0, :size, row] = left, right
                left, right = stream.read(0, end - offset - size, end - offset)
                ids[1, :size, row], targets[1, :size, row] = right[::-1], left[::-1]
        yield ids, targets


def window_count(stream: TokenStream, rows: int, unroll: int) -> int:
    """Return the number of windows that `evaluation_windows` yields with ``share`` (0, 1).

    This is also the maximum over the ranks if there are several.
    """
    return -(-len(stream) // (rows * unroll))
