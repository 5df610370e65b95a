"""The recurrence of an HGRN2 layer over all steps of a window, from its gates, and its gradient.

Equations are those of `lightning_modules.nn.recurrent.hgrn2.layer.HGRN2Layer`. Results are written in place.
The arithmetic and the states are float32, or float64 with weights of that type. The gates have the
dtype of the matmul that makes them.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.nn.recurrent.cell import Cell
from lightning_modules.nn.recurrent.hgrn2 import native
from lightning_modules.nn.recurrent.hgrn2.scan import (
    Steps,
    chunk_length,
    matrix_scan,
    matrix_scan_gradient,
)

NAME = "HGRN2"
fused = None


def forward(
    gates: Tensor,
    bias: Tensor,
    bound: Tensor,
    state: Tensor,
    outputs: Tensor,
    keep: Tensor | None,
    chunk: int | None = None,
) -> None:
    """Compute the outputs of all steps and the state after the last one.

    Args:
        gates: x W_input, (directions, time, rows, 3 * hidden).
        bias: bias of the forget gates, (directions, hidden).
        bound: lower bound of the forget gates, from 0 to 1, (directions, hidden).
        state: S before the first step; overwritten with that after the last one, (directions, rows,
            heads, expansion, expansion).
        outputs: output, y, (directions, time, rows, hidden).
        keep: 0 where the state is set to zero before a step, else 1, (directions, time, rows, 1); None
            means nowhere.
        chunk: steps of a chunk; None means `chunk_length`.
    """
    time, size = outputs.shape[1], state.shape[-1]
    chunk = chunk or chunk_length(time, size)
    steps = _values(gates, bias, bound, keep, state.dtype).steps(size, chunk)
    y, after = matrix_scan(steps, state.flatten(0, 2))
    outputs.copy_(_from_chunks(y, outputs))
    state.copy_(after.view_as(state))


def backward(
    gates: Tensor,
    bias: Tensor,
    bound: Tensor,
    state: Tensor,
    d_outputs: Tensor,
    d_state: Tensor,
    d_gates: Tensor,
    d_bound: Tensor,
    keep: Tensor | None,
    chunk: int | None = None,
) -> None:
    """Compute the gradients of all steps.

    Args:
        gates, bias, bound, keep, chunk: as in `forward`.
        state: S before the first step.
        d_outputs: gradient of y.
        d_state: gradient of the state after the last step; overwritten with that of ``state``.
        d_gates: output, gradient of x W_input.
        d_bound: output, gradient of ``bound``.
    """
    time, size = d_outputs.shape[1], state.shape[-1]
    values = _values(gates, bias, bound, keep, state.dtype)
    chunk = chunk or chunk_length(time, size)
    gradients, d_before = matrix_scan_gradient(
        values.steps(size, chunk),
        state.flatten(0, 2),
        _chunks(d_outputs, size, chunk),
        d_state.flatten(0, 2),
    )
    d_query, d_key, d_decay, d_value = (_from_chunks(x, d_outputs) for x in gradients)
    d_forget = (d_decay if keep is None else d_decay * keep) - d_key
    query, forget, value = d_gates.chunk(3, -1)
    summed, squashed, hidden = values.summed, values.squashed, d_outputs.shape[-1]
    gate = summed[..., :hidden].sigmoid()
    query.copy_(d_query * gate * (1 + summed[..., :hidden] * (1 - gate)))
    forget.copy_(d_forget * (1 - bound[:, None, None]) * squashed * (1 - squashed))
    value.copy_(d_value)
    d_bound.copy_((d_forget * (1 - squashed)).sum((1, 2)))
    d_state.copy_(d_before.view_as(d_state))


class _Values(NamedTuple):
    """The gates of all steps.

    Attributes:
        summed: x W_input, (directions, time, rows, 3 * hidden).
        squashed: sigmoid of the forget gates' sums; this and the rest are (directions, time, rows,
            hidden).
        forget: the forget gates, at least ``bound``.
        decay: the forget gates, and 0 where the state is reset.
    """

    summed: Tensor
    squashed: Tensor
    forget: Tensor
    decay: Tensor

    def steps(self, size: int, chunk: int) -> Steps:
        """Return what `matrix_scan` reads, for heads of ``size`` keys and values."""
        query, _, value = self.summed.chunk(3, -1)
        parts = (F.silu(query), 1 - self.forget, self.decay, value)
        # What is after the end adds nothing to the state, and keeps it.
        fill = (0.0, 0.0, 1.0, 0.0)
        return Steps(*(_chunks(x, size, chunk, y) for x, y in zip(parts, fill, strict=True)))


def _values(
    gates: Tensor, bias: Tensor, bound: Tensor, keep: Tensor | None, dtype: torch.dtype
) -> _Values:
    summed = gates.to(dtype)
    squashed = (summed.chunk(3, -1)[1] + bias[:, None, None]).sigmoid_()
    forget = torch.lerp(squashed, torch.ones_like(squashed), bound[:, None, None])
    return _Values(summed, squashed, forget, forget if keep is None else forget * keep)


def _chunks(x: Tensor, size: int, chunk: int, fill: float = 0.0) -> Tensor:
    """Convert (directions, time, rows, hidden) to (B, N, C, size), as `scan` has them."""
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % chunk), value=fill)
    directions, time, rows, hidden = x.shape
    parts = x.reshape(directions, time // chunk, chunk, rows, hidden // size, size)
    return parts.permute(0, 3, 4, 1, 2, 5).reshape(-1, time // chunk, chunk, size)


def _from_chunks(x: Tensor, like: Tensor) -> Tensor:
    """Undo `_chunks`, for the shape of ``like``."""
    directions, time, rows, _ = like.shape
    _, chunks, chunk, size = x.shape
    parts = x.view(directions, rows, -1, chunks, chunk, size)
    return parts.permute(0, 3, 4, 1, 2, 5).reshape(directions, -1, rows, like.shape[-1])[:, :time]


EAGER = Cell(forward, backward)


def build() -> Cell:
    """Compile the cell in C++ for float32; float64 uses the eager functions."""
    return native.build(EAGER)


def sample_arguments(
    step: int,
    rows: int,
    hidden: int,
    clip: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Any], list[Any]]:
    """Return arguments of `forward` and `backward`, as `CellModule` says; all numbers are in [-1, 1].

    Heads are of the largest size up to 8. Step 1 has resets.
    """

    def numbers(*shape: int) -> Tensor:
        return torch.linspace(-1, 1, math.prod(shape), device=device).view(shape)

    time, size = 3, math.gcd(hidden, 8)
    gates = numbers(2, time, rows, 3 * hidden).to(dtype)
    bias, bound = numbers(2, hidden), numbers(2, hidden).abs()
    state = numbers(2, rows, hidden // size, size, size)
    outputs = torch.zeros(2, time, rows, hidden, device=device)
    keep = (numbers(2, time, rows, 1) > 0).float() if step else None
    return (
        [gates, bias, bound, state.clone(), outputs, keep],
        [gates, bias, bound, state, numbers(2, time, rows, hidden), state.flip(0),
         torch.zeros_like(gates), torch.zeros_like(bound), keep],
    )  # fmt: skip
