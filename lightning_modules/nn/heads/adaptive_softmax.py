"""Adaptive softmax: frequent ids in a short head, rare ones in low-rank tails (Grave et al. 2017).

nn.AdaptiveLogSoftmaxWithLoss waits for the device at every cluster, leaves a cluster that no
target hit without gradients (which stops DDP) and wants ids sorted by frequency. Here the data
side says beforehand which rows go to which tail, every tail is in every graph, and a table maps
ids to ranks. The numbers are the same.

Legend: rank = place of an id by falling count; cutoffs = the ranks where each tail begins; n =
positions, both directions together.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn.heads.cutoffs import tail_widths
from lightning_modules.nn.heads.linear_loss import linear_nll
from lightning_modules.nn.heads.routes import Routes, id_ranks
from preprocess.errors import UserError
from preprocess.tokenizers.base import IGNORE


def check_cutoffs(cutoffs: tuple[int, ...], vocabulary: int) -> None:
    """Raise UserError where cutoffs do not rise between 0 and the vocabulary."""
    ends = (*cutoffs, vocabulary)
    if any(end <= start for start, end in zip((0, *cutoffs), ends, strict=True)):
        raise UserError(
            f"model.head.cutoffs: {list(cutoffs)} must rise and lie between 0 and the "
            f"vocabulary's {vocabulary:,} ids; choose other cutoffs, or auto"
        )


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
        check_cutoffs(cutoffs, vocabulary)
        ends = (*cutoffs, vocabulary)
        self.cutoffs, self.vocabulary = cutoffs, vocabulary
        self.register_buffer("ranks", id_ranks(ranks, vocabulary))
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

        hidden: (n, dim); targets: ids (n,), int64, below 0 ignored (loss 0); routes: of
        the same targets, on the same device, and then nothing here waits for the device.
        Returns (n,), float32. Weights of a tail that no target hits have a gradient of zeros.
        """
        ranks = self.ranks[targets.clamp(min=0)]  # (n,)
        cluster = torch.bucketize(ranks, self.bounds, right=True)  # (n,), 0 is the shortlist
        first = self.cutoffs[0] if self.cutoffs else self.vocabulary
        goal = torch.where(cluster == 0, ranks, first - 1 + cluster)
        goal = torch.where(targets < 0, IGNORE, goal)
        losses = linear_nll(hidden, self.head.weight, None, goal)  # (n,)
        if routes is None:
            routes = self._route(targets, ranks, cluster)
        tail: Any
        for tail, rows, relative in zip(self.tail, *routes, strict=True):
            inner = tail[0](hidden.index_select(0, rows))  # (m, dim // div^(k + 1))
            loss = linear_nll(inner, tail[1].weight, None, relative)  # (m,)
            losses = losses.index_add(0, rows, loss)
        return losses

    def _route(self, targets: Tensor, ranks: Tensor, cluster: Tensor) -> Routes:
        rows = tuple(
            ((cluster == k + 1) & (targets >= 0)).nonzero().squeeze(1)
            for k in range(len(self.cutoffs))
        )
        return Routes(
            rows, tuple(ranks[r] - start for r, start in zip(rows, self.cutoffs, strict=True))
        )
