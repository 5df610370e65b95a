"""The scale of gradients in float16, which keeps small gradients from becoming 0."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor


class GradientScaler(torch.amp.GradScaler):
    """The dynamic scale of torch (Micikevicius et al. 2018, section 3.2), without host reads.

    The loss is multiplied by the scale, and its gradient is divided by it. The scale halves after a
    gradient that is not finite, and doubles after 2,000 other gradients in a row. Whether a step is
    skipped is decided by `skip_if`.
    """

    _is_unscaled = False

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, once in a step.

        Lightning does so too, but only for optimisers that are not fused.
        """
        if not self._is_unscaled:
            super().unscale_(optimizer)
            self._is_unscaled = True

    def step(self, optimizer: torch.optim.Optimizer, *arguments: Any, **options: Any) -> Any:
        """Call the optimiser, which skips the step if the condition of `skip_if` holds."""
        return optimizer.step(*arguments, **options)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Update the scale at the end of a step."""
        super().update(new_scale)
        self._is_unscaled = False


def use_gradient_scaler(trainer: pl.Trainer) -> None:
    """Let a Trainer with ``precision="16-mixed"`` use a `GradientScaler` with its scaler's state."""
    plugin = trainer.precision_plugin
    former = gradient_scaler(trainer)
    if former is None or isinstance(former, GradientScaler):
        return
    assert isinstance(plugin, MixedPrecision)
    plugin.scaler = GradientScaler(plugin.device)
    plugin.scaler.load_state_dict(former.state_dict())


def gradient_scaler(trainer: pl.Trainer) -> torch.amp.GradScaler | None:
    """Return what scales the gradients of a Trainer; None if they are not scaled."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def unscaled(closure: Callable[[], Any], trainer: pl.Trainer) -> Callable[[], Any]:
    """Return a closure that computes the gradients of a step, and divides them by the scale.

    ``on_before_optimizer_step``, clipping and the norm get these gradients; ``on_after_backward`` gets
    the scaled ones.

    Args:
        closure: computes the scaled gradients.
        trainer: has a scaler, or not.
    """
    scaler = gradient_scaler(trainer)
    if scaler is None:
        return closure

    def unscaling() -> Any:
        result = closure()
        scaler.unscale_(trainer.optimizers[0])
        return result

    return unscaling


def current_scale(trainer: pl.Trainer) -> Tensor | None:
    """Return the scale of a step, (), on the device, without waiting for it; None without a scaler."""
    scaler = gradient_scaler(trainer)
    if scaler is None:
        return None
    scale: Tensor = scaler.scale(torch.ones((), device=trainer.strategy.root_device))
    return scale
