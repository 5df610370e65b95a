"""The table of a classifier: its scores and those of its baselines, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.classification.examples import Problem, Truth
from lightning_modules.tasks.intervals import Indices, Interval, bootstrap_intervals
from lightning_modules.tasks.scores import by_label, label_scores, label_set_scores, number_scores
from preprocess.reading.labelled.examples import Target

COLUMNS: dict[Target, dict[str, str]] = {
    "single": {"accuracy": "accuracy", "macro_f1": "macro-F1"},
    "several": {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "exact_match": "exact match"},
    "number": {"pearson": "Pearson", "spearman": "Spearman", "mse": "mean squared error"},
}
"""Scores of each target with their names; the first one decides."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: what was scored.
        scores: its scores, with intervals.
        predicted: predictions for the dev examples, one array for each training, in the form of
            `Problem.truth`.
    """

    name: str
    scores: dict[str, Interval]
    predicted: tuple[Truth, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the name, the scores and the number of trainings."""
        scores = {name: interval._asdict() for name, interval in self.scores.items()}
        return {"name": self.name, "scores": scores, "seeds": len(self.predicted)}


def scores_of(truth: Truth, predicted: Truth, problem: Problem) -> dict[str, float]:
    """Return the scores of predictions, by the names in `COLUMNS`."""
    if problem.target == "number":
        return number_scores(truth, predicted)
    if problem.target == "several":
        return label_set_scores(truth, _widened(predicted, truth.shape[1]))
    return label_scores(truth, predicted, len(problem.labels))


def score_row(name: str, truth: Truth, predicted: Sequence[Truth], problem: Problem) -> Row:
    """Score predictions of one or more trainings; the scores are pooled over them.

    Args:
        name: name of the row.
        truth: the true labels of the dev examples.
        predicted: the predictions of each training.
        problem: what is predicted.
    """

    def statistic(picked: Indices) -> dict[str, float]:
        return _pooled(truth, predicted, problem, picked)

    return Row(name, bootstrap_intervals(statistic, len(truth)), tuple(predicted))


def difference(row: Row, other: Row, truth: Truth, problem: Problem) -> Interval:
    """Return how much the first score of one row is above that of another, with its interval.

    Both are scored on the same draws of examples, so that the interval is narrower than those of the
    rows suggest.
    """
    [first, *_] = COLUMNS[problem.target]

    def statistic(picked: Indices) -> dict[str, float]:
        one, two = (_pooled(truth, each.predicted, problem, picked)[first] for each in (row, other))
        return {first: one - two}

    return bootstrap_intervals(statistic, len(truth))[first]


def rows_by_label(row: Row, truth: Truth, problem: Problem) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and number of true examples of each label, for the first training."""
    if problem.target == "number":
        return []
    k = len(problem.labels)
    sides = [_flags(labels, k) for labels in (truth, row.predicted[0])]
    found = by_label(*sides)
    return [{"label": label, **one} for label, one in zip(problem.labels, found, strict=True)]


def _flags(labels: Truth, k: int) -> npt.NDArray[np.bool_]:
    if labels.ndim == 2:
        return labels[:, :k]
    return np.equal(labels[:, None], np.arange(k))


def _widened(flags: Truth, width: int) -> Truth:
    """Return flags with a column for each unknown label; unknown labels are never predicted."""
    return np.pad(flags, ((0, 0), (0, width - flags.shape[1])))


def _pooled(
    truth: Truth, predicted: Sequence[Truth], problem: Problem, picked: Indices
) -> dict[str, float]:
    scores = [scores_of(truth[picked], one[picked], problem) for one in predicted]
    return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


def cells(row: Row, target: Target) -> list[str]:
    """Return the cells of a row: its name, and each score with its interval, in per cent if it is a share."""
    found = [row.name]
    for name in COLUMNS[target]:
        score = row.scores[name]
        scale, digits = (1, 4) if target == "number" else (100, 1)
        if np.isfinite(score).all():
            low, high = (f"{scale * bound:.{digits}f}" for bound in (score.low, score.high))
            found.append(f"{scale * score.value:.{digits}f} [{low}, {high}]")
        else:
            found.append("-")
    return found
