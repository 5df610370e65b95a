"""Scores equal scikit-learn's."""

import warnings

import numpy as np
import pytest
from sklearn import metrics

from lightning_modules.tasks.scores import by_label, label_scores, label_set_scores, number_scores


@pytest.mark.parametrize("labels", [2, 5, 60])
def test_scores_of_one_label_equal_those_of_scikit_learn(labels: int) -> None:
    draw = np.random.default_rng(labels)
    truth, predicted = draw.integers(0, labels, (2, 40))
    assert label_scores(truth, predicted, labels) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, predicted),
            "macro_f1": metrics.f1_score(truth, predicted, average="macro"),
        }
    )


def test_scores_of_several_labels_equal_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    truth, predicted = draw.random((2, 30, 4)) < 0.4
    scores = {name: metrics.f1_score(truth, predicted, average=name) for name in ("micro", "macro")}
    assert label_set_scores(truth, predicted) == pytest.approx(
        {
            "micro_f1": scores["micro"],
            "macro_f1": scores["macro"],
            "exact_match": metrics.accuracy_score(truth, predicted),
        }
    )
    columns = metrics.precision_recall_fscore_support(truth, predicted)
    for found, *expected in zip(by_label(truth, predicted), *columns, strict=True):
        assert [*found.values()] == pytest.approx(expected)


def test_no_true_and_no_predicted_label_scores_zero() -> None:
    none = np.zeros((3, 2), np.bool_)
    assert label_set_scores(none, none) == {"micro_f1": 0, "macro_f1": 0, "exact_match": 1}
    assert by_label(none, none)[0] == {"precision": 0, "recall": 0, "f1": 0, "examples": 0}


def test_scores_of_numbers_equal_those_of_scipy() -> None:
    from scipy import stats

    draw = np.random.default_rng(0)
    truth = draw.normal(size=50).round(1)
    predicted = truth + draw.normal(size=50).round(1)
    assert number_scores(truth, predicted) == pytest.approx(
        {
            "pearson": stats.pearsonr(truth, predicted).statistic,
            "spearman": stats.spearmanr(truth, predicted).statistic,
            "mse": metrics.mean_squared_error(truth, predicted),
        }
    )


def test_a_correlation_with_equal_numbers_is_not_a_number() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = number_scores(np.zeros(3), np.arange(3.0))
    assert np.isnan(found["pearson"])
    assert np.isnan(found["spearman"])
