"""Linear recurrences in blocks against a loop over steps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.nn.recurrent.linear_scan import (
    block_length,
    linear_scan,
    reversed_linear_scan,
)


def drawn(time: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Return decays, of which some are 0 or 1, what is added, and the first state."""
    generator = torch.Generator().manual_seed(seed)
    decay = (2 * torch.rand(2, time, 3, 4, generator=generator, dtype=dtype) - 0.5).clamp(0, 1)
    added = torch.randn(2, time, 3, 4, generator=generator, dtype=dtype)
    return decay, added, torch.randn(2, 3, 4, generator=generator, dtype=dtype)


def by_steps(decay: Tensor, added: Tensor, state: Tensor) -> Tensor:
    steps = []
    for a, b in zip(decay.unbind(1), added.unbind(1), strict=True):
        state = a * state + b
        steps.append(state)
    return torch.stack(steps, 1)


@settings(deadline=None, max_examples=60)
@given(
    time=st.integers(1, 40), block=st.none() | st.integers(1, 45), seed=st.integers(0, 1000)
)  # fmt: skip
def test_blocks_of_any_length_equal_steps(time: int, block: int | None, seed: int) -> None:
    decay, added, state = drawn(time, seed)

    torch.testing.assert_close(
        linear_scan(decay, added, state, block), by_steps(decay, added, state), atol=1e-12, rtol=0
    )


@settings(deadline=None, max_examples=40)
@given(
    time=st.integers(1, 30), block=st.none() | st.integers(1, 35), seed=st.integers(0, 1000)
)  # fmt: skip
def test_the_reversed_recurrence_is_the_gradient(time: int, block: int | None, seed: int) -> None:
    decay, added, state = drawn(time, seed)
    result = by_steps(decay, added.requires_grad_(), state)
    weights = torch.randn(result.shape, dtype=result.dtype)

    [expected] = torch.autograd.grad((result * weights).sum(), added)

    torch.testing.assert_close(
        reversed_linear_scan(decay, weights, block), expected, atol=1e-12, rtol=0
    )


def test_decays_whose_products_underflow_are_exact() -> None:
    decay, added, state = drawn(64, 1, torch.float32)
    decay = decay * 1e-20

    torch.testing.assert_close(linear_scan(decay, added, state), by_steps(decay, added, state))


@pytest.mark.parametrize(("time", "length"), [(1, 1), (2, 2), (20, 5), (32, 6), (512, 23)])
def test_a_block_has_about_as_many_steps_as_there_are_blocks(time: int, length: int) -> None:
    assert block_length(time) == length
