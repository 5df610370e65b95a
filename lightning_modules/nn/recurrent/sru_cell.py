"""The pointwise part of an SRU layer over all steps of a window, and its gradient.

Equations are those of `lightning_modules.nn.recurrent.sru.SRULayer`. Results are written in place.
The arithmetic and the cell states are float32, or float64 with weights of that type. What lies beside a
matmul has its dtype.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_modules.nn.recurrent.cell import CPP, Cell, build_kernel
from lightning_modules.nn.recurrent.linear_scan import linear_scan, reversed_linear_scan

NAME = "SRU"
fused = None
SKIP = math.sqrt(3)
"""Factor of the highway connection; with it, a deep stack of gates of 1/2 keeps the variance of its input."""


def forward(
    gates: Tensor, bias: Tensor, x: Tensor, cells: Tensor, outputs: Tensor, keep: Tensor | None
) -> None:
    """Compute the cell states and the outputs of all steps.

    Args:
        gates: x W, (directions, time, rows, 3 * hidden).
        bias: (directions, 2 * hidden).
        x: (directions, time, rows, hidden).
        cells: c before the first step at [:, 0]; the rest is output, c' of step t at [:, t + 1],
            (directions, time + 1, rows, hidden).
        outputs: output, h', (directions, time, rows, hidden).
        keep: 0 where the state is set to zero before a step, else 1, (directions, time, rows, 1); None
            means nowhere.
    """
    candidate, forget, reset = _values(gates, bias, cells.dtype)
    decay = forget if keep is None else forget * keep
    added = candidate - forget * candidate
    cells[:, 1:] = linear_scan(decay, added, cells[:, 0])
    outputs.copy_(torch.lerp(SKIP * x.to(cells.dtype), cells[:, 1:], reset))


def backward(
    gates: Tensor,
    bias: Tensor,
    x: Tensor,
    cells: Tensor,
    d_outputs: Tensor,
    d_state: Tensor,
    d_gates: Tensor,
    d_x: Tensor,
    keep: Tensor | None,
) -> None:
    """Compute the gradients of all steps.

    Args:
        gates, bias, x, cells, keep: as in `forward`, with its results.
        d_outputs: gradient of h'.
        d_state: gradient of the state after the last step; overwritten with that of the state before
            the first one, (directions, rows, hidden).
        d_gates: output, gradient of x W.
        d_x: output, gradient of x through the highway connection.
    """
    candidate, forget, reset = _values(gates, bias, cells.dtype)
    size = candidate.shape[-1]
    decay = forget if keep is None else forget * keep
    d_cells = d_outputs * reset
    d_cells[:, -1] += d_state
    d_cells = reversed_linear_scan(decay, d_cells)
    before = cells[:, :-1] if keep is None else cells[:, :-1] * keep
    d_gates[..., :size] = d_cells * (1 - forget)
    d_gates[..., size : 2 * size] = d_cells * (before - candidate) * forget * (1 - forget)
    difference = cells[:, 1:] - SKIP * x.to(cells.dtype)
    d_gates[..., 2 * size :] = d_outputs * difference * reset * (1 - reset)
    d_x.copy_(SKIP * d_outputs * (1 - reset))
    torch.mul(decay[:, 0], d_cells[:, 0], out=d_state)


def _values(gates: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the candidate, the forget gate and the reset gate."""
    size = gates.shape[-1] // 3
    squashed = (gates[..., size:].to(dtype) + bias[:, None, None]).sigmoid_()
    forget, reset = squashed.chunk(2, -1)
    return gates[..., :size].to(dtype), forget, reset


EAGER = Cell(forward, backward)


def sample_arguments(
    step: int,
    rows: int,
    hidden: int,
    clip: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Any], list[Any]]:
    """Return arguments of `forward` and `backward`, as `CellModule` says; all numbers are in [-1, 1].

    Step 1 has resets.
    """

    def numbers(*shape: int) -> Tensor:
        return torch.linspace(-1, 1, math.prod(shape), device=device).view(shape)

    time = 3
    gates, x = (numbers(2, time, rows, n * hidden).to(dtype) for n in (3, 1))
    cells, bias, d_outputs = numbers(2, time + 1, rows, hidden), numbers(2, 2 * hidden), x.float()
    keep = None
    if step:
        keep = (numbers(2, time, rows, 1) > 0).float()
    outputs = torch.zeros_like(d_outputs), numbers(2, rows, hidden), torch.zeros_like(gates)
    return (
        [gates, bias, x, cells.clone(), outputs[0], keep],
        [gates, bias, x, cells, d_outputs, *outputs[1:], torch.zeros_like(d_outputs), keep],
    )


_ARGUMENTS = """const int64_t kept, const int64_t directions, const int64_t time, const int64_t rows,
    const int64_t size)
{
    const V one(1), skip(1.7320508075688772f);
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows; ++n) {
        const int64_t d = n / rows, row = n % rows;
        const float* of_bias = bias + d * 2 * size;
        for (int64_t k = 0; k < size; k += V::size()) {
            const int m = std::min<int64_t>(V::size(), size - k);
            auto place = [&](int64_t t) { return (d * time + t) * rows + row; };
            auto cell = [&](int64_t t) { return cells + ((d * (time + 1) + t) * rows + row) * size + k; };
            auto gate = [&](int64_t t, int64_t part) {
                return V::loadu(gates + (place(t) * 3 + part) * size + k, m);
            };
            const V bias_forget = V::loadu(of_bias + k, m), bias_reset = V::loadu(of_bias + size + k, m);
"""

_FORWARD = (
    CPP
    + """
extern "C" void kernel(
    const float* gates, const float* bias, const float* x, float* cells, float* outputs, const float* keep,
    """
    + _ARGUMENTS
    + """
            V c = V::loadu(cell(0), m);
            for (int64_t t = 0; t < time; ++t) {
                const int64_t at = place(t);
                const V factor(kept ? keep[at] : 1.f), candidate = gate(t, 0),
                    forget = sigmoid(gate(t, 1) + bias_forget), reset = sigmoid(gate(t, 2) + bias_reset),
                    highway = skip * V::loadu(x + at * size + k, m);
                c = forget * factor * c + (one - forget) * candidate;
                c.store(cell(t + 1), m);
                (highway + reset * (c - highway)).store(outputs + at * size + k, m);
            }
        }
    }
}
"""
)

_BACKWARD = (
    CPP
    + """
extern "C" void kernel(
    const float* gates, const float* bias, const float* x, const float* cells, const float* d_outputs,
    float* d_state, float* d_gates, float* d_x, const float* keep,
    """
    + _ARGUMENTS
    + """
            V d_next = V::loadu(d_state + n * size + k, m);
            for (int64_t t = time - 1; t >= 0; --t) {
                const int64_t at = place(t);
                const V factor(kept ? keep[at] : 1.f), candidate = gate(t, 0),
                    forget = sigmoid(gate(t, 1) + bias_forget), reset = sigmoid(gate(t, 2) + bias_reset),
                    highway = skip * V::loadu(x + at * size + k, m),
                    d_output = V::loadu(d_outputs + at * size + k, m), d_cell = d_output * reset + d_next,
                    before = factor * V::loadu(cell(t), m);
                float* d_gate = d_gates + at * 3 * size + k;
                (d_cell * (one - forget)).store(d_gate, m);
                (d_cell * (before - candidate) * forget * (one - forget)).store(d_gate + size, m);
                (d_output * (V::loadu(cell(t + 1), m) - highway) * reset * (one - reset))
                    .store(d_gate + 2 * size, m);
                (skip * d_output * (one - reset)).store(d_x + at * size + k, m);
                d_next = forget * factor * d_cell;
            }
            d_next.store(d_state + n * size + k, m);
        }
    }
}
"""
)


def build() -> Cell:
    """Compile the cell in C++ for float32; 16 bits are copied to it, float64 uses the eager functions."""
    sizes = ["const float*", *["const int64_t"] * 5]
    run_forward = build_kernel([*["const float*"] * 3, *["float*"] * 2, *sizes], _FORWARD)
    run_backward = build_kernel([*["const float*"] * 5, *["float*"] * 3, *sizes], _BACKWARD)

    def native_forward(
        gates: Tensor, bias: Tensor, x: Tensor, cells: Tensor, outputs: Tensor, keep: Tensor | None
    ) -> None:
        if cells.dtype == torch.float64:
            return forward(gates, bias, x, cells, outputs, keep)
        run_forward(
            gates.float(), bias, x.float(), cells, outputs, bias if keep is None else keep,
            int(keep is not None), *x.shape,
        )  # fmt: skip
        return None

    def native_backward(
        gates: Tensor,
        bias: Tensor,
        x: Tensor,
        cells: Tensor,
        d_outputs: Tensor,
        d_state: Tensor,
        d_gates: Tensor,
        d_x: Tensor,
        keep: Tensor | None,
    ) -> None:
        if cells.dtype == torch.float64:
            return backward(gates, bias, x, cells, d_outputs, d_state, d_gates, d_x, keep)
        wide = d_gates.float()  # itself, if it is float32
        run_backward(
            gates.float(), bias, x.float(), cells, d_outputs, d_state, wide, d_x,
            bias if keep is None else keep, int(keep is not None), *x.shape,
        )  # fmt: skip
        if wide is not d_gates:
            d_gates.copy_(wide)
        return None

    return Cell(native_forward, native_backward)
