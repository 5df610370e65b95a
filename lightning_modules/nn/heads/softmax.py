"""The full softmax: one matrix over the whole vocabulary."""

import torch
from torch import Tensor, nn

from lightning_modules.config import SampledSoftmaxConfig, SoftmaxConfig
from lightning_modules.nn.heads.linear_loss import linear_nll
from lightning_modules.nn.heads.routes import Routes


class FullSoftmax(nn.Module):
    """log_softmax(W h + b) with the interface of AdaptiveSoftmax; it has no cutoffs, hence no tails.

    W is U(-1/sqrt(dim), 1/sqrt(dim)), b is 0. shared: W, (vocabulary, dim), left as it is; it stays
    the parameter of the module it comes from, so that it is saved once.
    """

    def __init__(
        self,
        config: SoftmaxConfig | SampledSoftmaxConfig,
        dim: int,
        vocabulary: int,
        shared: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.cutoffs: tuple[int, ...] = ()
        self.vocabulary = vocabulary
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        if shared is None:
            self.weight = nn.Parameter(torch.empty(vocabulary, dim))
            nn.init.uniform_(self.weight, -(dim**-0.5), dim**-0.5)
        # In a tuple, where nn.Module does not see it.
        self._vectors = (self.weight if shared is None else shared,)

    @property
    def vectors(self) -> nn.Parameter:
        """W, whoever owns it."""
        return self._vectors[0]

    def nll(self, hidden: Tensor, targets: Tensor, routes: Routes | None = None) -> Tensor:
        """hidden (n, dim), targets (n,) ids, below 0 ignored -> -log p in nats, (n,), float32."""
        return linear_nll(hidden, self.vectors, self.bias, targets)
