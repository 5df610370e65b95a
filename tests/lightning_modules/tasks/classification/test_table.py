"""Rows of the table: pooled scores, and differences on the same draws."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import f1_score

from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.table import (
    cells,
    difference,
    rows_by_label,
    score_row,
)

SINGLE = Problem("single", ("a", "b"))
TRUTH = np.array([0, 1] * 100)


def wrong(count: int) -> npt.NDArray[np.int64]:
    found = TRUTH.copy()
    found[:count] = 1 - found[:count]
    return found


def test_scores_of_several_trainings_are_pooled() -> None:
    row = score_row("head", TRUTH, [wrong(20), wrong(40)], SINGLE)
    value, low, high = row.scores["accuracy"]
    assert round(value, 6) == 0.85
    assert low < 0.85 < high
    assert row.as_json()["seeds"] == 2
    assert cells(row, "single")[1].startswith("85.0 [")


def test_unknown_labels_count_as_wrong_as_in_scikit_learn() -> None:
    truth, predicted = np.array([0, 2, 3, 1]), np.array([0, 1, 1, 1])
    row = score_row("head", truth, [predicted], SINGLE)
    assert row.scores["accuracy"].value == 0.5
    assert row.scores["macro_f1"].value == f1_score(truth, predicted, average="macro")
    assert [one["examples"] for one in rows_by_label(row, truth, SINGLE)] == [1, 1]
    several = Problem("several", ("a", "b"))
    flags, found = np.eye(4, dtype=bool)[truth], np.eye(3, dtype=bool)[predicted]
    row = score_row("head", flags, [found], several)
    wide = np.eye(4, dtype=bool)[predicted]
    assert row.scores["macro_f1"].value == f1_score(flags, wide, average="macro")
    assert row.scores["micro_f1"].value == f1_score(flags, wide, average="micro")
    assert len(rows_by_label(row, flags, several)) == 2


def test_a_difference_is_judged_on_the_same_draws() -> None:
    one, other = (score_row("", TRUTH, [wrong(count)], SINGLE) for count in (30, 40))
    value, low, high = difference(one, other, TRUTH, SINGLE)
    assert round(value, 6) == 0.05
    # The accuracies overlap, and still the difference is certain.
    assert one.scores["accuracy"].low < other.scores["accuracy"].high
    assert 0 < low < high
    assert difference(one, one, TRUTH, SINGLE) == (0, 0, 0)


def test_a_score_that_is_not_defined_is_a_dash() -> None:
    truth = np.arange(10.0)
    row = score_row("mean", truth, [np.full(10, 4.5)], Problem("number", ()))
    assert cells(row, "number")[1] == "-"
    assert cells(row, "number")[3].startswith("8.2500 [")
    assert rows_by_label(row, truth, Problem("number", ())) == []
