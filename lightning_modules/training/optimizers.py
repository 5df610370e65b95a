"""Optimisers, learning rate schedules and averaging of weights.

The learning rate is a function of the step and of the held-out losses so far.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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

FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.SGD)
"""Optimisers of torch with a fused implementation."""


def build_optimizer(
    config: OptimizerConfig,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
) -> torch.optim.Optimizer:
    """Create an optimiser, with torch's fused implementation if there is one, which is several times faster.

    Args:
        config: kind and settings of the optimiser.
        parameters: the weights, all on one device.
        learning_rate: initial learning rate.

    Raises:
        ValueError: if there are no parameters.
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
            # Not False, with which torch would compute one weight after another on a GPU.
            fused=_has_fused_adagrad(weights[0].device) or None,
            **shared,
        )
    return torch.optim.SGD(weights, momentum=config.momentum, fused=True, **shared)


def _has_fused_adagrad(device: torch.device) -> bool:
    """Return whether torch has a fused Adagrad for a device. Older versions have it for CPUs only."""
    weight = nn.Parameter(torch.zeros(1, device=device))
    weight.grad = torch.zeros_like(weight)
    try:
        torch.optim.Adagrad([weight], fused=True).step()
    except RuntimeError:
        return False
    return True


def adopt_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimiser of another training, and keep the learning rate.

    Args:
        optimizer: an optimiser that has not taken a step.
        state: its state dict.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def use_own_implementation(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser use its implementation, because a restored state may name another device's.

    A fused implementation reads the numbers of steps on the device.
    """
    for group in optimizer.param_groups:
        if "fused" in optimizer.defaults:
            group["fused"] = optimizer.defaults["fused"]
        for weight in group["params"] if group.get("fused") else ():
            state = optimizer.state.get(weight, {})
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(weight.device, torch.float32)


def learning_rate(
    train: TrainConfig, step: int, last_step: int, losses: Sequence[float] = ()
) -> float:
    """Return the learning rate of a step.

    The rate rises linearly during the warm-up and then follows `train.schedule`, where f is
    `final_rate`:

        constant      peak
        cosine        peak (f + (1 - f) (1 + cos(pi t)) / 2), t from 0 to 1 at the last step
                      (Loshchilov & Hutter 2017, section 3)
        linear        peak for the fraction `hold` of all steps, then linearly to f peak at the last
        inverse_sqrt  peak sqrt(warmup / step) (Vaswani et al. 2017, section 5.3)
        plateau       peak factor^n, with n from `drops`

    Args:
        train: settings of the training.
        step: the step, counted from 0.
        last_step: number of steps at which the schedule ends.
        losses: held-out losses so far, for `plateau`.
    """
    peak, warmup, schedule = train.learning_rate, train.warmup_steps, train.schedule
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if isinstance(schedule, PlateauConfig):
        return peak * float(schedule.factor ** drops(losses, schedule.patience))
    if isinstance(schedule, InverseSqrtConfig):
        return peak * math.sqrt(max(1, warmup) / max(1, warmup, step))
    if isinstance(schedule, CosineConfig | LinearConfig):
        hold = schedule.hold if isinstance(schedule, LinearConfig) else 0.0
        begin = max(warmup, hold * last_step)
        t = min(1.0, max(0.0, (step - begin) / max(1.0, last_step - 1 - begin)))
        fallen = t if isinstance(schedule, LinearConfig) else (1 - math.cos(math.pi * t)) / 2
        return peak * (schedule.final_rate + (1 - schedule.final_rate) * (1 - fallen))
    return peak


class HeldOutSchedule(torch.optim.lr_scheduler.LambdaLR):
    """`learning_rate` as a scheduler that is stepped after each optimiser step.

    Args:
        optimizer: an optimiser with the peak learning rate.
        train: settings of the training.
        last_step: number of steps at which the schedule ends.
        losses: returns the held-out losses so far.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        train: TrainConfig,
        last_step: int,
        losses: Callable[[], Sequence[float]],
    ) -> None:
        # No attributes, because they would be part of the state.
        super().__init__(
            optimizer,
            lambda step: learning_rate(train, step, last_step, losses()) / train.learning_rate,
        )

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the rate of each group, also of those that callbacks have added to the optimiser."""
        [factor] = self.lr_lambdas
        bases = [
            group.setdefault("initial_lr", group["lr"]) for group in self.optimizer.param_groups
        ]
        return [base * factor(self.last_epoch) for base in bases]

    def refresh(self) -> None:
        """Compute the rate of the next step again, because what it depends on has changed."""
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate


def clip_gradients(weights: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Scale the gradients of weights to a norm if theirs is larger, and return the norm before.

    Args:
        weights: weights with gradients.
        limit: the largest norm; None means no limit.

    Returns:
        The norm of all gradients together, (). If it is not finite, the gradients are not usable.
    """
    norm = torch.nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
    # The comparison saves time on a CPU. It would wait for another device.
    if limit and (norm.device.type != "cpu" or norm > limit):
        torch.nn.utils.clip_grads_with_norm_(weights, limit, norm)
    return norm


def skip_if(is_skipped: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Let the next step of an optimiser do nothing if a condition holds.

    A fused implementation of torch reads the condition on the device, as it does for
    `torch.amp.GradScaler`. For another implementation, this waits for the device, and removes the gradients.

    Args:
        is_skipped: the condition, bool ().
        optimizer: the optimiser. After the step, call `end_skip`.
    """
    is_fused = all(group.get("fused") for group in optimizer.param_groups)
    # Another optimiser may have fused groups too, but does not read the condition.
    if is_fused and isinstance(optimizer, FUSED):
        optimizer.found_inf = is_skipped.float()  # type: ignore[union-attr]
        _create_momentum(optimizer)
    elif is_skipped:
        optimizer.zero_grad()


def end_skip(*optimizers: torch.optim.Optimizer) -> None:
    """Remove the condition of `skip_if`, which would hold for later steps too."""
    for optimizer in optimizers:
        vars(optimizer).pop("found_inf", None)


def _create_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Create momentum buffers of zeros. Those that torch creates in a skipped step are not filled."""
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for weight in group["params"]:
                if weight.grad is not None and not optimizer.state[weight]:
                    optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def drops(losses: Sequence[float], patience: int) -> int:
    """Return how often the learning rate of a plateau schedule has fallen.

    It falls each time when more than ``patience`` held-out evaluations in a row have not improved on
    the best loss.

    Args:
        losses: held-out losses so far.
        patience: evaluations without improvement that are tolerated.
    """
    best, waited, fallen = math.inf, 0, 0
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited > patience:
            waited, fallen = 0, fallen + 1
    return fallen


def averages(losses: Sequence[float], after: int) -> bool:
    """Return True if NT-ASGD has begun to average the weights (Merity et al. 2018, algorithm 1).

    It begins at a held-out loss that is worse than the best one before the last ``after`` losses.

    Args:
        losses: held-out losses so far.
        after: the non-monotone interval.
    """
    return any(losses[now] > min(losses[: now - after]) for now in range(after + 1, len(losses)))


class WeightAverage:
    """The mean of the weights over the steps since averaging began.

    Args:
        weights: the weights at the first step, or their mean.
        steps: number of steps averaged.

    Attributes:
        tensors: mean of each weight, on the weight's device and with its dtype.
    """

    def __init__(self, weights: Sequence[Tensor], steps: int = 1) -> None:
        self.tensors = [weight.detach().clone() for weight in weights]
        self._steps = torch.tensor(steps)  # int64, because MPS has no float64

    @property
    def steps(self) -> int:
        """Number of steps averaged; waits for the device."""
        return int(self._steps)

    @torch.no_grad()
    def add(self, weights: Sequence[Tensor], is_skipped: Tensor) -> None:
        """Add the weights after one more step to the mean, without waiting for the device.

        Args:
            weights: the weights.
            is_skipped: whether the step has been skipped, so that it does not count, bool ().
        """
        self._steps = self._steps.to(is_skipped.device) + ~is_skipped
        share: Any = ~is_skipped / self._steps
        if share.device.type != "cpu":
            share = share.to(self.tensors[0].dtype)
        elif not (share := float(share)):
            return
        for mean, weight in zip(self.tensors, weights, strict=True):
            mean.lerp_(weight, share)

    def to(self, device: torch.device) -> None:
        """Move the mean to a device."""
        self.tensors = [mean.to(device) for mean in self.tensors]
