"""Choose the cutoffs of an adaptive softmax from a corpus's token counts (Grave et al. 2017)."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import UserError

ROUTED_BLOCK = 64
"""The positions that a tail computes are padded to a multiple of this number."""


def tail_widths(dim: int, div: float, tails: int) -> tuple[int, ...]:
    """Return the width of each tail's vectors: dim // div^(k + 1), at least 1, for k = 0, 1, ...

    Grave et al. 2017, section 4.4.
    """
    return tuple(max(1, int(dim // div ** (k + 1))) for k in range(tails))


def check_cutoffs(cutoffs: tuple[int, ...], vocabulary: int) -> None:
    """Raise UserError unless 0 < cutoffs[0] < cutoffs[1] < ... < vocabulary."""
    ends = (*cutoffs, vocabulary)
    if any(end <= start for start, end in zip((0, *cutoffs), ends, strict=True)):
        raise UserError(
            f"model.head.cutoffs: {list(cutoffs)} must increase and lie between 0 and "
            f"{vocabulary:,}, the number of ids that can be predicted; choose other cutoffs, or auto"
        )


class Cost(NamedTuple):
    """Costs of a device besides a matmul's multiplications; the unit is one multiplication.

    Attributes:
        floor: constant cost of a matmul.
        logit: a third of the cost of the softmax of one logit, forward and backward. Costs count the
            multiplications of the forward pass only, a third of all.
    """

    floor: int
    logit: int


# Measured on two AVX-512 cores at 72e9 multiplications per second: the floor is 28 us, and a logit
# costs 45 to 76 multiplications (dim 8 to 256, 64 to 2,560 positions).
CPU = Cost(2_000_000, 64)
# Estimated, not measured: an H100 in bfloat16 with 200e12 multiplications per second, 10 us per call,
# and 40 bytes of memory traffic per logit at 3 TB/s.
GPU = Cost(2_000_000_000, 1000)
SMALLEST_VOCABULARY = 1000
SMALLEST_TAIL_WIDTH = 8
MOST_TAILS = 3
GRID = 32  # number of candidate cutoffs
# The cost is flat around its minimum and ignores quality. Of the choices that cost at most this many
# times the minimum, choose_cutoffs takes the one with the most ids at full rank.
NEARLY_CHEAPEST = 1.25


def choose_cutoffs(
    counts: NDArray[np.uint64], dim: int, div: float, positions: int, device: Cost = CPU
) -> tuple[int, ...]:
    """Return the cutoffs with the largest head among those of nearly minimal cost.

    The cost of a call with B positions, J ids in the head, and V_k ids, a share p_k of the tokens
    and width d_k in tail k is (Grave et al. 2017, sections 4.1-4.4)

        cost       = g(B, dim, J + tails) + sum_k [g(p_k B, dim, d_k) + g(p_k B, d_k, V_k)]
        g(b, d, k) = floor + b k d

    with d + device.logit in place of d in matmuls whose result goes through a softmax. Tails
    narrower than 8 are not considered, because the cost ignores their loss of quality.

    Args:
        counts: token count of each id, in the order of ids, (vocabulary,).
        dim: width of the output layer's input.
        div: factor by which each tail is narrower than the one before.
        positions: positions of one call, in all directions (B).
        device: costs of the device. Training always takes those of a CPU, so that one config makes
            one architecture. On a GPU, a step of at least 1,280 positions is predicted to be as fast
            with them as with the GPU's own choice, whose head is larger.

    Returns:
        First rank of each tail. () for fewer than 1,000 ids, or if the full softmax is among the
        choices of nearly minimal cost.
    """
    vocabulary = len(counts)
    if vocabulary < SMALLEST_VOCABULARY:
        return ()
    tails = sum(width >= SMALLEST_TAIL_WIDTH for width in tail_widths(dim, div, MOST_TAILS))
    share = _cumulative_share(counts)
    grid = sorted({two_digits(x) for x in np.geomspace(50, vocabulary * 0.9, GRID)})
    costs = {
        cutoffs: _cost(share, cutoffs, dim, div, positions, device)
        for n in range(tails + 1)
        for cutoffs in combinations(grid, n)
    }
    limit = NEARLY_CHEAPEST * min(costs.values())
    near = [cutoffs for cutoffs, cost in costs.items() if cost <= limit]
    return min(near, key=lambda cutoffs: (-(*cutoffs, vocabulary)[0], costs[cutoffs]))


def predicted_speedup(
    counts: NDArray[np.uint64],
    cutoffs: tuple[int, ...],
    dim: int,
    div: float,
    positions: int,
    device: Cost = CPU,
) -> float:
    """Return the cost of a full softmax divided by the cost with ``cutoffs``.

    Costs and arguments are those of `choose_cutoffs`.
    """
    share = _cumulative_share(counts)
    full = _cost(share, (), dim, div, positions, device)
    return full / _cost(share, cutoffs, dim, div, positions, device)


def _cost(
    share: NDArray[np.float64],
    cutoffs: tuple[int, ...],
    dim: int,
    div: float,
    positions: int,
    device: Cost,
) -> float:
    vocabulary = len(share) - 1
    ends = (*cutoffs, vocabulary)
    cost = float(device.floor) + positions * (ends[0] + len(cutoffs)) * (dim + device.logit)
    inner = tail_widths(dim, div, len(cutoffs))
    for width, start, end in zip(inner, cutoffs, ends[1:], strict=True):
        routed = max(ROUTED_BLOCK, positions * float(share[end] - share[start]))
        cost += 2 * device.floor + routed * (dim * width + (end - start) * (width + device.logit))
    return cost


def _cumulative_share(counts: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the share of the tokens in ranks below r, for each r from 0, (vocabulary + 1,)."""
    falling = np.sort(counts.astype(np.float64))[::-1]
    total = max(falling.sum(), 1.0)
    return np.concatenate([[0.0], np.cumsum(falling) / total])


def two_digits(number: float) -> int:
    """Round a positive number down to two significant digits, as an integer: 12,345.6 -> 12,000."""
    step = 10 ** max(0, int(np.log10(number)) - 1)
    return int(number // step * step)
