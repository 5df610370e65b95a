"""Adaptive softmax: frequent ids in a short head, rare ids in low-rank tails (Grave et al. 2017).

It computes the same numbers as nn.AdaptiveLogSoftmaxWithLoss, which has three drawbacks: it waits for
the device at each cluster; a cluster without a target in the batch gets no gradient, which DDP rejects;
ids must be sorted by frequency. Here the positions of each tail can be computed beforehand on the CPU
(`Routes`), each tail is in every autograd graph, and a table maps ids to ranks.

Terms: the rank of an id is its position when ids are sorted by falling count; a cutoff is the first
rank of a tail; n is the number of positions, of all directions together.
"""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn.heads.cutoffs import check_cutoffs, tail_widths
from lightning_modules.nn.heads.linear_loss import linear_nll
from lightning_modules.nn.heads.routes import Routes, id_ranks
from preprocess.tokenizers.base import IGNORE


class AdaptiveSoftmax(nn.Module):
    """An output layer with exact log-probabilities, full-rank for frequent ids, low-rank for rare ones.

        log p(id of rank r < cutoffs[0]) = log_softmax(head h)[r]
        log p(id in tail k)              = log_softmax(head h)[cutoffs[0] + k]
                                           + log_softmax(out_k in_k h)[r - cutoffs[k]]

    in_k has `tail_widths` rows (Grave et al. 2017, section 4.4). There are no biases. Weights have
    the names and shapes of nn.AdaptiveLogSoftmaxWithLoss, and the default initialisation of
    nn.Linear, U(-1/sqrt(columns), 1/sqrt(columns)). Without cutoffs it is a full softmax.

    Args:
        config: its ``div`` is used; its ``cutoffs`` are not, because "auto" depends on the corpus.
        dim: width of the input.
        vocabulary: number of ids that can be predicted.
        cutoffs: first rank of each tail.
        ranks: rank of each id, int64 (vocabulary,); None means that ids are ranks.

    Raises:
        UserError: as in `check_cutoffs` and `id_ranks`.
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
        self.set_constants()
        self.head = nn.Linear(dim, ends[0] + len(cutoffs), bias=False)
        self.tail = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, inner, bias=False), nn.Linear(inner, end - start, bias=False)
            )
            for inner, start, end in zip(
                tail_widths(dim, config.div, len(cutoffs)), cutoffs, ends[1:], strict=True
            )
        )

    def set_constants(self) -> None:
        """Create the buffer that is not saved, on the device of the ranks."""
        bounds = torch.tensor(self.cutoffs, dtype=torch.int64, device=self.ranks.device)
        self.register_buffer("bounds", bounds, persistent=False)

    def nll(
        self,
        hidden: Tensor,
        targets: Tensor,
        routes: Routes | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Return the cross-entropy of each target in nats, (n,), float32.

        Weights of a tail without targets get a gradient of zeros.

        Args:
            hidden: (n, dim).
            targets: ids, int64 (n,); those below 0 are ignored and have loss 0.
            routes: routes of the same targets, on the same device; if None, they are computed here,
                which waits for the device.
            training: ignored.
        """
        ranks = self.ranks[targets.clamp(min=0)]  # (n,)
        cluster = torch.bucketize(ranks, self.bounds, right=True)  # (n,), 0 is the head
        first = self.cutoffs[0] if self.cutoffs else self.vocabulary
        # Ranks of the head are at most first - 1, and those of tail k at least first + k.
        column = torch.minimum(ranks, first - 1 + cluster).masked_fill(targets < 0, IGNORE)
        losses = linear_nll(hidden, self.head.weight, None, column)  # (n,)
        if not self.tail:
            return losses
        if routes is None:
            routes = self._route(targets, ranks, cluster)
        # All tails are gathered at once, and so are their gradients: no position is in two tails.
        rows = torch.cat(routes.rows)
        gathered = hidden.index_select(0, rows).split([len(part) for part in routes.rows])
        tail: Any
        of_tails = []
        for tail, part, relative in zip(self.tail, gathered, routes.targets, strict=True):
            inner = tail[0](part)  # (m, dim // div^(k + 1))
            of_tails.append(linear_nll(inner, tail[1].weight, None, relative))  # (m,)
        return losses.index_add(0, rows, torch.cat(of_tails))

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return the log-probability of every id in nats, (n, vocabulary), float32.

        Args:
            hidden: (n, dim).
        """
        head = self.head(hidden).float().log_softmax(1)
        first = self.cutoffs[0] if self.cutoffs else self.vocabulary
        by_rank = [head[:, :first]]
        for k, tail in enumerate(self.tail):
            inside = tail(hidden).float().log_softmax(1)
            by_rank.append(head[:, first + k : first + k + 1] + inside)
        return torch.cat(by_rank, 1)[:, self.ranks]

    def _route(self, targets: Tensor, ranks: Tensor, cluster: Tensor) -> Routes:
        rows = tuple(
            ((cluster == k + 1) & (targets >= 0)).nonzero().squeeze(1)
            for k in range(len(self.cutoffs))
        )
        return Routes(
            rows, tuple(ranks[r] - start for r, start in zip(rows, self.cutoffs, strict=True))
        )
