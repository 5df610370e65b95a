"""Held-out text in windows: every position of a split once, in rows of one piece each."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from preprocess.shards.stream import Int64Ids, TokenStream
from preprocess.tokenizers.base import IGNORE

"""Target of a position that is padding."""


def evaluation_windows(
    stream: TokenStream, rows: int, unroll: int, share: tuple[int, int] = (0, 1)
) -> Iterator[tuple[Int64Ids, Int64Ids]]:
    """Inputs and targets, each (2, unroll, own rows) int64, which hold every position once.

    Row r of ``rows`` is the positions ``[n r // rows, n (r + 1) // rows)`` of the n of pass 0,
    forward from their left end and backward from their right one; where a row is at its end, inputs
    are 0 and targets `IGNORE`. [0] reads forward, [1] backward.

    Args:
        share: (rank, world): of the rows, this process gets the rank-th of ``world`` stretches that
            are as equal as can be. All ranks together read each position once; one that has no row
            gets no window.
    """
    rank, world = share
    bounds = [len(stream) * row // rows for row in range(rows + 1)]
    own = bounds[rows * rank // world : rows * (rank + 1) // world + 1]
    longest = max((end - first for first, end in pairwise(own)), default=0)
    for offset in range(0, longest, unroll):
        ids = np.zeros((2, unroll, len(own) - 1), np.int64)
        targets = np.full_like(ids, IGNORE)
        for row, (first, end) in enumerate(pairwise(own)):
            size = min(unroll, end - first - offset)
            if size > 0:
                left, right = stream.read(0, first + offset, first + offset + size)
                ids[0, :size, row], targets[0, :size, row] = left, right
                left, right = stream.read(0, end - offset - size, end - offset)
                ids[1, :size, row], targets[1, :size, row] = right[::-1], left[::-1]
        yield ids, targets


def window_count(stream: TokenStream, rows: int, unroll: int) -> int:
    """How many windows there are, over all rows."""
    return -(-len(stream) // (rows * unroll))
