"""The full softmax: a matrix with one row per id of the vocabulary."""

import torch
from torch import Tensor, nn

from lightning_modules.config import SampledSoftmaxConfig, SoftmaxConfig
from lightning_modules.nn.heads.linear_loss import linear_nll
from lightning_modules.nn.heads.routes import Routes


class FullSoftmax(nn.Module):
    """The output layer log_softmax(W h + b), with the interface of `AdaptiveSoftmax` (no cutoffs).

    Initialisation: W is U(-1/sqrt(dim), 1/sqrt(dim)), b is 0.

    Args:
        config: unused.
        dim: width of the input.
        vocabulary: number of ids that can be predicted.
        shared: a module whose ``weight``, (vocabulary, dim), is used as W. It is not registered as a
            module here, so that W is saved once; None makes a new W.
    """

    def __init__(
        self,
        config: SoftmaxConfig | SampledSoftmaxConfig,
        dim: int,
        vocabulary: int,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.cutoffs: tuple[int, ...] = ()
        self.vocabulary = vocabulary
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        if shared is None:
            self.weight = nn.Parameter(torch.empty(vocabulary, dim))
            nn.init.uniform_(self.weight, -(dim**-0.5), dim**-0.5)
        # In a tuple, so that nn.Module does not register a shared module. The module and not its
        # parameter, which load_state_dict(assign=True) and parametrisations replace.
        self._shared = () if shared is None else (shared,)

    @property
    def vectors(self) -> Tensor:
        """W, the module's own or the shared one."""
        weight = self._shared[0].weight if self._shared else self.weight
        assert isinstance(weight, Tensor)
        return weight

    def nll(
        self,
        hidden: Tensor,
        targets: Tensor,
        routes: Routes | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Return the cross-entropy of each target in nats, (n,), float32.

        Args:
            hidden: (n, dim).
            targets: ids, int64 (n,); those below 0 are ignored and have loss 0.
            routes: ignored.
            training: ignored.
        """
        return linear_nll(hidden, self.vectors, self.bias, targets)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Return log softmax(W h + b) of every id in nats, (n, vocabulary), float32.

        Args:
            hidden: (n, dim).
        """
        return (hidden @ self.vectors.T + self.bias).float().log_softmax(1)
