"""Adaptive input: narrower vectors for rarer ids (Baevski and Auli 2019)."""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import AdaptiveInputConfig
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.heads.cutoffs import tail_widths
from lightning_modules.nn.mode import is_training


class AdaptiveInput(nn.Module):
    """An input encoder with the clusters of an adaptive softmax (Baevski and Auli 2019, section 3).

        x(id of rank r < cutoffs[0]) = shortlist[r]
        x(id in tail k)              = vectors_k[r - cutoffs[k]] projections_k

    vectors_k has `tail_widths` columns; projections_k maps them to the full width. Unlike in the
    paper, the shortlist has no projection: the layer above can absorb one, and the head of the
    adaptive softmax, with which it may be tied, has none.

    Initialisation: shortlist and vectors are U(-1, 1) and projections U(-sqrt(3 / rows),
    sqrt(3 / rows)), so that x has the same variance in all clusters.

    Args:
        config: dropout.
        vocabulary: number of ids.
        width: width of the vectors returned.
        cutoffs: first rank of each tail.
        div: factor by which each tail is narrower than the one before.
        ranks: frequency rank of each id, int64; None means that ids are ranks. Ids from its length
            on, which cannot be predicted, have rank = id and so are in the last cluster.
    """

    ranks: Tensor

    def __init__(
        self,
        config: AdaptiveInputConfig,
        vocabulary: int,
        width: int,
        cutoffs: tuple[int, ...],
        div: float,
        ranks: Tensor | None,
    ) -> None:
        super().__init__()
        self.cutoffs = cutoffs
        ranked = torch.arange(0) if ranks is None else ranks
        others = torch.arange(len(ranked), vocabulary, device=ranked.device)
        self.register_buffer("ranks", torch.cat([ranked, others]))
        bounds = (*cutoffs, vocabulary)
        self.shortlist = nn.Parameter(torch.empty(bounds[0], width).uniform_(-1, 1))
        self.vectors, self.projections = nn.ParameterList(), nn.ParameterList()
        for inner, (start, end) in zip(
            tail_widths(width, div, len(cutoffs)), pairwise(bounds), strict=True
        ):
            bound = math.sqrt(3 / inner)
            self.vectors.append(torch.empty(end - start, inner).uniform_(-1, 1))
            self.projections.append(torch.empty(inner, width).uniform_(-bound, bound))
        self.dropout = nn.Dropout(config.dropout)
        self._output: tuple[AdaptiveSoftmax, ...] = ()

    def tie(self, output: AdaptiveSoftmax) -> None:
        """Use the output layer's vectors, projections and ranks, and drop this module's own.

        The output layer must have the same cutoffs, div, width and number of ids.
        """
        assert output.cutoffs == self.cutoffs
        assert output.ranks.shape == self.ranks.shape
        del self.shortlist, self.vectors, self.projections, self.ranks
        # In a tuple, so that nn.Module does not register the output layer here and save it twice.
        self._output = (output,)

    @property
    def is_tied(self) -> bool:
        """Whether the vectors are those of the output layer."""
        return bool(self._output)

    def forward(self, ids: Tensor, training: bool | None = None) -> Tensor:
        """Return the vectors of ids.

        All clusters are computed at all positions, about width^2 / 3 multiplications each, so that
        no shape depends on the ids and nothing waits for the device.

        Args:
            ids: int64 (directions, time, rows).
            training: whether to apply dropout; None means the module's mode.

        Returns:
            (directions, time, rows, width), float32.
        """
        ranks, shortlist, tails = self._clusters()
        id_ranks = ranks[ids]  # (directions, time, rows)
        # The head of a tied softmax also has a row per tail, after the vectors of ids.
        x = _inside(id_ranks, shortlist, 0, (*self.cutoffs, len(ranks))[0])
        for start, (vectors, projection) in zip(self.cutoffs, tails, strict=True):
            x = x + _inside(id_ranks, vectors, start, start + len(vectors)) @ projection
        return self.dropout(x) if is_training(self, training) else x

    def _clusters(self) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Return ranks, the shortlist, and each tail's (vectors, projection)."""
        if not self._output:
            pairs = zip(self.vectors, self.projections, strict=True)
            return self.ranks, self.shortlist, list(pairs)
        (output,) = self._output
        tails: Any = output.tail  # each is two linear maps, to the narrow vectors and from them
        tails = [(outer.weight, inner.weight) for inner, outer in tails]
        return output.ranks, output.head.weight, tails


def _inside(ranks: Tensor, vectors: Tensor, start: int, end: int) -> Tensor:
    """Return vectors[ranks - start] where start <= ranks < end, else 0; (*ranks.shape, columns)."""
    inside = (ranks >= start) & (ranks < end)
    rows = (ranks - start).clamp(0, end - start - 1)
    return F.embedding(rows, vectors) * inside.unsqueeze(-1)
