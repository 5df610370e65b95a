"""Optimisers, and their rate as arithmetic on the step and on what held-out text told so far."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from lightning_modules.training.config import (
    AdagradConfig,
    AdamConfig,
    AdamWConfig,
    CosineConfig,
    InverseSqrtConfig,
    LinearConfig,
    OptimizerConfig,
    PlateauConfig,
    TrainConfig,
)


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimiser that `config.kind` names, in its fused form: the others cost several times more.

    Raises:
        ValueError: there is no parameter.
    """
    weights = list(parameters)
    shared: dict[str, Any] = {"lr": learning_rate, "weight_decay": config.weight_decay}
    if isinstance(config, AdamConfig | AdamWConfig):
        kind = torch.optim.Adam if isinstance(config, AdamConfig) else torch.optim.AdamW
        return kind(weights, betas=config.betas, eps=config.epsilon, fused=True, **shared)
    if isinstance(config, AdagradConfig):
        return torch.optim.Adagrad(
            weights,
            initial_accumulator_value=config.initial_accumulator,
            eps=config.epsilon,
            fused=weights[0].device.type == "cpu",  # torch has none for a GPU
            **shared,
        )
    return torch.optim.SGD(weights, momentum=config.momentum, fused=True, **shared)


def clipped_step(
    optimizer: torch.optim.Optimizer, gradients: Sequence[torch.Tensor], excess: float
) -> None:
    """A step with the gradients divided by ``excess`` where that is above 1: norm / its bound.

    A fused optimiser divides as it reads them, which saves a pass over memory.
    """
    if excess > 1 and optimizer.defaults["fused"]:
        # As torch.amp.GradScaler hands on its scale.
        optimizer.grad_scale = torch.tensor(excess, device=gradients[0].device)  # type: ignore[attr-defined]
    elif excess > 1:
        torch._foreach_mul_(list(gradients), 1 / excess)
    optimizer.step()
    optimizer.grad_scale = None  # type: ignore[attr-defined]


def learning_rate(train: TrainConfig, step: int, looks: Sequence[float] = ()) -> float:
    """The rate of a step, counted from 0.

    Rises in a straight line through the warm-up, then as `train.schedule` says:

        cosine        peak (f + (1 - f) (1 + cos(pi t)) / 2), t from 0 to 1 at the last step
                      (Loshchilov & Hutter 2017, section 3)
        linear        peak until `hold` of the steps, then straight to f peak at the last step
        inverse_sqrt  peak sqrt(warmup / step) (Vaswani et al. 2017, section 5.3)
        plateau       peak factor^n, n as in `drops`

    Args:
        looks: mean -log p of the held-out text at each look so far, for `plateau`.
    """
    peak, warmup, schedule = train.learning_rate, train.warmup_steps, train.schedule
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if isinstance(schedule, PlateauConfig):
        return peak * float(schedule.factor ** drops(looks, schedule.patience))
    if isinstance(schedule, InverseSqrtConfig):
        return peak * math.sqrt(max(1, warmup) / max(1, warmup, step))
    if isinstance(schedule, CosineConfig | LinearConfig):
        hold = schedule.hold if isinstance(schedule, LinearConfig) else 0.0
        begin = max(warmup, hold * train.steps)
        place = min(1.0, max(0.0, (step - begin) / max(1.0, train.steps - 1 - begin)))
        fallen = (
            place if isinstance(schedule, LinearConfig) else (1 - math.cos(math.pi * place)) / 2
        )
        return peak * (schedule.final_rate + (1 - schedule.final_rate) * (1 - fallen))
    return peak


def drops(looks: Sequence[float], patience: int) -> int:
    """How often a rate has fallen that falls once more than ``patience`` looks in a row gain nothing."""
    best, waited, fallen = math.inf, 0, 0
    for look in looks:
        waited = 0 if look < best else waited + 1
        best = min(best, look)
        if waited > patience:
            waited, fallen = 0, fallen + 1
    return fallen


def averages(looks: Sequence[float], after: int) -> bool:
    """Whether the average of NT-ASGD has begun: at a look worse than all but the last ``after`` before.

    Merity et al. 2018, algorithm 1.
    """
    return any(looks[now] > min(looks[: now - after]) for now in range(after + 1, len(looks)))


class WeightAverage:
    """The mean of the weights over the steps since it began, on their device, in float32."""

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self.tensors = [weight.detach().clone() for weight in weights]
        self.steps = 1

    @torch.no_grad()
    def add(self, weights: Sequence[torch.Tensor]) -> None:
        """Take the weights after one more step into the mean."""
        self.steps += 1
        torch._foreach_lerp_(self.tensors, list(weights), 1 / self.steps)
