"""The full softmax: one matrix over the whole vocabulary, for small vocabularies and as reference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import SoftmaxConfig
from lightning_modules.nn.adaptive_softmax import IGNORE, Routes

# Positions times vocabulary are computed in pieces of at most so many logits (16 MB of float32):
# they stay near the caches, and a long held-out text does not decide about the memory.
LOGITS = 4_000_000


class FullSoftmax(nn.Module):
    """log_softmax(W h + b) with the interface of AdaptiveSoftmax; it has no cutoffs, hence no tails.

    W is U(-1/sqrt(dim), 1/sqrt(dim)), b is 0.
    """

    def __init__(
        self,
        config: SoftmaxConfig,
        dim: int,
        vocabulary: int,
        cutoffs: tuple[int, ...] = (),
        ranks: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.cutoffs: tuple[int, ...] = ()
        self.vocabulary = vocabulary
        self.linear = nn.Linear(dim, vocabulary)
        nn.init.zeros_(self.linear.bias)

    def nll(self, hidden: Tensor, targets: Tensor, routes: Routes | None = None) -> Tensor:
        """hidden (n, dim), targets (n,) ids, below 0 ignored -> -log p in nats, (n,), float32."""
        piece = max(1, LOGITS // self.vocabulary)
        goals = targets.where(targets >= 0, IGNORE)  # (n,)
        return torch.cat(
            [
                F.cross_entropy(self.linear(h).float(), goal, ignore_index=IGNORE, reduction="none")
                for h, goal in zip(hidden.split(piece), goals.split(piece), strict=True)
            ]
        )

    def log_prob(self, hidden: Tensor) -> Tensor:
        """hidden (n, dim) -> log p of every id, (n, vocabulary), float32."""
        return F.log_softmax(self.linear(hidden).float(), 1)
