"""A fixture for tests of output layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

LogProb = Callable[[Any, Tensor], Tensor]


@pytest.fixture(scope="session")
def log_prob() -> LogProb:
    """Return the log-probability of each id, (n, vocabulary), given an output layer and its input."""

    def table(head: Any, hidden: Tensor) -> Tensor:
        ids = torch.arange(head.vocabulary)
        rows = hidden.repeat_interleave(len(ids), 0)
        nll: Tensor = head.nll(rows, ids.repeat(len(hidden)))
        return -nll.view(len(hidden), len(ids))

    return table
