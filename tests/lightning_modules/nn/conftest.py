"""Fixtures: memory that was not initialized is NaN; log-probabilities of an output layer."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

LogProb = Callable[[Any, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _uninitialized_memory_is_nan() -> Iterator[None]:
    """Let a result that depends on memory of torch.empty fail in each run, not in one of a hundred."""
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def log_prob() -> LogProb:
    """Return the log-probability of each id, (n, vocabulary), given an output layer and its input."""

    def table(head: Any, hidden: Tensor) -> Tensor:
        ids = torch.arange(head.vocabulary)
        rows = hidden.repeat_interleave(len(ids), 0)
        nll: Tensor = head.nll(rows, ids.repeat(len(hidden)))
        return -nll.view(len(hidden), len(ids))

    return table
