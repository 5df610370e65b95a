"""The pointwise part of an LSTM step and its gradient.

Tensors are (directions, rows, hidden), or (directions, rows, 4 * hidden) for the gates input, forget,
cell input and output (i, f, g, o). The last two dimensions of each argument are contiguous. Results
are written in place.

What lies between two matmuls (gates, recurrent, squashed and its gradient) has the dtype of the
matmuls. If that has 16 bits, the rest and the arithmetic are float32, and the gates are kept as the sums
that the nonlinearities get: a sigmoid of 0.998 or more rounds to 1 in bfloat16, and its gradient to 0.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_modules.nn.recurrent.cell import CPP, Cell, build_kernel

NAME = "LSTM"


def forward(
    gates: Tensor,
    recurrent: Tensor | None,
    bias: Tensor,
    before: Tensor,
    after: Tensor,
    squashed: Tensor,
    clip: float,
    keep: Tensor | None,
) -> None:
    """Compute the gates, the next cell state and the output before projection.

    Args:
        gates: x W_input; overwritten with the values of the gates, or with their sums in 16 bits.
        recurrent: h W_hidden, with the h that ``keep`` has not zeroed. None means that it is already added to
            gates, whose values are not needed after the call.
        bias: (directions, 4 * hidden).
        before: c.
        after: output, c', clipped to [-clip, clip].
        squashed: output, sigmoid(o) tanh(c').
        clip: bound of c', inf for none.
        keep: 0 where h and c are zeroed before the step, else 1, contiguous (directions, rows, 1); None
            means nowhere.
    """
    if keep is not None:
        before = before * keep
        recurrent = None if recurrent is None else recurrent * keep
    narrow = gates.dtype != after.dtype
    values = gates.to(after.dtype)  # gates itself, if the dtypes are the same
    if recurrent is not None:
        values.add_(recurrent)
    values.add_(bias.unsqueeze(1))
    if narrow:
        gates.copy_(values)
    i, f, g, o = _apply_nonlinearities(values)
    after.copy_(f).mul_(before).addcmul_(i, g)
    if clip < torch.inf:
        after.clamp_(-clip, clip)
    output = torch.empty_like(after) if narrow else squashed
    output.copy_(after).tanh_().mul_(o)
    if narrow:
        squashed.copy_(output)


def backward(
    gates: Tensor,
    before: Tensor,
    after: Tensor,
    d_squashed: Tensor,
    d_cell: Tensor,
    clip: float,
    keep: Tensor | None,
) -> None:
    """Compute the gradients of a step.

    Args:
        gates: from `forward`; overwritten with the gradient before the nonlinearities.
        before: c.
        after: c'.
        d_squashed: gradient of sigmoid(o) tanh(c').
        d_cell: gradient of c'; overwritten with that of c.
        clip: bound of c', inf for none.
        keep: as in `forward`.
    """
    values = gates
    if narrow := gates.dtype != after.dtype:
        values = gates.to(after.dtype)
        _apply_nonlinearities(values)
    if keep is not None:
        before = before * keep
    i, f, g, o = values.chunk(4, -1)
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
    d_cell.copy_(d_before if keep is None else d_before.mul_(keep))
    if narrow:
        gates.copy_(values)


def _apply_nonlinearities(sums: Tensor) -> tuple[Tensor, ...]:
    """Overwrite the sums with i, f, g and o, and return these as views."""
    i, f, g, o = sums.chunk(4, -1)
    sums[..., : 2 * i.shape[-1]].sigmoid_()  # i and f
    g.tanh_()
    o.sigmoid_()
    return i, f, g, o


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
        return numbers(2, 3, rows, 4 * hidden).to(dtype)[:, step]

    cells = numbers(5, 2, rows, hidden)
    before, after = cells[step + 1], cells[step + 2]
    recurrent, bias = numbers(2, rows, 4 * hidden).to(dtype), numbers(2, 4 * hidden)
    squashed = numbers(2, 3, rows, hidden).to(dtype)[:, step]
    d_squashed, d_cell = numbers(2, rows, hidden).to(dtype), numbers(2, rows, hidden)
    return (
        [gates(), recurrent, bias, before, after, squashed, clip, None],
        [gates(), before, after, d_squashed, d_cell, clip, None],
    )


_FORWARD = (
    CPP
    + """
extern "C" void kernel(
    float* gates, const float* recurrent, const float* bias, const float* before, float* after,
    float* squashed, const float* keep, const int64_t kept, const int64_t joined, const int64_t as_sums,
    const float clip, const int64_t directions, const int64_t rows, const int64_t size,
    const int64_t gates_stride, const int64_t squashed_stride)
{
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows; ++n) {
        const int64_t d = n / rows, row = n % rows;
        float* gate = gates + d * gates_stride + row * 4 * size;
        const float* from_state = recurrent + n * 4 * size;
        const float* of_bias = bias + d * 4 * size;
        float* squash = squashed + d * squashed_stride + row * size;
        const V factor(kept ? keep[n] : 1.f);
        for (int64_t k = 0; k < size; k += V::size()) {
            const int m = std::min<int64_t>(V::size(), size - k);
            auto sum = [&](int64_t part) {
                const int64_t at = part * size + k;
                const V sum = V::loadu(gate + at, m) + V::loadu(of_bias + at, m);
                return joined ? sum : sum + factor * V::loadu(from_state + at, m);
            };
            const V sums[] = {sum(0), sum(1), sum(2), sum(3)};
            const V i = sigmoid(sums[0]), f = sigmoid(sums[1]), g = tanh_of(sums[2]),
                o = sigmoid(sums[3]);
            V c = f * (factor * V::loadu(before + n * size + k, m)) + i * g;
            c = at::vec::clamp(c, V(-clip), V(clip));
            if (!joined) {
                (as_sums ? sums[0] : i).store(gate + k, m);
                (as_sums ? sums[1] : f).store(gate + size + k, m);
                (as_sums ? sums[2] : g).store(gate + 2 * size + k, m);
                (as_sums ? sums[3] : o).store(gate + 3 * size + k, m);
            }
            c.store(after + n * size + k, m);
            (o * tanh_of(c)).store(squash + k, m);
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
    float* d_cell, const float* keep, const int64_t kept, const int64_t as_sums, const float clip,
    const int64_t directions, const int64_t rows, const int64_t size, const int64_t gates_stride)
{
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows; ++n) {
        const int64_t d = n / rows, row = n % rows;
        float* gate = gates + d * gates_stride + row * 4 * size;
        const V factor(kept ? keep[n] : 1.f);
        for (int64_t k = 0; k < size; k += V::size()) {
            const int m = std::min<int64_t>(V::size(), size - k);
            V i = V::loadu(gate + k, m), f = V::loadu(gate + size + k, m),
                g = V::loadu(gate + 2 * size + k, m), o = V::loadu(gate + 3 * size + k, m);
            if (as_sums) {
                i = sigmoid(i), f = sigmoid(f), g = tanh_of(g), o = sigmoid(o);
            }
            const V one(1), c = V::loadu(after + n * size + k, m), tanh = tanh_of(c),
                d_s = V::loadu(d_squashed + n * size + k, m);
            V d_c = V::loadu(d_cell + n * size + k, m) + d_s * o * (one - tanh * tanh);
            d_c = V::blendv(V(0), d_c, c.abs() < V(clip));
            (d_c * g * i * (one - i)).store(gate + k, m);
            const V c_before = factor * V::loadu(before + n * size + k, m);
            (d_c * c_before * f * (one - f)).store(gate + size + k, m);
            (d_c * i * (one - g * g)).store(gate + 2 * size + k, m);
            (d_s * tanh * o * (one - o)).store(gate + 3 * size + k, m);
            (d_c * f * factor).store(d_cell + n * size + k, m);
        }
    }
}
"""
)


def build() -> Cell:
    """Compile the cell in C++ for float32; 16 bits are copied to it, float64 uses the eager functions."""
    count, sizes = "const int64_t", ["const float", *["const int64_t"] * 4]
    begin = ["float*", *["const float*"] * 3, "float*"]
    run_forward = build_kernel(
        [*begin, "float*", "const float*", *[count] * 3, *sizes, count], _FORWARD
    )
    run_backward = build_kernel([*begin, "const float*", *[count] * 2, *sizes], _BACKWARD)

    def native_forward(
        gates: Tensor,
        recurrent: Tensor | None,
        bias: Tensor,
        before: Tensor,
        after: Tensor,
        squashed: Tensor,
        clip: float,
        keep: Tensor | None,
    ) -> None:
        if gates.dtype == torch.float64:
            return forward(gates, recurrent, bias, before, after, squashed, clip, keep)
        wide, output = gates.float(), squashed.float()  # themselves, if they are float32
        run_forward(
            wide, bias if recurrent is None else recurrent.float(), bias, before, after, output,
            bias if keep is None else keep.float(), int(keep is not None), int(recurrent is None),
            int(wide is not gates), clip, *before.shape, wide.stride(0), output.stride(0),
        )  # fmt: skip
        if wide is not gates:
            gates.copy_(wide)
            squashed.copy_(output)
        return None

    def native_backward(
        gates: Tensor,
        before: Tensor,
        after: Tensor,
        d_squashed: Tensor,
        d_cell: Tensor,
        clip: float,
        keep: Tensor | None,
    ) -> None:
        if gates.dtype == torch.float64:
            return backward(gates, before, after, d_squashed, d_cell, clip, keep)
        wide = gates.float()
        run_backward(
            wide, before, after, d_squashed.float().contiguous(), d_cell,
            before if keep is None else keep.float(), int(keep is not None), int(wide is not gates),
            clip, *before.shape, wide.stride(0),
        )  # fmt: skip
        if wide is not gates:
            gates.copy_(wide)
        return None

    return Cell(native_forward, native_backward)


def fused() -> Cell:
    """Return the cell of Triton kernels, for 16 and 32 bits; float64 uses the eager functions."""
    from lightning_modules.nn.kernels import lstm

    def fused_forward(gates: Tensor, *others: Any) -> None:
        (forward if gates.dtype == torch.float64 else lstm.lstm_forward)(gates, *others)

    def fused_backward(gates: Tensor, *others: Any) -> None:
        (backward if gates.dtype == torch.float64 else lstm.lstm_backward)(gates, *others)

    return Cell(fused_forward, fused_backward)
