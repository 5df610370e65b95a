"""Which held-out evaluation is the best, when patience has run out, and when a model overfits.

Imports no torch.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from lightning_modules.training.config import TrainConfig

RISES = 3
"""Held-out evaluations in a row, each worse than the one before, after which overfitting is reported."""

Loss = tuple[int, float]
"""A step and a mean loss per token in nats."""


def evaluations_since_best(losses: Sequence[float]) -> int:
    """Return how many evaluations in a row, up to the last one, have not improved on the best loss.

    Args:
        losses: held-out losses in the order of steps. NaN is never an improvement.
    """
    best, waited = math.inf, 0
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = loss if loss < best else best
    return waited


def patience_ran_out(losses: Sequence[float], patience: int | None) -> bool:
    """Return True if training stops, because ``patience`` evaluations in a row have not improved.

    Args:
        losses: held-out losses in the order of steps.
        patience: `train.patience`; None means that training never stops early.
    """
    return patience is not None and evaluations_since_best(losses) >= patience


def is_last_step(train: TrainConfig, step: int, losses: Sequence[float]) -> bool:
    """Return True if training ends after a step: all steps are taken, or patience has run out.

    Args:
        train: settings of the training.
        step: number of steps taken.
        losses: held-out losses at multiples of `evaluate_steps`, in the order of steps.
    """
    return step >= train.steps or patience_ran_out(losses, train.patience)


def overfits(held_out: Sequence[Loss], training: Sequence[Loss]) -> bool:
    """Return True if held-out loss has risen `RISES` times in a row while training loss fell.

    Training loss is averaged over the steps between two evaluations. It fell if its mean over the last
    interval is below its mean over the interval that ends where the rise begins.

    Args:
        held_out: losses of the held-out evaluations.
        training: losses of the training batches.
    """
    last = [*held_out[-RISES - 1 :]]
    if len(last) <= RISES or not all(one[1] < other[1] for one, other in pairwise(last)):
        return False
    before = held_out[-RISES - 2][0] if len(held_out) > RISES + 1 else 0
    first = _mean(training, before, last[0][0])
    return _mean(training, last[-2][0], last[-1][0]) < first


def _mean(losses: Sequence[Loss], after: int, to: int) -> float:
    """Return the mean of the losses in the interval (after, to]; NaN if there is none."""
    found = [loss for step, loss in losses if after < step <= to]
    return sum(found) / len(found) if found else math.nan
