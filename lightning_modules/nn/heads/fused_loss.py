"""The losses of `linear_loss` with fused kernels; logits are never in memory in float32.

There are three ways. For n rows and `size` logits a row of 2 bytes each, their logits move

- narrow (dim at most 128, 16-bit matmuls, as in the tails of an adaptive softmax): nothing. The kernels
  compute the logits three times, in registers.
- kept: 10 n size bytes. A matmul writes the logits, a kernel overwrites them with p - e, and the two
  matmuls of the backward pass read them.
- recomputed (p - e is too large to keep): 14 n size bytes, and one more matmul.

Weights are converted to the dtype of the matmuls once; a float32 weight's gradient is written in float32.
All shapes depend on the arguments' shapes only, and nothing is read by the host, so that the operations
can be captured in a CUDA graph. Sums have a fixed order.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.nn.kernels.narrow_softmax import (
    WIDEST,
    narrow_softmax_d_hidden,
    narrow_softmax_d_weight,
    narrow_softmax_loss,
    narrow_softmax_sums,
)
from lightning_modules.nn.kernels.wide_softmax import (
    add_softmax_totals_,
    softmax_gradient_,
    softmax_rows_,
)

KEPT = 1 << 28
"""Most logits that are kept from the forward to the backward pass."""
TILE = 1 << 26
"""Most logits that are computed at once if they are not kept."""
ROWS = 1 << 14
"""Most rows of such a tile."""
ALIGNED = 64
"""Rows of logits begin at multiples of this number, so that kernels read 16 bytes at once."""
# torch.mm(..., out_dtype=torch.float32), since PyTorch 2.8 and for CUDA only.
WIDE_PRODUCTS = hasattr(torch.ops.aten.mm, "dtype")


def fused_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    exclude: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Return the loss of `linear_nll`, or of `linear_logsumexp` if exclude, float32 (n,).

    Args:
        hidden: (n, dim).
        weight: (size, dim).
        bias: (size,), or None.
        columns: int64 (n,).
        exclude: which loss.
        dtype: dtype of the matmuls: bfloat16, float16 or float32.
    """
    n, dim = hidden.shape
    # The kernels of narrow maps compute addresses in 32 bits.
    is_small = max(len(weight), n) * dim < 1 << 31
    is_narrow = dtype.itemsize == 2 and dim <= WIDEST and is_small
    if not torch.is_grad_enabled():
        forward = _narrow_loss if is_narrow else _tiled_loss
        return forward(*_operands(hidden, weight, bias, dtype), columns, exclude)[0]
    kept = _Kept if n * len(weight) <= KEPT else _Recomputed
    function = _Narrow if is_narrow else kept
    loss: Tensor = function.apply(hidden, weight, bias, columns, exclude, dtype)
    return loss


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor,
        exclude: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        return _with_totals(ctx, _narrow_loss, hidden, weight, bias, columns, exclude, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        arguments = (*ctx.saved_tensors, grad.contiguous(), ctx.exclude)
        d_hidden = d_weight = d_bias = None
        if ctx.needs_input_grad[0]:
            d_hidden = narrow_softmax_d_hidden(*arguments).sum(0)
        if any(ctx.needs_input_grad[1:3]):
            d_weight, d_bias = narrow_softmax_d_weight(*arguments)
        return _gradients(ctx, d_hidden, d_weight, d_bias)


class _Kept(torch.autograd.Function):
    """Keeps p - e for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor,
        exclude: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        h, w, b = _operands(hidden, weight, bias, dtype)
        p = _logits(h, w, _buffer(h, len(h), len(w)))
        loss: Tensor = softmax_rows_(p, b, columns, exclude)
        ctx.exclude, ctx.dtypes = exclude, _dtypes(hidden, weight, bias)
        ctx.save_for_backward(h, w, columns, p)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, w, columns, p = ctx.saved_tensors
        g, scaled = _scaled(grad, h, columns, ctx.exclude)
        d_hidden = d_weight = d_bias = None
        if ctx.needs_input_grad[0]:
            d_hidden = _product(p, w).mul_(g)
        if ctx.needs_input_grad[1]:
            d_weight = _product(p.T, scaled)
        if ctx.needs_input_grad[2]:
            d_bias = _product(p.T, g.to(p.dtype)).squeeze(1)
        return _gradients(ctx, d_hidden, d_weight, d_bias)


class _Recomputed(torch.autograd.Function):
    """Keeps log sum exp; the backward pass computes the logits again, tile by tile."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor,
        exclude: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        return _with_totals(ctx, _tiled_loss, hidden, weight, bias, columns, exclude, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, w, b, columns, totals = ctx.saved_tensors
        g, scaled = _scaled(grad, h, columns, ctx.exclude)
        blocks = list(_pieces(len(h), ROWS))
        d_hidden: list[Tensor | None] = [None] * len(blocks)
        d_weight, d_bias = [], []
        buffer = _tile_buffer(h, w)
        for first, size in _tile_columns(h, w):
            w_tile = w.narrow(0, first, size)
            b_tile = None if b is None else b.narrow(0, first, size)
            of_weight: Tensor | None = None
            of_bias: Tensor | None = None
            for number, rows in enumerate(blocks):
                p = _logits(h.narrow(0, *rows), w_tile, buffer)
                c, total = columns.narrow(0, *rows), totals.narrow(0, *rows)
                softmax_gradient_(p, b_tile, c, total, first, ctx.exclude)
                d_hidden[number] = _product(p, w_tile, d_hidden[number])
                if ctx.needs_input_grad[1]:
                    of_weight = _product(p.T, scaled.narrow(0, *rows), of_weight)
                if ctx.needs_input_grad[2]:
                    of_bias = _product(p.T, g.narrow(0, *rows).to(p.dtype), of_bias)
            d_weight += [] if of_weight is None else [of_weight]
            d_bias += [] if of_bias is None else [of_bias.squeeze(1)]
        return _gradients(
            ctx,
            torch.cat([part for part in d_hidden if part is not None]).mul_(g),
            torch.cat(d_weight) if d_weight else None,
            torch.cat(d_bias) if d_bias else None,
        )


def _with_totals(
    ctx: Any,
    loss_of: Callable[..., tuple[Tensor, Tensor]],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    exclude: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Return the loss of a function; keep its operands and log sum exp for the backward pass."""
    operands = _operands(hidden, weight, bias, dtype)
    loss, totals = loss_of(*operands, columns, exclude)
    ctx.exclude, ctx.dtypes = exclude, _dtypes(hidden, weight, bias)
    ctx.save_for_backward(*operands, columns, totals)
    return loss


def _narrow_loss(
    h: Tensor, w: Tensor, b: Tensor | None, columns: Tensor, exclude: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss and log sum exp, (n,) each, without a gradient."""
    sums = narrow_softmax_sums(h, w, b, columns, exclude)
    result: tuple[Tensor, Tensor] = narrow_softmax_loss(sums, h, w, b, columns, exclude)
    return result


def _tiled_loss(
    h: Tensor, w: Tensor, b: Tensor | None, columns: Tensor, exclude: bool
) -> tuple[Tensor, Tensor]:
    """Return the loss and log sum exp, (n,) each, without a gradient."""
    totals = h.new_full((len(h),), -torch.inf, dtype=torch.float32)
    targets = h.new_zeros(len(h), dtype=torch.float32)
    buffer = _tile_buffer(h, w)
    for first, size in _tile_columns(h, w):
        w_tile = w.narrow(0, first, size)
        b_tile = None if b is None else b.narrow(0, first, size)
        for rows in _pieces(len(h), ROWS):
            z = _logits(h.narrow(0, *rows), w_tile, buffer)
            c, total = columns.narrow(0, *rows), totals.narrow(0, *rows)
            add_softmax_totals_(z, b_tile, c, total, targets.narrow(0, *rows), first, exclude)
    return totals if exclude else (totals - targets).masked_fill_(columns < 0, 0), totals


def _tile_columns(h: Tensor, w: Tensor) -> Iterator[tuple[int, int]]:
    """Yield the first column and the number of columns of each tile."""
    return _pieces(len(w), max(1, TILE // max(1, min(len(h), ROWS)) // ALIGNED) * ALIGNED)


def _pieces(n: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(step, n - start)) for start in range(0, n, step))


def _tile_buffer(h: Tensor, w: Tensor) -> Tensor:
    return _buffer(h, min(len(h), ROWS), next(_tile_columns(h, w))[1])


def _buffer(h: Tensor, rows: int, size: int) -> Tensor:
    shape = rows, -(-size // ALIGNED) * ALIGNED
    # On a CPU with AMX, torch.mm multiplies what lies behind a bfloat16 row by 0: NaN, if it is not finite.
    return h.new_empty(shape) if h.is_cuda else h.new_zeros(shape)


def _logits(h: Tensor, w: Tensor, buffer: Tensor) -> Tensor:
    """Write h w^T to the first rows and columns of a buffer; return them."""
    z = buffer.narrow(0, 0, len(h)).narrow(1, 0, len(w))
    torch.mm(h, w.T, out=z)
    return z


def _product(a: Tensor, b: Tensor, added: Tensor | None = None) -> Tensor:
    """Return a b + added in float32; ``added`` may be overwritten."""
    if a.dtype == torch.float32:
        return a @ b if added is None else added.addmm_(a, b)
    if not (WIDE_PRODUCTS and a.is_cuda):
        product = (a @ b).float()
        return product if added is None else added.add_(product)
    if added is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.addmm(added, a, b, out_dtype=torch.float32)


def _operands(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    b = None if bias is None else bias.float().contiguous()
    return hidden.to(dtype).contiguous(), weight.to(dtype).contiguous(), b


def _scaled(grad: Tensor, h: Tensor, columns: Tensor, exclude: bool) -> tuple[Tensor, Tensor]:
    """Return the losses' gradients, float32 (n, 1), 0 if ignored, and h times them in its dtype."""
    g = (grad if exclude else grad.masked_fill(columns < 0, 0)).unsqueeze(1)
    return g, torch.mul(h, g, out=torch.empty_like(h))


def _dtypes(*inputs: Tensor | None) -> list[torch.dtype | None]:
    return [None if x is None else x.dtype for x in inputs]


def _gradients(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the results of a backward pass: needed gradients in the dtypes of the inputs."""
    needed = zip(gradients, ctx.dtypes, ctx.needs_input_grad, strict=False)
    return (*(x.to(dtype) if x is not None and need else None for x, dtype, need in needed),
            None, None, None)  # fmt: skip
