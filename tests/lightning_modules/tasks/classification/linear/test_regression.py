"""Linear heads are those of scikit-learn, on features as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.linear import regression as linear
from lightning_modules.tasks.classification.linear.mix import fit_mix
from lightning_modules.tasks.classification.linear.regression import (
    decide,
    fit_linear,
    prior_of,
    probabilities,
)

Blobs = Callable[[int, int, int], Any]


@pytest.fixture
def blobs() -> Blobs:
    """A function that returns ``n`` points around one centre for each of ``k`` labels."""

    def make(n: int, k: int, width: int) -> Any:
        draw = np.random.default_rng(7)
        labels = draw.integers(0, k, n)
        centres = 2 * draw.normal(size=(k, width))
        return (centres[labels] + draw.normal(size=(n, width))).astype(np.float32), labels

    return make


def problem(k: int) -> Problem:
    return Problem("single", tuple(f"label {n}" for n in range(k)))


def test_a_probability_of_zero_is_no_warning() -> None:
    x = np.repeat([[-1.0], [1.0]], 50, axis=0).astype(np.float32)
    y = np.repeat([0, 1], 50)
    x[0], y[0] = -1e6, 1
    found = [linear.best_strength(x, y, "none", seed, (1.0, 10.0)) for seed in range(9)]
    assert {*found} <= {1.0, 10.0}


@pytest.mark.parametrize("k", [2, 4])
def test_logistic_regression_equals_that_of_scikit_learn(blobs: Blobs, k: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = blobs(300, k, 5)
    x *= np.array([1, 10, 0.1, 1, 1], np.float32)
    found = fit_linear(x, y, problem(k), "none", seed=1)
    assert found.strength in linear.STRENGTHS
    other = make_pipeline(StandardScaler(), LogisticRegression(C=found.strength, max_iter=200))
    expected = other.fit(x, y).predict_proba(x)
    np.testing.assert_allclose(probabilities(found.outputs(x), problem(k)), expected, atol=2e-3)
    assert (decide(expected, problem(k)) == y).mean() > 0.9


def test_a_label_without_texts_is_never_predicted(blobs: Blobs) -> None:
    x, y = blobs(100, 2, 5)
    found = fit_linear(x, 2 * y, problem(3), "none", seed=1)
    assert probabilities(found.outputs(x), problem(3))[:, 1].max() < 1e-6


def test_an_output_depends_on_its_row_alone(blobs: Blobs) -> None:
    x, y = blobs(50, 3, 17)
    found = fit_linear(x, y, problem(3), "none", seed=1)
    whole = found.outputs(x)
    for row in range(50):
        assert (found.outputs(x[row : row + 1])[0] == whole[row]).all()


def test_balanced_weights_let_a_rare_label_be_found_more_often(blobs: Blobs) -> None:
    draw = np.random.default_rng(0)
    y = (draw.random(2000) < 0.05).astype(np.int64)
    x = (draw.normal(size=(2000, 3)) + y[:, None]).astype(np.float32)
    counts = [
        int(fit_linear(x, y, problem(2), weights, 1).outputs(x).argmax(1).sum())
        for weights in ("none", "balanced")
    ]
    assert counts[1] > 2 * counts[0]


def test_the_discriminant_of_many_labels_separates_them(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "MANY", 10)
    x, y = blobs(600, 20, 12)
    found = fit_linear(x, y, problem(20), "none", seed=1)
    assert found.method == "linear discriminant analysis"
    shares = probabilities(found.outputs(x), problem(20))
    assert (shares.argmax(1) == y).mean() > 0.9
    np.testing.assert_allclose(shares.sum(1), 1)
    mixed = fit_mix(np.stack([x, x], 1), y, problem(20), "balanced", seed=1)
    assert (mixed.outputs(np.concatenate([x, x], 1)).argmax(1) == y).mean() > 0.9


def test_each_of_several_labels_has_a_logistic_regression(blobs: Blobs) -> None:
    x, y = blobs(300, 4, 6)
    flags = np.zeros((300, 5), np.bool_)
    flags[np.arange(300), y] = True
    flags[:, 1] |= y == 0
    flags[:, 3] = False  # no text has the label
    several = Problem("several", tuple("abcd"))
    found = decide(
        probabilities(fit_linear(x, flags, several, "none", 1).outputs(x), several), several
    )
    assert (found == flags).mean() > 0.95
    assert not found[:, 3].any()


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_discriminants_of_many_labels_find_each_of_them(
    weights: Any, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "MANY", 10)
    x, y = blobs(600, 20, 30)
    flags = np.zeros((600, 24), np.bool_)
    flags[np.arange(600), y] = True
    flags[:, 20] = y < 4
    flags[:, 21] = True
    several = Problem("several", tuple(f"label {n}" for n in range(23)))
    found = fit_linear(x, flags, several, weights, 1)
    assert found.method == "linear discriminant analysis"
    shares = probabilities(found.outputs(x), several)
    decided = decide(shares, several)
    assert (decided[:, :21] == flags[:, :21]).mean() > 0.98
    assert decided[:, 21].all()
    assert not decided[:, 22].any(), "no text has the label"


def test_a_discriminant_of_two_normal_distributions_has_their_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log odds of N(m, 1) with the share p against N(-m, 1) are 2 m x + log(p / (1 - p))."""
    monkeypatch.setattr(linear, "MANY", 10)
    draw = np.random.default_rng(0)
    has = draw.random(200_000) < 0.01
    x = (draw.normal(size=(200_000, 1)) + np.where(has, 0.5, -0.5)[:, None]).astype(np.float32)
    flags = np.stack([has, np.zeros_like(has)], 1)
    found = fit_linear(x, flags, Problem("several", ("rare",)), "none", 1)
    points = np.array([[-1.0], [0.0], [2.0]], np.float32)
    expected = points + np.log(0.01 / 0.99)
    np.testing.assert_allclose(found.outputs(points), expected, atol=0.1)


def test_ridge_regression_predicts_numbers() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 4)).astype(np.float32)
    y = x @ [1.0, -2.0, 0.0, 3.0] + 100
    number = Problem("number", ())
    found = fit_linear(x, y, number, "none", 1)
    assert found.method == "ridge regression"
    np.testing.assert_allclose(decide(found.outputs(x), number), y, atol=0.2)


@pytest.mark.parametrize("target", ["single", "several", "number"])
def test_the_mix_finds_the_layer_that_tells_the_labels_apart(blobs: Blobs, target: Any) -> None:
    x, y = blobs(400, 3, 6)
    noise = np.random.default_rng(1).normal(size=(2, 400, 6)).astype(np.float32)
    layers = np.stack([noise[0], x, noise[1]], 1)
    truth: Any = y
    if target == "several":
        truth = np.zeros((400, 4), np.bool_)
        truth[np.arange(400), y] = True
    elif target == "number":
        truth = x.sum(1).astype(np.float64)
    task = Problem(target, () if target == "number" else ("a", "b", "c"))
    found = fit_mix(layers, truth, task, "balanced" if target != "number" else "none", 1)
    assert found.mix is not None
    assert found.mix.argmax() == 1
    assert found.mix[1] > 0.6
    np.testing.assert_allclose(found.mix.sum(), 1)
    predicted = decide(probabilities(found.outputs(layers.reshape(400, -1)), task), task)
    if target == "number":
        assert np.corrcoef(predicted, truth)[0, 1] > 0.95
    else:
        assert (predicted == truth).mean() > 0.9


def test_the_prediction_for_an_empty_text_is_the_share_of_each_label() -> None:
    assert prior_of(np.array([0, 0, 1, 0]), problem(2)).tolist() == [0.75, 0.25]
    assert prior_of(np.array([1.0, 2.0]), Problem("number", ())).tolist() == [1.5]
    flags = np.array([[True, False, False], [True, True, False]])
    assert prior_of(flags, Problem("several", ("a", "b"))).tolist() == [1.0, 0.5]


def test_training_on_one_text_of_each_label_needs_no_choice(blobs: Blobs) -> None:
    x, _ = blobs(2, 2, 3)
    found = fit_linear(x, np.array([0, 1]), problem(2), "none", 1)
    assert found.outputs(x).argmax(1).tolist() == [0, 1]
