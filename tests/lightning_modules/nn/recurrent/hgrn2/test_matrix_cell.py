"""The recurrence of HGRN2 from its gates: chunks of any length, and the C++ form."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.nn.recurrent import cell
from lightning_modules.nn.recurrent.hgrn2 import matrix_cell

CPU = torch.device("cpu")
HEADS, ROWS = 2, 3


def drawn(time: int, size: int, resets: bool, seed: int, dtype: torch.dtype) -> list[Any]:
    """Return gates, bias, bound, state, a gradient of the outputs and of the state, and keep."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator, dtype=dtype)

    hidden = HEADS * size
    state, d_state = (numbers(ROWS, HEADS, size, size) for _ in range(2))
    keep = (numbers(time, ROWS, 1) > -0.5).to(dtype) if resets else None
    gates, bound = numbers(time, ROWS, 3 * hidden), numbers(hidden).sigmoid()
    return [gates, numbers(hidden), bound, state, numbers(time, ROWS, hidden), d_state, keep]


def run(cell_: cell.Cell, arguments: list[Any], *chunk: int) -> list[Tensor]:
    """Return all results of both passes."""
    gates, bias, bound, state, d_outputs, d_state, keep = arguments
    outputs, after, d_before = torch.empty_like(d_outputs), state.clone(), d_state.clone()
    d_gates, d_bound = torch.empty_like(gates), torch.empty_like(bound)
    cell_.forward(gates, bias, bound, after, outputs, keep, *chunk)
    cell_.backward(
        gates, bias, bound, state, d_outputs, d_before, d_gates, d_bound, keep, *chunk
    )  # fmt: skip
    return [outputs, after, d_before, d_gates, d_bound]


@settings(deadline=None, max_examples=40)
@given(
    time=st.integers(1, 24), size=st.integers(1, 5), chunk=st.integers(1, 26),
    resets=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_the_length_of_a_chunk_does_not_matter(
    time: int, size: int, chunk: int, resets: bool, seed: int
) -> None:
    arguments = drawn(time, size, resets, seed, torch.float64)

    found = run(matrix_cell.EAGER, arguments, chunk)

    torch.testing.assert_close(found, run(matrix_cell.EAGER, arguments), atol=1e-10, rtol=0)


@pytest.mark.slow
def test_the_cpp_form_equals_the_eager_one() -> None:
    ops, sentence = cell.compile_cell("auto", matrix_cell, CPU, 4, 24, 0.0)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    assert ops is not matrix_cell.EAGER, sentence

    for time, size in ((1, 8), (7, 3), (20, 16), (9, 19)):
        for resets in (False, True):
            for dtype in (torch.float32, torch.float64):
                arguments = drawn(time, size, resets, time, dtype)
                theirs = run(matrix_cell.EAGER, arguments)
                torch.testing.assert_close(run(ops, arguments), theirs, atol=1e-4, rtol=1e-4)
    for rows, hidden in ((4, 24), (1, 5)):
        cell.check_cell(ops, matrix_cell, rows, hidden, 0.0, CPU, torch.bfloat16)
