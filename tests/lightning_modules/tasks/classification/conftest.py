"""Labelled examples that a linear head can learn."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@pytest.fixture(scope="session")
def blobs() -> Callable[[int, int, int], Arrays]:
    """A function that returns ``n`` points around one centre for each of ``k`` labels."""

    def make(n: int, k: int, width: int) -> Arrays:
        draw = np.random.default_rng(7)
        labels = draw.integers(0, k, n)
        centres = 2 * draw.normal(size=(k, width))
        return (centres[labels] + draw.normal(size=(n, width))).astype(np.float32), labels

    return make
