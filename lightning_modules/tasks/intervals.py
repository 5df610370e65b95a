"""95 % intervals of scores by the bootstrap over test examples."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
LOW, HIGH = 2.5, 97.5
"""Percentiles that bound an interval."""

Indices = npt.NDArray[np.int64]
Statistic = Callable[[Indices], Mapping[str, float]]


class Interval(NamedTuple):
    """A score and its 95 % interval; a bound is NaN if the score is not defined on the resamples."""

    value: float
    low: float
    high: float


def bootstrap_intervals(
    statistic: Statistic, examples: int, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Interval]:
    """Return the scores of a test set, each with its percentile bootstrap interval.

    The examples are drawn with replacement, because the interval shall show how much a score depends
    on which examples the test set happens to have. To pool several trainings, let ``statistic``
    return the mean of their scores on the same examples.

    Args:
        statistic: takes the indices of the drawn examples, int64 (examples,), and returns scores by
            name. It is called once with each example once, for the values.
        examples: number of test examples, at least 1.
        seed: seed of the draws. Equal seeds draw equal examples, so that two models can be compared.
        resamples: number of draws.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    assert examples > 0, "an interval needs an example"
    values = statistic(np.arange(examples))
    draw = np.random.default_rng(seed)
    drawn = {name: np.empty(resamples) for name in values}
    for number in range(resamples):
        for name, value in statistic(draw.integers(0, examples, examples)).items():
            drawn[name][number] = value
    return {name: Interval(value, *_bounds(drawn[name])) for name, value in values.items()}


def _bounds(drawn: npt.NDArray[np.float64]) -> tuple[float, float]:
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [LOW, HIGH])
    return float(low), float(high)
