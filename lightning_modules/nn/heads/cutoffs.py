"""Where the tails of an adaptive softmax begin, from a corpus's counts (Grave et al. 2017)."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROUTED_BLOCK = 64
"""Rows that go to a tail are padded to a multiple of this number."""


def tail_widths(dim: int, div: float, tails: int) -> tuple[int, ...]:
    """Inner dimensions of each tail: dim // div^(k + 1), at least 1 (Grave et al. 2017, 4.4)."""
    return tuple(max(1, int(dim // div ** (k + 1))) for k in range(tails))


class Cost(NamedTuple):
    """What Grave's model of a device leaves out, in multiplications of a matmul.

    floor: a matmul, however small, besides its multiplications; logit: a number of a softmax,
    forward and backward, per three multiplications of its matmuls (forward, and two backward).
    """

    floor: int
    logit: int


# Two AVX-512 cores, 72 G multiplications a second: 28 us; logits measured at 45 to 76 (hidden
# 8 to 256, 64 to 2,560 positions).
CPU = Cost(2_000_000, 64)
# By arithmetic, not measured: an H100 in bfloat16 at 200 T multiplications a second; 10 us a call; a
# logit is moved about 40 bytes at 3 TB/s.
GPU = Cost(2_000_000_000, 1000)
SMALLEST_VOCABULARY = 1000
SMALLEST_TAIL_WIDTH = 8
MOST_TAILS = 3
GRID = 32
# The cost is flat around its minimum and knows nothing of quality: among choices that cost at most
# this many times the cheapest, the one that keeps most ids at full rank is taken.
NEARLY_CHEAPEST = 1.25


def choose_cutoffs(
    counts: NDArray[np.uint64], dim: int, div: float, rows: int, device: Cost = CPU
) -> tuple[int, ...]:
    """The longest shortlist that is nearly the cheapest, for a corpus with these counts, in id order.

    With B = rows, the positions of one call (both directions: 2 * rows * unroll of training):

        cost      = g(B, dim, J + tails) + sum_k [g(p_k B, dim, d_k) + g(p_k B, d_k, V_k)]
        g(b, d, k) = floor + b k d

    J is the shortlist, V_k the size of tail k, p_k the share of the text it holds, d_k its inner
    dimensions (Grave et al. 2017, sections 4.1-4.4: a matmul costs a constant, however small, and
    then grows with k B). A softmax costs device.logit beside each d. Tails narrower than 8
    dimensions are not considered: the model of the cost knows nothing of what they lose. Below
    1,000 ids there is nothing to gain: (). The figures of GPU are by arithmetic, not measured.
    """
    vocabulary = len(counts)
    if vocabulary < SMALLEST_VOCABULARY:
        return ()
    tails = sum(width >= SMALLEST_TAIL_WIDTH for width in tail_widths(dim, div, MOST_TAILS))
    share = _cumulative_share(counts)
    grid = sorted({_two_digits(x) for x in np.geomspace(50, vocabulary * 0.9, GRID)})
    costs = {
        cutoffs: _cost(share, cutoffs, dim, div, rows, device)
        for n in range(tails + 1)
        for cutoffs in combinations(grid, n)
    }
    enough = NEARLY_CHEAPEST * min(costs.values())
    near = [cutoffs for cutoffs, cost in costs.items() if cost <= enough]
    return min(near, key=lambda cutoffs: (-(*cutoffs, vocabulary)[0], costs[cutoffs]))


def predicted_speedup(
    counts: NDArray[np.uint64],
    cutoffs: tuple[int, ...],
    dim: int,
    div: float,
    rows: int,
    device: Cost = CPU,
) -> float:
    """Cost of the full softmax over that of these cutoffs, by the model of choose_cutoffs."""
    share = _cumulative_share(counts)
    return _cost(share, (), dim, div, rows, device) / _cost(share, cutoffs, dim, div, rows, device)


def _cost(
    share: NDArray[np.float64],
    cutoffs: tuple[int, ...],
    dim: int,
    div: float,
    rows: int,
    device: Cost,
) -> float:
    vocabulary = len(share) - 1
    ends = (*cutoffs, vocabulary)
    cost = float(device.floor) + rows * (ends[0] + len(cutoffs)) * (dim + device.logit)
    inner = tail_widths(dim, div, len(cutoffs))
    for width, start, end in zip(inner, cutoffs, ends[1:], strict=True):
        hit = max(ROUTED_BLOCK, rows * float(share[end] - share[start]))  # rows of a routed block
        cost += 2 * device.floor + hit * (dim * width + (end - start) * (width + device.logit))
    return cost


def _cumulative_share(counts: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(vocabulary + 1,): share of the text that the first r ranks hold."""
    falling = np.sort(counts.astype(np.float64))[::-1]
    total = max(falling.sum(), 1.0)
    return np.concatenate([[0.0], np.cumsum(falling) / total])


def _two_digits(x: float) -> int:
    step = 10 ** max(0, int(np.log10(x)) - 1)
    return int(x // step * step)
