"""What a step's gradients do to the weights: their norm, their clipping, the optimiser."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.optimizers import build_optimizer, clipped_step

NORM_BLOCK = 2**16
"""Numbers of a weight whose norm is taken at once on a CPU; processes divide weights between blocks."""


class Update:
    """Where this process has all gradients, by itself or by DDP.

    Args:
        train: names the optimiser.
        weights: on the device where they stay.
    """

    def __init__(self, train: TrainConfig, weights: Sequence[nn.Parameter]) -> None:
        self._weights = list(weights)
        self._optimizer = build_optimizer(train.optimizer, self._weights, train.learning_rate)

    def averaged(self) -> AbstractContextManager[None]:
        """What the last backward pass of a step runs in; after it, gradients are those of all processes."""
        return nullcontext()

    def norm(self) -> float:
        """Of all weights' gradients."""
        return float(torch.linalg.vector_norm(block_norms(self._gradients())))

    def step(self, rate: float, excess: float) -> None:
        """One step with the gradients divided by ``excess`` where that is above 1: norm / its bound."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        clipped_step(self._optimizer, self._gradients(), excess)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's, in the first process whole; called by all processes at once."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._optimizer.load_state_dict(state)
        for group in self._optimizer.param_groups:
            group["fused"] = self._optimizer.defaults["fused"]  # that of this device

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._weights if weight.grad is not None]


def block_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Norms (blocks,) whose norm is that of all.

    On a CPU, processes may share the work of them (`SharedUpdate`) or not, for the same bits.
    """
    blocks = [b for g in gradients for b in (g.reshape(-1).split(NORM_BLOCK) if g.is_cpu else [g])]
    return torch.stack(torch._foreach_norm(blocks))
