"""The pointwise part of an LSTM step and its gradient.

Tensors are (directions, rows, hidden), or (directions, rows, 4 * hidden) for the gates input, forget,
cell input and output (i, f, g, o). The last two dimensions of each argument are contiguous. Results
are written in place.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_modules.nn.recurrent.cell import CPP, Cell, build_kernel

NAME = "LSTM"


def forward(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    before: Tensor,
    after: Tensor,
    squashed: Tensor,
    clip: float,
) -> None:
    """Compute the gates, the next cell state and the output before projection.

    Args:
        gates: x W_input; overwritten with the values of the gates.
        recurrent: h W_hidden.
        bias: (directions, 4 * hidden).
        before: c.
        after: output, c', clipped to [-clip, clip].
        squashed: output, sigmoid(o) tanh(c').
        clip: bound of c', inf for none.
    """
    gates.add_(recurrent).add_(bias.unsqueeze(1))
    i, f, g, o = gates.chunk(4, -1)
    gates[..., : 2 * i.shape[-1]].sigmoid_()  # i and f
    g.tanh_()
    o.sigmoid_()
    after.copy_(f).mul_(before).addcmul_(i, g)
    if clip < torch.inf:
        after.clamp_(-clip, clip)
    squashed.copy_(after).tanh_().mul_(o)


def backward(
    gates: Tensor, before: Tensor, after: Tensor, d_squashed: Tensor, d_cell: Tensor, clip: float
) -> None:
    """Compute the gradients of a step.

    Args:
        gates: values from `forward`; overwritten with the gradient before the nonlinearities.
        before: c.
        after: c'.
        d_squashed: gradient of sigmoid(o) tanh(c').
        d_cell: gradient of c'; overwritten with that of c.
        clip: bound of c', inf for none.
    """
    i, f, g, o = gates.chunk(4, -1)
    tanh = after.tanh()
    d_cell.addcmul_(d_squashed * o, 1 - tanh * tanh)
    if clip < torch.inf:
        d_cell.mul_(after.abs() < clip)
    o.mul_(1 - o).mul_(d_squashed * tanh)
    d_before = d_cell * f
    f.mul_(1 - f).mul_(d_cell * before)
    d_i = d_cell * g * (i * (1 - i))
    g.copy_(d_cell * i * (1 - g * g))
    i.copy_(d_i)
    d_cell.copy_(d_before)


EAGER = Cell(forward, backward)


def sample_arguments(
    step: int, rows: int, hidden: int, clip: float, device: torch.device
) -> tuple[list[Any], list[Any]]:
    """Return arguments of `forward` and `backward`, as `CellModule` says; all numbers are in [-1, 1]."""

    def numbers(*shape: int) -> Tensor:
        return torch.linspace(-1, 1, math.prod(shape), device=device).view(shape)

    def gates() -> Tensor:
        return numbers(2, 3, rows, 4 * hidden)[:, step]

    cells = numbers(5, 2, rows, hidden)
    before, after = cells[step + 1], cells[step + 2]
    recurrent, bias = numbers(2, rows, 4 * hidden), numbers(2, 4 * hidden)
    squashed = numbers(2, 3, rows, hidden)[:, step]
    d_squashed, d_cell = numbers(2, rows, hidden), numbers(2, rows, hidden)
    return (
        [gates(), recurrent, bias, before, after, squashed, clip],
        [gates(), before, after, d_squashed, d_cell, clip],
    )


_FORWARD = (
    CPP
    + """
extern "C" void kernel(
    float* gates, const float* recurrent, const float* bias, const float* before, float* after,
    float* squashed, const float clip, const int64_t directions, const int64_t rows,
    const int64_t size, const int64_t gates_stride, const int64_t squashed_stride)
{
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows; ++n) {
        const int64_t d = n / rows, row = n % rows;
        float* gate = gates + d * gates_stride + row * 4 * size;
        const float* from_state = recurrent + n * 4 * size;
        const float* of_bias = bias + d * 4 * size;
        float* squash = squashed + d * squashed_stride + row * size;
        for (int64_t k = 0; k < size; k += V::size()) {
            const int m = std::min<int64_t>(V::size(), size - k);
            auto sum = [&](int64_t part) {
                const int64_t at = part * size + k;
                return V::loadu(gate + at, m) + V::loadu(from_state + at, m)
                    + V::loadu(of_bias + at, m);
            };
            const V i = sigmoid(sum(0)), f = sigmoid(sum(1)), g = sum(2).tanh(), o = sigmoid(sum(3));
            V c = f * V::loadu(before + n * size + k, m) + i * g;
            c = at::vec::clamp(c, V(-clip), V(clip));
            i.store(gate + k, m);
            f.store(gate + size + k, m);
            g.store(gate + 2 * size + k, m);
            o.store(gate + 3 * size + k, m);
            c.store(after + n * size + k, m);
            (o * c.tanh()).store(squash + k, m);
        }
    }
}
"""
)

_BACKWARD = (
    CPP
    + """
extern "C" void kernel(
    float* gates, const float* before, const float* after, const float* d_squashed,
    float* d_cell, const float clip, const int64_t directions, const int64_t rows,
    const int64_t size, const int64_t gates_stride)
{
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows; ++n) {
        const int64_t d = n / rows, row = n % rows;
        float* gate = gates + d * gates_stride + row * 4 * size;
        for (int64_t k = 0; k < size; k += V::size()) {
            const int m = std::min<int64_t>(V::size(), size - k);
            const V one(1), i = V::loadu(gate + k, m), f = V::loadu(gate + size + k, m),
                g = V::loadu(gate + 2 * size + k, m), o = V::loadu(gate + 3 * size + k, m),
                c = V::loadu(after + n * size + k, m), tanh = c.tanh(),
                d_s = V::loadu(d_squashed + n * size + k, m);
            V d_c = V::loadu(d_cell + n * size + k, m) + d_s * o * (one - tanh * tanh);
            d_c = V::blendv(V(0), d_c, c.abs() < V(clip));
            (d_c * g * i * (one - i)).store(gate + k, m);
            (d_c * V::loadu(before + n * size + k, m) * f * (one - f)).store(gate + size + k, m);
            (d_c * i * (one - g * g)).store(gate + 2 * size + k, m);
            (d_s * tanh * o * (one - o)).store(gate + 3 * size + k, m);
            (d_c * f).store(d_cell + n * size + k, m);
        }
    }
}
"""
)


def build() -> Cell:
    """Compile the cell in C++ for float32; other dtypes use the eager functions."""
    sizes = ["const float", *["const int64_t"] * 4]
    run_forward = build_kernel(
        ["float*", *["const float*"] * 3, *["float*"] * 2, *sizes, "const int64_t"], _FORWARD
    )
    run_backward = build_kernel(["float*", *["const float*"] * 3, "float*", *sizes], _BACKWARD)

    def native_forward(
        gates: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        before: Tensor,
        after: Tensor,
        squashed: Tensor,
        clip: float,
    ) -> None:
        if gates.dtype != torch.float32:
            return forward(gates, recurrent, bias, before, after, squashed, clip)
        return run_forward(
            gates, recurrent.float(), bias, before, after, squashed, clip, *before.shape,
            gates.stride(0), squashed.stride(0),
        )  # fmt: skip

    def native_backward(
        gates: Tensor,
        before: Tensor,
        after: Tensor,
        d_squashed: Tensor,
        d_cell: Tensor,
        clip: float,
    ) -> None:
        if gates.dtype != torch.float32:
            return backward(gates, before, after, d_squashed, d_cell, clip)
        return run_backward(
            gates, before, after, d_squashed.float(), d_cell, clip, *before.shape, gates.stride(0)
        )

    return Cell(native_forward, native_backward)
