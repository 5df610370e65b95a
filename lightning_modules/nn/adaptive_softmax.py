"""Adaptive softmax: frequent ids in a short head, rare ones in low-rank tails (Grave et al. 2017).

nn.AdaptiveLogSoftmaxWithLoss waits for the device at every cluster, leaves a cluster that no
target hit without gradients (which stops DDP) and wants ids sorted by frequency. Here the data
side says beforehand which rows go to which tail, every tail is in every graph, and a table maps
ids to ranks. The numbers are the same.

Legend: rank = place of an id by falling count; cutoffs = the ranks where each tail begins; n =
positions, both directions together.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.parameter_count import tail_widths
from preprocess.errors import UserError

IGNORE = -100
BLOCK = 64

# Grave's model knows matmuls only. MATMUL_FLOOR is what a small one costs besides its
# multiplications, in multiplications; LOGIT is the price of a number in a softmax, forward and
# backward. Estimates for two AVX2 cores: 72 G multiplications a second, tens of microseconds a call.
MATMUL_FLOOR = 2_000_000
LOGIT = 64
SMALLEST_VOCABULARY = 1000
SMALLEST_TAIL_WIDTH = 8
MOST_TAILS = 3
GRID = 32
# The cost is flat around its minimum and knows nothing of quality: among choices that cost at most
# this many times the cheapest, the one that keeps most ids at full rank is taken.
NEARLY_CHEAPEST = 1.25


class Routes(NamedTuple):
    """For every tail the positions whose targets it holds, padded to a multiple of BLOCK.

    rows: int64 (m,), 0 in the padding; targets: int64 (m,), from the tail's first rank on, -100 in
    the padding. There is one block at least, so that every tail is in every graph.
    """

    rows: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]


def ranks_of(counts: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rank of every id by falling count (ids in order where counts are equal)."""
    order = np.argsort(-counts.astype(np.int64), kind="stable")
    ranks = np.empty(len(counts), np.int64)
    ranks[order] = np.arange(len(counts))
    return ranks


def route(targets: NDArray[np.int64], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]) -> Routes:
    """Deal targets (n,) to the tails; those below 0 are ignored. Without cutoffs: no tails."""
    of_target = np.where(targets < 0, -1, ranks[np.maximum(targets, 0)])  # (n,)
    rows, relative = [], []
    for start, end in zip(cutoffs, (*cutoffs, len(ranks))[1:], strict=True):
        (hit,) = np.nonzero((of_target >= start) & (of_target < end))
        size = max(1, -(-len(hit) // BLOCK)) * BLOCK
        padded, goal = np.zeros(size, np.int64), np.full(size, IGNORE, np.int64)
        padded[: len(hit)], goal[: len(hit)] = hit, of_target[hit] - start
        rows.append(torch.from_numpy(padded))
        relative.append(torch.from_numpy(goal))
    return Routes(tuple(rows), tuple(relative))


class AdaptiveSoftmax(nn.Module):
    """Exact log-probabilities over the vocabulary, most of it in low-rank tails.

        log p(id of rank r < cutoffs[0]) = log_softmax(head h)[r]
        log p(id in tail k)              = log_softmax(head h)[cutoffs[0] + k]
                                           + log_softmax(out_k in_k h)[r - cutoffs[k]]

    in_k has dim // div^(k + 1) rows (Grave et al. 2017, section 4.4); no bias, as in torch, with
    whose module the names and shapes of the weights agree. Without cutoffs it is a full softmax.
    Every matrix is U(-1/sqrt(columns), 1/sqrt(columns)), the default of nn.Linear.

    ranks: int64 (vocabulary,), id -> rank; none: ids are ranks. Raises UserError where cutoffs do
    not rise between 0 and the vocabulary, or ranks are no permutation.
    """

    ranks: Tensor
    bounds: Tensor

    def __init__(
        self,
        config: AdaptiveSoftmaxConfig,
        dim: int,
        vocabulary: int,
        cutoffs: tuple[int, ...],
        ranks: Tensor | None,
    ) -> None:
        super().__init__()
        ends = (*cutoffs, vocabulary)
        if any(end <= start for start, end in zip((0, *cutoffs), ends, strict=True)):
            raise UserError(
                f"model.head.cutoffs: {list(cutoffs)} must rise and lie between 0 and the "
                f"vocabulary's {vocabulary:,} ids; choose other cutoffs, or auto"
            )
        ranks = torch.arange(vocabulary) if ranks is None else ranks
        if not torch.equal(ranks.sort().values, torch.arange(vocabulary, device=ranks.device)):
            raise UserError(
                f"ranks must hold each of 0 to {vocabulary - 1:,} once, one for each id; "
                "make them from the unigram counts of this vocabulary"
            )
        self.cutoffs, self.vocabulary = cutoffs, vocabulary
        self.register_buffer("ranks", ranks.clone())
        self.register_buffer("bounds", torch.tensor(cutoffs, dtype=torch.int64), persistent=False)
        self.head = nn.Linear(dim, ends[0] + len(cutoffs), bias=False)
        self.tail = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, inner, bias=False), nn.Linear(inner, end - start, bias=False)
            )
            for inner, start, end in zip(
                tail_widths(dim, config.div, len(cutoffs)), cutoffs, ends[1:], strict=True
            )
        )

    def nll(self, hidden: Tensor, targets: Tensor, routes: Routes | None = None) -> Tensor:
        """Exact -log p of targets in nats.

        hidden: (n, dim), float32; targets: ids (n,), int64, below 0 ignored (loss 0); routes: of
        the same targets, on the same device, and then nothing here waits for the device.
        Returns (n,), float32.
        """
        ranks = self.ranks[targets.clamp(min=0)]  # (n,)
        cluster = torch.bucketize(ranks, self.bounds, right=True)  # (n,), 0 is the shortlist
        first = self.cutoffs[0] if self.cutoffs else self.vocabulary
        goal = torch.where(cluster == 0, ranks, first - 1 + cluster)
        goal = torch.where(targets < 0, IGNORE, goal)
        losses = _cross_entropy(self.head(hidden), goal)  # (n,)
        if routes is None:
            routes = self._route(targets, ranks, cluster)
        for tail, rows, relative in zip(self.tail, *routes, strict=True):
            logits = tail(hidden.index_select(0, rows))  # (m, end - start)
            losses = losses.index_add(0, rows, _cross_entropy(logits, relative))
        return losses

    def _route(self, targets: Tensor, ranks: Tensor, cluster: Tensor) -> Routes:
        rows = tuple(
            ((cluster == k + 1) & (targets >= 0)).nonzero().squeeze(1)
            for k in range(len(self.cutoffs))
        )
        return Routes(
            rows, tuple(ranks[r] - start for r, start in zip(rows, self.cutoffs, strict=True))
        )

    def log_prob(self, hidden: Tensor) -> Tensor:
        """hidden (n, dim) -> log p of every id, (n, vocabulary), float32, in the order of ids."""
        head = F.log_softmax(self.head(hidden).float(), 1)  # (n, cutoffs[0] + tails)
        first = head.shape[1] - len(self.cutoffs)
        parts = [head[:, :first]]
        for k, tail in enumerate(self.tail):
            inside = F.log_softmax(tail(hidden).float(), 1)  # (n, end - start)
            parts.append(inside + head[:, first + k, None])
        return torch.cat(parts, 1).index_select(1, self.ranks)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")


def choose_cutoffs(counts: NDArray[np.uint64], dim: int, div: float, rows: int) -> tuple[int, ...]:
    """The longest shortlist that is nearly the cheapest, for a corpus with these counts, in id order.

    With B = rows, the positions of one call (both directions: 2 * rows * unroll of training):

        cost      = g(B, dim, J + tails) + sum_k [g(p_k B, dim, d_k) + g(p_k B, d_k, V_k)]
        g(b, d, k) = floor + b k d

    J is the shortlist, V_k the size of tail k, p_k the share of the text it holds, d_k its inner
    dimensions (Grave et al. 2017, sections 4.1-4.4: a matmul costs a constant, however small, and
    then grows with k B). A softmax costs LOGIT beside each d. Tails narrower than 8 dimensions are
    not considered: the model of the cost knows nothing of what they lose. Below 1,000 ids there is
    nothing to gain: ().
    """
    vocabulary = len(counts)
    if vocabulary < SMALLEST_VOCABULARY:
        return ()
    tails = sum(width >= SMALLEST_TAIL_WIDTH for width in tail_widths(dim, div, MOST_TAILS))
    share = _cumulative_share(counts)
    grid = sorted({_two_digits(x) for x in np.geomspace(50, vocabulary * 0.9, GRID)})
    costs = {
        cutoffs: _cost(share, cutoffs, dim, div, rows)
        for n in range(tails + 1)
        for cutoffs in combinations(grid, n)
    }
    enough = NEARLY_CHEAPEST * min(costs.values())
    near = [cutoffs for cutoffs, cost in costs.items() if cost <= enough]
    return min(near, key=lambda cutoffs: (-(*cutoffs, vocabulary)[0], costs[cutoffs]))


def predicted_speedup(
    counts: NDArray[np.uint64], cutoffs: tuple[int, ...], dim: int, div: float, rows: int
) -> float:
    """Cost of the full softmax over that of these cutoffs, by the model of choose_cutoffs."""
    share = _cumulative_share(counts)
    return _cost(share, (), dim, div, rows) / _cost(share, cutoffs, dim, div, rows)


def _cost(
    share: NDArray[np.float64], cutoffs: tuple[int, ...], dim: int, div: float, rows: int
) -> float:
    vocabulary = len(share) - 1
    ends = (*cutoffs, vocabulary)
    cost = float(MATMUL_FLOOR) + rows * (ends[0] + len(cutoffs)) * (dim + LOGIT)
    inner = tail_widths(dim, div, len(cutoffs))
    for width, start, end in zip(inner, cutoffs, ends[1:], strict=True):
        hit = max(BLOCK, rows * float(share[end] - share[start]))  # rows of a routed block
        cost += 2 * MATMUL_FLOOR + hit * (dim * width + (end - start) * (width + LOGIT))
    return cost


def _cumulative_share(counts: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(vocabulary + 1,): share of the text that the first r ranks hold."""
    falling = np.sort(counts.astype(np.float64))[::-1]
    total = max(falling.sum(), 1.0)
    return np.concatenate([[0.0], np.cumsum(falling) / total])


def _two_digits(x: float) -> int:
    step = 10 ** max(0, int(np.log10(x)) - 1)
    return int(x // step * step)
