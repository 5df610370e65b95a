"""The update of the weights from their gradients: norm, clipping, optimiser."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.optimizers import build_optimizer, clipped_step

NORM_BLOCK = 2**16
"""Elements per block of a weight on a CPU. Norms are computed block by block, so that their bits do not
depend on how many processes share the work."""


class Update:
    """The update of all weights from all gradients, which are the same on every rank.

    Args:
        train: settings of the training.
        weights: the weights, on their final device.
    """

    def __init__(self, train: TrainConfig, weights: Sequence[nn.Parameter]) -> None:
        self._weights = list(weights)
        self._optimizer = build_optimizer(train.optimizer, self._weights, train.learning_rate)

    def norm(self) -> float:
        """Return the norm of the gradients of all weights."""
        return float(torch.linalg.vector_norm(block_norms(self._gradients())))

    def step(self, rate: float, excess: float) -> None:
        """Take an optimiser step.

        Args:
            rate: learning rate.
            excess: norm of all gradients divided by the largest norm allowed, see `clipped_step`.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        clipped_step(self._optimizer, self._gradients(), excess)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimiser."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._optimizer.load_state_dict(state)
        for group in self._optimizer.param_groups:
            # The state may come from a device with another implementation.
            group["fused"] = self._optimizer.defaults["fused"]

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._weights if weight.grad is not None]


def block_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Return norms of parts of the gradients, (blocks,); their norm is the norm of all gradients.

    On a CPU the parts are blocks of `NORM_BLOCK` elements; on a GPU, whole gradients.
    """
    blocks = [b for g in gradients for b in (g.reshape(-1).split(NORM_BLOCK) if g.is_cpu else [g])]
    return torch.stack(torch._foreach_norm(blocks))
