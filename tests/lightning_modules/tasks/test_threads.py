"""One thread for small products, as before after them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn

from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.linear import regression
from lightning_modules.tasks.threads import (
    embedding_threads,
    is_small,
    module_threads,
    threads_for,
)
from tests.exportable_models import make_model


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with threadpool_limits(3, "blas"):
        yield
    torch.set_num_threads(before)


def threads() -> set[int]:
    blas = {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
    return {torch.get_num_threads()} | blas


def test_small_products_have_one_thread_and_the_number_is_restored() -> None:
    with threads_for(1000, 10, blas=True):
        assert threads() == {1}
    with pytest.raises(KeyError), threads_for(1000, 10, blas=True):
        raise KeyError
    assert threads() == {3}
    with threads_for(1000, 10):
        assert threads() == {1, 3}


def test_large_products_keep_their_threads() -> None:
    with threads_for(1 << 24, 1 << 10, blas=True):
        assert threads() == {3}
    # Many vectors, or a matrix that is read from memory.
    assert [is_small(1 << 16, 1 << 4), is_small(1 << 16, 1 << 12), is_small(1 << 24, 1)] == [
        *(True, False, False)
    ]


def test_a_convolution_multiplies_all_units_at_once() -> None:
    cnn = nn.Sequential(nn.Conv1d(128, 256, 5), nn.Linear(256, 2))
    with module_threads(cnn, 32, 40):
        assert torch.get_num_threads() == 3
    with module_threads(nn.LSTM(128, 64), 32, 40):
        assert torch.get_num_threads() == 1


def test_a_linear_head_is_fitted_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    found: set[int] = set()
    fit = LogisticRegression.fit

    def watched(self: LogisticRegression, *data: object) -> LogisticRegression:
        found.update(threads())
        return fit(self, *data)

    monkeypatch.setattr(LogisticRegression, "fit", watched)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    problem = Problem("single", ("a", "b"))
    regression.fit_linear(x, (x[:, 0] > 0).astype(np.int64), problem, "none", 1)
    assert found == {1}


def test_a_model_without_recurrent_layers_has_no_large_product() -> None:
    with embedding_threads(make_model("static"), 1 << 20):
        assert torch.get_num_threads() == 1
