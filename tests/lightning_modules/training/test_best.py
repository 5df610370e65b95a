"""Which evaluation is the best, when patience has run out, and when a model overfits."""

import math

import pytest

from lightning_modules.training.best import (
    evaluations_since_best,
    is_last_step,
    overfits,
    patience_ran_out,
)
from lightning_modules.training.config import TrainConfig


@pytest.mark.parametrize(
    ("losses", "since"),
    [
        ([], 0),
        ([3.0], 0),
        ([3.0, 2.0], 0),
        ([3.0, 2.0, 2.0], 1),  # equal is no improvement
        ([3.0, 2.0, 2.5, 2.4], 2),  # better than the last, not than the best
        ([3.0, 2.0, 2.5, 1.9], 0),
        ([3.0, math.nan, 2.5], 0),
        ([3.0, math.nan, math.nan], 2),
        ([math.nan, math.inf, 2.0, math.nan], 1),
    ],
)
def test_evaluations_since_the_best_are_counted(losses: list[float], since: int) -> None:
    assert evaluations_since_best(losses) == since
    assert not patience_ran_out(losses, None)
    assert not patience_ran_out(losses, since + 1)
    assert patience_ran_out(losses, since) or not since


def test_a_training_ends_at_its_steps_or_when_patience_runs_out() -> None:
    train = TrainConfig(steps=10, patience=2)
    assert is_last_step(train, 10, [])
    assert not is_last_step(train, 9, [1.0, 2.0])
    assert is_last_step(train, 9, [1.0, 2.0, 2.0])
    assert not is_last_step(train.model_copy(update={"patience": None}), 9, [1.0, 2.0, 2.0])


HELD_OUT = [(10, 5.0), (20, 4.0), (30, 4.1), (40, 4.2), (50, 4.3)]
FALLING = [(step, 5.0 - step / 100) for step in range(1, 51)]


@pytest.mark.parametrize(
    ("held_out", "training", "expected"),
    [
        (HELD_OUT, FALLING, True),
        (HELD_OUT[1:], FALLING, True),  # from the first evaluation on
        (HELD_OUT[:-1], FALLING, False),  # too few
        ([*HELD_OUT[:-1], (50, 4.2)], FALLING, False),  # equal
        ([*HELD_OUT[:-1], (50, math.nan)], FALLING, False),
        (HELD_OUT, [(step, -loss) for step, loss in FALLING], False),  # both rise: it diverges
        (HELD_OUT, [], False),
    ],
)
def test_a_model_overfits_if_held_out_loss_rises_and_training_loss_falls(
    held_out: list[tuple[int, float]], training: list[tuple[int, float]], expected: bool
) -> None:
    assert overfits(held_out, training) is expected
