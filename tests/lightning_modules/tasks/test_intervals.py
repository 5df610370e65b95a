"""Bootstrap intervals."""

import math

import numpy as np

from lightning_modules.tasks.intervals import Indices, bootstrap_intervals


def test_an_interval_of_an_accuracy_is_as_wide_as_its_standard_error_says() -> None:
    right = np.arange(400) < 300
    found = bootstrap_intervals(lambda picked: {"accuracy": float(right[picked].mean())}, 400)
    value, low, high = found["accuracy"]
    error = math.sqrt(0.75 * 0.25 / 400)
    assert value == 0.75
    np.testing.assert_allclose([low, high], [0.75 - 1.96 * error, 0.75 + 1.96 * error], atol=0.005)


def test_equal_seeds_draw_equal_examples() -> None:
    right = np.arange(50) % 3 == 0

    def score(picked: Indices) -> dict[str, float]:
        return {"accuracy": float(right[picked].mean())}

    assert bootstrap_intervals(score, 50) == bootstrap_intervals(score, 50)
    assert bootstrap_intervals(score, 50) != bootstrap_intervals(score, 50, seed=1)


def test_a_score_that_is_defined_on_no_resample_has_no_bounds() -> None:
    found = bootstrap_intervals(lambda _: {"r": float("nan")}, 3, resamples=5)["r"]
    assert all(map(math.isnan, found))
