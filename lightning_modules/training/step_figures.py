"""Figures of an optimiser step: losses, gradient norm, learning rate, skipped steps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_modules.evaluation.held_out import WAYS, perplexity
from lightning_modules.training.ranks.distribution import mean_over_ranks

SKIPS = ("skipped", "skipped_in_a_row", "skipped_unscaled")
"""Keys of a checkpoint with the numbers of skipped steps."""


class StepFigures:
    """Figures of the last optimiser step, and the losses of the next one so far.

    Args:
        directions: directions of the network.

    Attributes:
        losses: cross-entropy of each direction in nats over the last step's rows of this rank,
            (directions,).
        gradient_norm: norm of the last step's gradient before clipping, ().
        learning_rate: learning rate of the last step.
        terms: further terms of the last step's loss over the rows of this rank, by name, each ().
        is_skipped: whether the last gradient counted was not finite, so that the step is skipped, bool
            (), on the device.
    """

    def __init__(self, directions: int) -> None:
        self.losses, self.gradient_norm = torch.zeros(directions), torch.zeros(())
        self.learning_rate, self.is_skipped = 0.0, torch.tensor(False)
        # On the device: so far, in a row, and in a row with a gradient scale of at most 1.
        self._skips = torch.zeros(3, dtype=torch.int64)
        self._scale: Tensor | None = None
        self._copied = self._copied_before = _HostCopy(self._skips)
        self._parts: list[Tensor] = []
        self._terms: dict[str, list[Tensor]] = {}
        self.terms: dict[str, Tensor] = {}
        self._shown: dict[str, float] = {}

    def add(self, losses: Tensor) -> None:
        """Add the losses of a part of the next step, (directions,). All parts have the same size."""
        self._parts.append(losses)

    def add_term(self, name: str, value: Tensor) -> None:
        """Add a further term of the loss of the part that `add` was called with, ()."""
        self._terms.setdefault(name, []).append(value)

    def finish(self, learning_rate: float) -> None:
        """Compute the losses of the step whose parts have been added."""
        self.losses = torch.stack(self._parts).mean(0)
        self.terms = {name: torch.stack(values).mean() for name, values in self._terms.items()}
        self.learning_rate = learning_rate
        self._parts, self._terms, self._shown = [], {}, {}

    @property
    def is_between_steps(self) -> bool:
        """Whether no part of the next step has been added."""
        return not self._parts

    def count_gradient(self, norm: Tensor, scale: Tensor | None = None) -> Tensor:
        """Record the norm of a gradient, without waiting for the device.

        Args:
            norm: the norm, ().
            scale: what the loss was multiplied by in float16, (); None means it was not scaled.

        Returns:
            Whether the step is skipped because the norm is not finite, bool ().
        """
        self.is_skipped = is_skipped = ~norm.isfinite()
        so_far, in_a_row, unscaled = self._skips.to(norm.device).unbind()
        so_far, in_a_row = so_far + is_skipped, (in_a_row + 1) * is_skipped
        unscaled = in_a_row if scale is None else (unscaled + (scale <= 1)) * is_skipped
        self._skips = torch.stack([so_far, in_a_row, unscaled])
        self._copied_before, self._copied = self._copied, _HostCopy(self._skips)
        self.gradient_norm, self._scale = norm, scale
        return is_skipped

    @property
    def skipped(self) -> int:
        """Number of steps skipped so far because the gradient was not finite; waits for the device."""
        return int(self._skips[0])

    @property
    def skipped_in_a_row(self) -> int:
        """Number of steps skipped since the last one that was not; waits for the device."""
        return int(self._skips[1])

    @property
    def known_skipped_in_a_row(self) -> int:
        """`skipped_in_a_row` without the steps that a smaller scale of the gradients may prevent.

        In float16, these are the steps with a scale above 1. On a GPU, it is the number of the step before
        the last one, which needs no waiting.
        """
        copied = self._copied if self._skips.device.type == "cpu" else self._copied_before
        return copied.values()[2]

    def to_log(self) -> dict[str, float]:
        """Return the figures by name, with the means of the losses over all ranks.

        Collective at the first call after a step.
        """
        if not self._shown:
            parts = [self.losses, *(term[None] for term in self.terms.values())]
            means, number = mean_over_ranks(torch.cat(parts)).tolist(), len(self.losses)
            losses, terms = means[:number], means[number:]
            for name, loss in zip(WAYS, losses, strict=False):
                self._shown |= {f"loss_{name}": loss, f"perplexity_{name}": perplexity(loss)}
            self._shown |= {
                "train_loss": sum(losses) / len(losses),
                **dict(zip(self.terms, terms, strict=True)),
                "learning_rate": self.learning_rate,
                "gradient_norm": float(self.gradient_norm),
                "skipped_steps": self.skipped,
            }
            if self._scale is not None:
                self._shown["gradient_scale"] = float(self._scale)
        return dict(self._shown)

    def to_save(self) -> dict[str, int]:
        """Return the numbers of skipped steps for a checkpoint; waits for the device."""
        return dict(zip(SKIPS, self._skips.tolist(), strict=True))

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the numbers of skipped steps. Former versions did not save the last one."""
        so_far, in_a_row = (checkpoint[name] for name in SKIPS[:2])
        self._skips = torch.tensor([so_far, in_a_row, checkpoint.get(SKIPS[2], in_a_row)])
        self._copied = self._copied_before = _HostCopy(self._skips)


class _HostCopy:
    """A copy of integers to the host, which is read later without waiting for a busy device.

    Args:
        tensor: the integers, (n,).
    """

    def __init__(self, tensor: Tensor) -> None:
        # From a GPU, the copy is to pinned memory, and this returns before it is done. Other devices
        # have no event that tells when it is done.
        self._copy = tensor.to("cpu", non_blocking=tensor.is_cuda)
        self._done: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._done = torch.cuda.current_stream(tensor.device).record_event()

    def values(self) -> list[int]:
        """Wait for the copy, and return the integers."""
        if self._done is not None:
            self._done.synchronize()
        integers: list[int] = self._copy.tolist()
        return integers
