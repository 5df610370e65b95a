"""The pointwise part of a GRU step and its gradient.

Tensors are (directions, rows, hidden), or (directions, rows, 3 * hidden) for the gates reset, update and
new (r, z, n). The last two dimensions of each argument are contiguous. Results are written in place.

What lies between two matmuls has their dtype. If that has 16 bits, the state and the arithmetic are
float32, and the gates are kept as the sums that the nonlinearities get, as in
`lightning_modules.nn.recurrent.lstm_cell`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_modules.nn.recurrent.cell import CPP, Cell, build_kernel

NAME = "GRU"


def forward(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
    before: Tensor,
    after: Tensor,
    inner: Tensor,
    operand: Tensor | None,
    keep: Tensor | None,
) -> None:
    """Compute the gates and the next state.

    Args:
        gates: x W_input; overwritten with the values of the gates, or with their sums in 16 bits.
        recurrent: h W_hidden, with the h that ``keep`` has not zeroed.
        bias: (directions, 3 * hidden).
        bias_hidden: (directions, hidden).
        before: h.
        after: output, h'.
        inner: output, the term that r multiplies: h times the n columns of W_hidden, plus bias_hidden.
        operand: output, h' in the dtype of the next matmul; None if that is the dtype of h'.
        keep: 0 where h is zeroed before the step, else 1, contiguous (directions, rows, 1); None means
            nowhere.
    """
    size = before.shape[-1]
    if keep is not None:
        recurrent, before = recurrent * keep, before * keep
    narrow = gates.dtype != after.dtype
    values = gates.to(after.dtype)  # gates and inner themselves, if the dtypes are the same
    multiplied = torch.empty_like(after) if narrow else inner
    multiplied.copy_(recurrent[..., 2 * size :]).add_(bias_hidden.unsqueeze(1))
    values.add_(bias.unsqueeze(1))
    first = values[..., : 2 * size]  # r and z
    first.add_(recurrent[..., : 2 * size])
    if narrow:
        inner.copy_(multiplied)
        gates[..., : 2 * size] = first
    first.sigmoid_()
    r, z, n = values.chunk(3, -1)
    n.addcmul_(r, multiplied)
    if narrow:
        gates[..., 2 * size :] = n
    n.tanh_()
    after.copy_(before).sub_(n).mul_(z).add_(n)
    if operand is not None:
        operand.copy_(after)


def backward(
    gates: Tensor,
    inner: Tensor,
    before: Tensor,
    d_hidden: Tensor,
    d_recurrent: Tensor,
    d_output: Tensor | None,
    d_product: Tensor | None,
    keep: Tensor | None,
) -> None:
    """Compute the gradients of a step.

    Args:
        gates: from `forward`; overwritten with the gradient of x W_input.
        inner: from `forward`.
        before: h.
        d_hidden: gradient of h', less ``d_output`` and ``d_product``; overwritten with the part of h's
            gradient that does not pass through the gates.
        d_recurrent: output, gradient of h W_hidden, of the h that ``keep`` has zeroed.
        d_output: part of the gradient of h', or None.
        d_product: part of the gradient of h', or None.
        keep: as in `forward`.
    """
    size = before.shape[-1]
    values = gates
    if narrow := gates.dtype != before.dtype:
        values = gates.to(before.dtype)
        values[..., : 2 * size].sigmoid_()
        values[..., 2 * size :].tanh_()
    if keep is not None:
        before = before * keep
    for part in (d_output, d_product):
        if part is not None:
            d_hidden.add_(part)
    r, z, n = values.chunk(3, -1)
    d_values = torch.empty_like(values) if narrow else d_recurrent
    d_r, d_z, d_n = d_values.chunk(3, -1)
    through = d_hidden * (1 - z) * (1 - n * n)
    d_r.copy_(through * inner * (r * (1 - r)))
    d_z.copy_(d_hidden * (before - n) * (z * (1 - z)))
    d_n.copy_(through * r)
    d_hidden.mul_(z)
    if keep is not None:
        d_hidden.mul_(keep)
    r.copy_(d_r)
    z.copy_(d_z)
    n.copy_(through)
    if narrow:
        gates.copy_(values)
        d_recurrent.copy_(d_values)


EAGER = Cell(forward, backward)


def sample_arguments(
    step: int,
    rows: int,
    hidden: int,
    clip: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Any], list[Any]]:
    """Return arguments of `forward` and `backward`, as `CellModule` says; all numbers are in [-1, 1]."""

    def numbers(*shape: int) -> Tensor:
        return torch.linspace(-1, 1, math.prod(shape), device=device).view(shape)

    def gates() -> Tensor:
        return numbers(2, 3, rows, 3 * hidden).to(dtype)[:, step]

    narrow = dtype != torch.float32
    y = numbers(5, 2, rows, hidden)
    before, after, d_hidden = y[step + 1], y[step + 2], numbers(3, 2, rows, hidden)[step]
    inner = numbers(2, 3, rows, hidden).to(dtype)[:, step]
    operand = torch.zeros_like(inner) if narrow else None
    recurrent = numbers(2, rows, 3 * hidden).to(dtype)
    bias, bias_hidden = numbers(2, 3 * hidden), numbers(2, hidden)
    parts = (numbers(2, 3, rows, hidden)[:, step], recurrent[..., :hidden].contiguous())
    return (
        [gates(), recurrent, bias, bias_hidden, before, after, inner, operand, None],
        [gates(), inner, before, d_hidden, gates(), *(parts if narrow else (None, None)), None],
    )


_FORWARD = (
    CPP
    + """
extern "C" void kernel(
    float* gates, const float* recurrent, const float* bias, const float* bias_hidden,
    const float* before, float* after, float* inner, const float* keep, const int64_t kept,
    const int64_t as_sums, const int64_t directions, const int64_t rows, const int64_t size,
    const int64_t gates_stride, const int64_t inner_stride)
{
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows; ++n) {
        const int64_t d = n / rows, row = n % rows;
        float* gate = gates + d * gates_stride + row * 3 * size;
        float* in = inner + d * inner_stride + row * size;
        const float* from_state = recurrent + n * 3 * size;
        const float* of_bias = bias + d * 3 * size;
        const V factor(kept ? keep[n] : 1.f);
        for (int64_t k = 0; k < size; k += V::size()) {
            const int m = std::min<int64_t>(V::size(), size - k);
            auto of_input = [&](int64_t part) {
                const int64_t at = part * size + k;
                return V::loadu(gate + at, m) + V::loadu(of_bias + at, m);
            };
            auto of_state = [&](int64_t part) {
                return factor * V::loadu(from_state + part * size + k, m);
            };
            const V sum_r = of_input(0) + of_state(0), sum_z = of_input(1) + of_state(1),
                r = sigmoid(sum_r), z = sigmoid(sum_z),
                multiplied = of_state(2) + V::loadu(bias_hidden + d * size + k, m),
                sum_n = of_input(2) + r * multiplied, fresh = tanh_of(sum_n),
                h = factor * V::loadu(before + n * size + k, m);
            (as_sums ? sum_r : r).store(gate + k, m);
            (as_sums ? sum_z : z).store(gate + size + k, m);
            (as_sums ? sum_n : fresh).store(gate + 2 * size + k, m);
            multiplied.store(in + k, m);
            (fresh + z * (h - fresh)).store(after + n * size + k, m);
        }
    }
}
"""
)

_BACKWARD = (
    CPP
    + """
extern "C" void kernel(
    float* gates, const float* inner, const float* before, float* d_hidden, float* d_recurrent,
    const float* keep, const int64_t kept, const int64_t as_sums, const int64_t directions,
    const int64_t rows, const int64_t size, const int64_t gates_stride, const int64_t inner_stride,
    const int64_t before_stride, const int64_t d_recurrent_stride)
{
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows; ++n) {
        const int64_t d = n / rows, row = n % rows;
        float* gate = gates + d * gates_stride + row * 3 * size;
        float* d_state = d_recurrent + d * d_recurrent_stride + row * 3 * size;
        const float* in = inner + d * inner_stride + row * size;
        const float* h = before + d * before_stride + row * size;
        const V factor(kept ? keep[n] : 1.f);
        for (int64_t k = 0; k < size; k += V::size()) {
            const int m = std::min<int64_t>(V::size(), size - k);
            V r = V::loadu(gate + k, m), z = V::loadu(gate + size + k, m),
                fresh = V::loadu(gate + 2 * size + k, m);
            if (as_sums) {
                r = sigmoid(r), z = sigmoid(z), fresh = tanh_of(fresh);
            }
            const V one(1), d_h = V::loadu(d_hidden + n * size + k, m),
                through = d_h * (one - z) * (one - fresh * fresh),
                d_r = through * V::loadu(in + k, m) * r * (one - r),
                d_z = d_h * (factor * V::loadu(h + k, m) - fresh) * z * (one - z);
            d_r.store(gate + k, m);
            d_z.store(gate + size + k, m);
            through.store(gate + 2 * size + k, m);
            d_r.store(d_state + k, m);
            d_z.store(d_state + size + k, m);
            (through * r).store(d_state + 2 * size + k, m);
            (d_h * z * factor).store(d_hidden + n * size + k, m);
        }
    }
}
"""
)


def build() -> Cell:
    """Compile the cell in C++ for float32; 16 bits are copied to it, float64 uses the eager functions."""
    sizes = ["const float*", *["const int64_t"] * 7]
    run_forward = build_kernel(["float*", *["const float*"] * 4, *["float*"] * 2, *sizes], _FORWARD)
    run_backward = build_kernel(
        ["float*", *["const float*"] * 2, *["float*"] * 2, *sizes, *sizes[1:3]], _BACKWARD
    )

    def native_forward(
        gates: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        bias_hidden: Tensor,
        before: Tensor,
        after: Tensor,
        inner: Tensor,
        operand: Tensor | None,
        keep: Tensor | None,
    ) -> None:
        if gates.dtype == torch.float64:
            return forward(gates, recurrent, bias, bias_hidden, before, after, inner, operand, keep)
        wide, output = gates.float(), inner.float()  # themselves, if they are float32
        run_forward(
            wide, recurrent.float(), bias, bias_hidden, before, after, output,
            bias if keep is None else keep.float(), int(keep is not None), int(wide is not gates),
            *before.shape, wide.stride(0), output.stride(0),
        )  # fmt: skip
        if wide is not gates:
            gates.copy_(wide)
            inner.copy_(output)
        if operand is not None:
            operand.copy_(after)
        return None

    def native_backward(
        gates: Tensor,
        inner: Tensor,
        before: Tensor,
        d_hidden: Tensor,
        d_recurrent: Tensor,
        d_output: Tensor | None,
        d_product: Tensor | None,
        keep: Tensor | None,
    ) -> None:
        if gates.dtype == torch.float64:
            return backward(gates, inner, before, d_hidden, d_recurrent, d_output, d_product, keep)
        for part in (d_output, d_product):
            if part is not None:
                d_hidden.add_(part)
        wide, of_inner, result = gates.float(), inner.float(), d_recurrent.float()
        run_backward(
            wide, of_inner, before, d_hidden, result,
            before if keep is None else keep.float(), int(keep is not None), int(wide is not gates),
            *before.shape, wide.stride(0), of_inner.stride(0), before.stride(0), result.stride(0),
        )  # fmt: skip
        if wide is not gates:
            gates.copy_(wide)
            d_recurrent.copy_(result)
        return None

    return Cell(native_forward, native_backward)


def fused() -> Cell:
    """Return the cell of Triton kernels, for 16 and 32 bits; float64 uses the eager functions."""
    from lightning_modules.nn.kernels import gru

    def fused_forward(gates: Tensor, *others: Any) -> None:
        (forward if gates.dtype == torch.float64 else gru.gru_forward)(gates, *others)

    def fused_backward(gates: Tensor, *others: Any) -> None:
        (backward if gates.dtype == torch.float64 else gru.gru_backward)(gates, *others)

    return Cell(fused_forward, fused_backward)
