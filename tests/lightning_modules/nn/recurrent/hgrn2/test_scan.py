"""The recurrence of matrices in chunks against a loop over steps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.nn.recurrent.hgrn2.scan import (
    Steps,
    chunk_length,
    matrix_scan,
    matrix_scan_gradient,
)

BATCH, SIZE = 3, 4


def drawn(chunks: int, chunk: int, seed: int, zeros: float = 0.2) -> tuple[Steps, Tensor]:
    """Return steps, of which some have a decay of 0, and the first state."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64)

    shape = chunks, chunk, SIZE
    decay = numbers(*shape).sigmoid()
    decay[torch.rand(BATCH, *shape[:2], generator=generator) < zeros] = 0
    steps = Steps(numbers(*shape), numbers(*shape), decay, numbers(*shape))
    return steps, numbers(SIZE, SIZE)


def by_steps(steps: Steps, state: Tensor) -> tuple[Tensor, Tensor]:
    outputs = []
    for query, key, decay, value in zip(*(x.flatten(1, 2).unbind(1) for x in steps), strict=True):
        state = state * decay.unsqueeze(1) + value.unsqueeze(2) * key.unsqueeze(1)
        outputs.append((state @ query.unsqueeze(2)).squeeze(2))
    return torch.stack(outputs, 1).view_as(steps.value), state


@settings(deadline=None, max_examples=60)
@given(chunks=st.integers(1, 6), chunk=st.integers(1, 7), seed=st.integers(0, 1000))
def test_chunks_of_any_length_equal_steps(chunks: int, chunk: int, seed: int) -> None:
    steps, state = drawn(chunks, chunk, seed)

    torch.testing.assert_close(
        matrix_scan(steps, state), by_steps(steps, state), atol=1e-11, rtol=0
    )


@settings(deadline=None, max_examples=60)
@given(chunks=st.integers(1, 6), chunk=st.integers(1, 7), seed=st.integers(0, 1000))
def test_the_gradient_is_that_of_autograd_over_steps(chunks: int, chunk: int, seed: int) -> None:
    steps, state = drawn(chunks, chunk, seed)
    leaves = [x.requires_grad_() for x in (*steps, state)]
    outputs, after = by_steps(steps, state)
    d_outputs, d_after = torch.randn_like(outputs), torch.randn_like(after)

    expected = torch.autograd.grad((outputs, after), leaves, (d_outputs, d_after))
    with torch.no_grad():
        gradients, d_state = matrix_scan_gradient(steps, state, d_outputs, d_after)

    torch.testing.assert_close((*gradients, d_state), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("time", "size", "length"),
    [(1, 8, 1), (2, 64, 2), (20, 8, 4), (20, 64, 10), (35, 8, 6), (512, 8, 23), (20, 256, 20)],
)
def test_a_chunk_is_longer_if_a_state_is_larger(time: int, size: int, length: int) -> None:
    assert chunk_length(time, size) == length


def test_decays_whose_products_underflow_are_exact() -> None:
    steps, state = drawn(4, 8, 1)
    steps = Steps(*(x.float() for x in steps._replace(decay=steps.decay * 1e-20)))

    found = matrix_scan(steps, state.float())

    torch.testing.assert_close(found, by_steps(steps, state.float()), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        gradients, _ = matrix_scan_gradient(steps, state.float(), *found)
    assert all(gradient.isfinite().all() for gradient in gradients)
