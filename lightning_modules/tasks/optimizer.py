"""The optimiser and the learning rates of a head, and of a language model that is trained with it."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from lightning_modules.tasks.training_config import FitConfig
from lightning_modules.tasks.tuning import TunedModel


def optimizers(
    head: Iterable[nn.Parameter], config: FitConfig, steps: int, tuned: TunedModel | None = None
) -> dict[str, Any]:
    """Return AdamW and its schedule as ``configure_optimizers`` of a LightningModule returns them.

    Args:
        head: the weights of the head.
        config: the learning rates.
        steps: number of steps of all epochs.
        tuned: the language model that is trained, too, or None.
    """
    groups: list[dict[str, Any]] = [{"params": list(head), "lr": config.learning_rate}]
    if tuned is not None:
        groups += tuned.parameter_groups(config.finetune)
    # The fused implementation is several times faster, also on a CPU.
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
    share = partial(rate_share, config, steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_share(config: FitConfig, steps: int, step: int) -> float:
    """Return the learning rate of a step as a fraction of its peak.

    Args:
        config: the schedule.
        steps: number of steps of all epochs.
        step: the step, from 0.
    """
    rise = config.warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    if config.schedule == "constant":
        return 1.0
    return max(0.0, (steps - step) / (steps - rise))
