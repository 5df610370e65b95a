"""What the user is told about the best step, a stop by patience, and overfitting."""

import math
from typing import Any

import pytest

from lightning_modules.training.config import TrainConfig
from pipeline.stages.best_step import BestStep, OverfittingWatch, ending, last_figures, stop_reason

BEST = BestStep(20, {"loss": math.log(50.0)}, {})


def rows(held_out: dict[int, float], training: dict[int, float]) -> list[dict[str, Any]]:
    """Return rows of metrics.jsonl with these perplexities by step."""
    found: list[dict[str, Any]] = [
        {"step": step, "valid_forward_perplexity": value} for step, value in held_out.items()
    ]
    found += [{"step": step, "loss_forward": math.log(value)} for step, value in training.items()]
    return sorted(found, key=lambda row: int(row["step"]))


def told(last: float, passes: float) -> list[str]:
    metrics = rows({10: 60.0, 20: 50.0, 30: last}, {})
    return ending(TrainConfig(steps=30), 30, [], BEST, metrics, passes)


TAKES = "evaluate and export take step 20; to take the last step, set export.checkpoint=last"


@pytest.mark.parametrize(
    ("last", "passes", "why"),
    [
        (
            60.0,
            3.0,
            ", against 60.0 at the last step, 30; the steps after it only fitted the training text",
        ),
        (
            60.0,
            0.5,
            ", against 60.0 at the last step, 30; no text was read twice, so training became unstable (try a "
            "lower train.learning_rate)",
        ),
        (50.2, 3.0, ""),
    ],
)
def test_the_best_step_is_told_with_the_cause(last: float, passes: float, why: str) -> None:
    assert told(last, passes) == [f"held-out perplexity was lowest at step 20: 50.0{why}. {TAKES}"]


def test_the_figure_of_the_whole_split_is_told_if_evaluations_read_a_sample() -> None:
    best = BestStep(30, {"loss": math.log(50.0), "tokens": 2000}, {})
    metrics = [
        {"step": 20, "whole_loss": 1.0, "whole_tokens": 9000},  # a shorter training ended here
        {"step": 30, "valid_loss": math.log(50.0), "valid_tokens": 2000},
        {"step": 30, "whole_loss": math.log(51.0), "whole_tokens": 9000},
    ]
    train = TrainConfig(steps=30)
    assert ending(train, 30, [], best, metrics, 3.0) == [
        "held-out perplexity at the last step: 51.0 on all 9,000 tokens; the best step was chosen by a sample "
        "of 2,000"
    ]
    assert last_figures(metrics, 30) == {"loss": math.log(51.0), "tokens": 9000}
    assert last_figures(metrics[:2], 30) == {"loss": math.log(50.0), "tokens": 2000}
    assert last_figures([{"step": 30, "valid_loss": None}], 30) is None, "it was not finite"
    assert ending(train, 30, [], best, metrics[:2], 3.0) == []


def test_nothing_is_told_if_the_last_step_is_the_best() -> None:
    for best in (BEST, None):
        assert ending(TrainConfig(steps=20), 20, [], best, [], 3.0) == []


def test_a_stop_by_patience_is_told_with_what_continues_it() -> None:
    train = TrainConfig(steps=1000, patience=1)
    losses = [4.0, 4.1]
    assert stop_reason(train, 30, [4.0]) is None
    assert stop_reason(train, 1000, losses) is None
    reason = stop_reason(train, 30, losses)
    assert (
        reason
        == "1 held-out evaluation in a row did not improve on the best one (train.patience=1)"
    )
    assert ending(train, 30, losses, None, [], 3.0) == [
        f"stopped at step 30 of 1,000, because {reason}; the same command with a larger train.patience "
        "trains further"
    ]


RISING = rows(
    {20: 50.0, 40: 52.0, 60: 54.0, 80: 56.0, 100: 58.0},
    {step: 60.0 - step / 4 for step in range(10, 101, 10)},
)
WARNING = (
    "the model overfits: held-out perplexity rose in 3 evaluations in a row, from 50.0 at step 20 to 56.0 at "
    "step 80, while training loss fell. The best step is kept for export; {advice}more text, a higher "
    "dropout or a smaller model helps against it"
)


@pytest.mark.parametrize("resumed", [0, 7])
@pytest.mark.parametrize(
    ("patience", "advice"), [(None, "a new run with train.patience=3 stops early, and "), (9, "")]
)
def test_overfitting_is_told_once_also_after_a_resume(
    resumed: int, patience: int | None, advice: str
) -> None:
    warnings: list[str] = []
    watch = OverfittingWatch(RISING[:resumed], patience, warnings.append)
    for row in RISING[resumed:]:
        watch.add(row)
    assert warnings == [WARNING.format(advice=advice)]


def test_a_training_whose_loss_rises_too_is_not_overfitted() -> None:
    warnings: list[str] = []
    watch = OverfittingWatch([], None, warnings.append)
    for row in RISING:
        watch.add({k: -v if k == "loss_forward" else v for k, v in row.items()})
    assert warnings == []
