"""Figures of an optimiser step: losses, gradient norm, learning rate, skipped steps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_modules.evaluation.held_out import WAYS, perplexity
from lightning_modules.training.ranks.distribution import mean_over_ranks


class StepFigures:
    """Figures of the last optimiser step, and the losses of the next one so far.

    Args:
        directions: directions of the network.

    Attributes:
        losses: cross-entropy of each direction in nats over the last step's rows of this rank,
            (directions,).
        gradient_norm: norm of the last step's gradient before clipping.
        learning_rate: learning rate of the last step.
        skipped: number of steps skipped so far because the gradient was not finite.
        skipped_in_a_row: number of steps skipped since the last one that was not.
    """

    def __init__(self, directions: int) -> None:
        self.losses = torch.zeros(directions)
        self.gradient_norm = self.learning_rate = 0.0
        self.skipped = self.skipped_in_a_row = 0
        self._parts: list[Tensor] = []
        self._shown: dict[str, float] = {}

    def add(self, losses: Tensor) -> None:
        """Add the losses of a part of the next step, (directions,). All parts have the same size."""
        self._parts.append(losses)

    def finish(self, learning_rate: float) -> None:
        """Compute the losses of the step whose parts have been added."""
        self.losses = torch.stack(self._parts).mean(0)
        self.learning_rate = learning_rate
        self._parts, self._shown = [], {}

    @property
    def is_between_steps(self) -> bool:
        """Whether no part of the next step has been added."""
        return not self._parts

    def count_gradient(self, norm: float, is_skipped: bool) -> None:
        """Record the norm of a gradient, and whether the step is skipped because of it."""
        self.gradient_norm = norm
        self.skipped += is_skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if is_skipped else 0

    def to_log(self) -> dict[str, float]:
        """Return the figures by name, with the means of the losses over all ranks.

        Collective at the first call after a step.
        """
        if not self._shown:
            losses = mean_over_ranks(self.losses).tolist()
            for name, loss in zip(WAYS, losses, strict=False):
                self._shown |= {f"loss_{name}": loss, f"perplexity_{name}": perplexity(loss)}
            self._shown |= {
                "train_loss": sum(losses) / len(losses),
                "learning_rate": self.learning_rate,
                "gradient_norm": self.gradient_norm,
                "skipped_steps": self.skipped,
            }
        return dict(self._shown)

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the numbers of skipped steps."""
        self.skipped = checkpoint["skipped"]
        self.skipped_in_a_row = checkpoint["skipped_in_a_row"]
