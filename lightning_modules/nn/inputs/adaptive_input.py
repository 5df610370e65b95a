"""Adaptive input: vectors whose width falls with the frequency of an id (Baevski and Auli 2019)."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import AdaptiveInputConfig
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.heads.cutoffs import tail_widths


class AdaptiveInput(nn.Module):
    """The clusters of an adaptive softmax as input vectors (Baevski and Auli 2019, section 3).

        x(id of rank r < cutoffs[0]) = shortlist[r]
        x(id in tail k)              = vectors_k[r - cutoffs[k]] projections_k

    vectors_k has width // div^(k + 1) columns, projections_k maps them to the width. The shortlist
    has the full width and no projection, unlike the paper's: the layer above can absorb one, and the
    softmax, whose vectors these are once tied, has none either.

    ranks: int64, id -> rank, none: ids are ranks; ids past its end, which the output layer cannot
    predict, follow in order and belong to the last cluster.

    Initialised so that the vectors of all clusters have the variance of U(-1, 1): shortlist and
    vectors U(-1, 1), projections U(-sqrt(3 / rows), sqrt(3 / rows)).
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
        known = torch.arange(0) if ranks is None else ranks
        further = torch.arange(len(known), vocabulary, device=known.device)
        self.register_buffer("ranks", torch.cat([known, further]))
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
        """Take vectors, projections and ranks from the output layer, and own none.

        An id's input vector then is the one its logit is made with: of the same cutoffs, div and
        width.
        """
        assert output.cutoffs == self.cutoffs
        assert output.ranks.shape == self.ranks.shape
        del self.shortlist, self.vectors, self.projections, self.ranks
        # In a tuple, else the output layer would be registered here too and saved twice.
        self._output = (output,)

    @property
    def is_tied(self) -> bool:
        """Whether its vectors are the output layer's."""
        return bool(self._output)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (directions, time, rows), int64 -> vectors (directions, time, rows, width), float32.

        Every cluster is computed for every place, which costs about width^2 / 3 multiplications
        each, so no shape depends on the ids and nothing waits for the device.
        """
        ranks, shortlist, tails = self._clusters()
        of_id = ranks[ids]  # (directions, time, rows)
        first, *starts = (0, *self.cutoffs)
        end = starts[0] if starts else len(ranks)
        x = _inside(of_id, shortlist, first, end)
        for start, (vectors, projection) in zip(starts, tails, strict=True):
            x = x + _inside(of_id, vectors, start, start + len(vectors)) @ projection
        dropped: Tensor = self.dropout(x)
        return dropped

    def _clusters(self) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Ranks; the shortlist's vectors; of every tail the vectors and the projection."""
        if not self._output:
            pairs = zip(self.vectors, self.projections, strict=True)
            return self.ranks, self.shortlist, list(pairs)
        (output,) = self._output
        weights = [list(tail.parameters()) for tail in output.tail]
        return output.ranks, output.head.weight, [(outer, inner) for inner, outer in weights]


def _inside(ranks: Tensor, vectors: Tensor, start: int, end: int) -> Tensor:
    """The vectors of ranks in [start, end), 0 elsewhere; (*ranks.shape, columns)."""
    inside = (ranks >= start) & (ranks < end)
    rows = (ranks - start).clamp(0, end - start - 1)
    return F.embedding(rows, vectors) * inside.unsqueeze(-1)
