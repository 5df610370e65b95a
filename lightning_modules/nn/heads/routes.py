"""The positions that each tail of an adaptive softmax computes, determined on the CPU.

Terms: the rank of an id is its position when ids are sorted by falling count; a cutoff is the first
rank of a tail; n is the number of positions, of all directions together.
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
    """For each tail, the positions whose target is in the tail, padded to a multiple of `ROUTED_BLOCK`.

    Each tail has at least one block, so that it is in every autograd graph.

    Attributes:
        rows: per tail, the positions, int64 (m,); 0 in the padding.
        targets: per tail, the targets' ranks less the tail's first rank, int64 (m,); -100 in the
            padding.
    """

    rows: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]


def ranks_of(counts: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the rank of each id by falling count; ids of equal count are in the order of ids."""
    order = np.argsort(-counts.astype(np.int64), kind="stable")
    ranks = np.empty(len(counts), np.int64)
    ranks[order] = np.arange(len(counts))
    return ranks


def id_ranks(ranks: Tensor | None, vocabulary: int) -> Tensor:
    """Return a copy of ranks, int64 (vocabulary,), or 0, 1, ... if ranks are None.

    Raises:
        UserError: ranks are not a permutation of 0 to vocabulary - 1.
    """
    if ranks is None:
        # torch.arange on the meta device, on which a model is loaded, imports sympy: 0.3 s.
        return torch.from_numpy(np.arange(vocabulary)).to(torch.get_default_device())
    if not torch.equal(ranks.sort().values, torch.arange(vocabulary, device=ranks.device)):
        raise UserError(
            f"ranks must hold each of 0 to {vocabulary - 1:,} once; compute them from the token "
            "counts of this vocabulary"
        )
    return ranks.clone()


def route(targets: NDArray[np.int64], ranks: NDArray[np.int64], cutoffs: tuple[int, ...]) -> Routes:
    """Return the routes of targets, on the CPU.

    Args:
        targets: ids, (n,); those below 0 are in no tail.
        ranks: rank of each id, (vocabulary,).
        cutoffs: first rank of each tail.
    """
    target_ranks = np.where(targets < 0, -1, ranks[np.maximum(targets, 0)])  # (n,)
    rows, relative = [], []
    for start, end in zip(cutoffs, (*cutoffs, len(ranks))[1:], strict=True):
        (hit,) = np.nonzero((target_ranks >= start) & (target_ranks < end))
        size = max(1, -(-len(hit) // ROUTED_BLOCK)) * ROUTED_BLOCK
        padded, target = np.zeros(size, np.int64), np.full(size, IGNORE, np.int64)
        padded[: len(hit)], target[: len(hit)] = hit, target_ranks[hit] - start
        rows.append(torch.from_numpy(padded))
        relative.append(torch.from_numpy(target))
    return Routes(tuple(rows), tuple(relative))
