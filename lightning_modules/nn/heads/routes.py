"""Which positions go to which tail of an adaptive softmax, said before the device sees them.

Legend: rank = place of an id by falling count; cutoffs = the ranks where each tail begins; n =
positions, both directions together.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.nn.heads.cutoffs import ROUTED_BLOCK
from preprocess.errors import UserError
from preprocess.tokenizers.base import IGNORE


class Routes(NamedTuple):
    """For every tail the positions whose targets it holds, padded to a multiple of ROUTED_BLOCK.

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


def id_ranks(ranks: Tensor | None, vocabulary: int) -> Tensor:
    """The table id -> rank, int64 (vocabulary,); none: ids are ranks.

    Raises UserError where ranks are no permutation.
    """
    if ranks is None:
        return torch.arange(vocabulary)
    if not torch.equal(ranks.sort().values, torch.arange(vocabulary, device=ranks.device)):
        raise UserError(
            f"ranks must hold each of 0 to {vocabulary - 1:,} once, one for each id; "
            "make them from the unigram counts of this vocabulary"
        )
    return ranks.clone()


def route(targets: NDArray[np.int64], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]) -> Routes:
    """Deal targets (n,) to the tails; those below 0 are ignored. Without cutoffs: no tails."""
    of_target = np.where(targets < 0, -1, ranks[np.maximum(targets, 0)])  # (n,)
    rows, relative = [], []
    for start, end in zip(cutoffs, (*cutoffs, len(ranks))[1:], strict=True):
        (hit,) = np.nonzero((of_target >= start) & (of_target < end))
        size = max(1, -(-len(hit) // ROUTED_BLOCK)) * ROUTED_BLOCK
        padded, goal = np.zeros(size, np.int64), np.full(size, IGNORE, np.int64)
        padded[: len(hit)], goal[: len(hit)] = hit, of_target[hit] - start
        rows.append(torch.from_numpy(padded))
        relative.append(torch.from_numpy(goal))
    return Routes(tuple(rows), tuple(relative))
