"""Loss of a linear map followed by a softmax, in bounded memory: logits are computed in tiles.

n is the number of positions, dim the width of hidden, size the number of logits of a position.

    nll_i       = log sum_j exp z_ij - z_ic,  z = hidden weight^T + bias, c = columns[i]
    logsumexp_i = log sum_(j != c) exp z_ij

With p the softmax of the terms in the sum, e the one-hot vector of c (0 for logsumexp) and g the
gradient of the loss, the gradients are

    d hidden = g * ((p - e) weight),  d weight = (p - e)^T (g * hidden),  d bias = (p - e)^T g

so the forward pass overwrites the logits with p - e and keeps it for the backward pass. If it is too
large to keep, the backward pass computes the logits again. On a GPU with Triton, `fused_loss` computes the
same with fused kernels.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.nn.kernels import support
from lightning_modules.nn.recurrent.matmul import times_transposed


class Sizes(NamedTuple):
    """Limits in numbers of logits.

    Attributes:
        tile: computed at once.
        kept: kept from the forward to the backward pass.
    """

    tile: int
    kept: int


# 16 MB of float32, below the size (32 MB) from which glibc's malloc always maps new pages.
CPU_SIZES = Sizes(1 << 22, 1 << 25)
GPU_SIZES = Sizes(1 << 26, 1 << 28)
# With fewer rows a matmul is bound by reading the weights; with more rows it gains nothing.
LEAST_ROWS = 128
MOST_ROWS = 1024


def linear_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Return -log softmax(hidden weight^T + bias)[targets] in nats, (n,).

    Under autocast, matmuls use its dtype. Softmax and loss are float32, or float64 if hidden is.

    Args:
        hidden: (n, dim).
        weight: (size, dim).
        bias: (size,), or None.
        targets: the target's column in each row, int64 (n,); a row with a target below 0 has loss 0.
    """
    return _loss(hidden, weight, bias, targets, False)


def linear_logsumexp(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, excluded: Tensor
) -> Tensor:
    """Return log sum exp(hidden weight^T + bias), (n,), where row i leaves out column excluded[i].

    An index below 0 leaves out no column. If a row has no other column, its result is the lowest
    finite number. Shapes and dtypes are those of `linear_nll`.
    """
    return _loss(hidden, weight, bias, excluded, True)


def _loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool
) -> Tensor:
    device = hidden.device.type
    sizes = CPU_SIZES if device == "cpu" else GPU_SIZES
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if _has_kernels(hidden.device, dtype or hidden.dtype):
        from lightning_modules.nn.heads.fused_loss import fused_loss

        with torch.autocast(device, enabled=False):
            return fused_loss(hidden, weight, bias, columns, exclude, dtype or hidden.dtype)
    if dtype is not None:
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        if not torch.is_grad_enabled():
            return _total(hidden, weight, bias, columns, exclude, sizes.tile)[0]
        few = len(hidden) * len(weight) <= sizes.kept
        function = _Kept if few else _Recomputed
        loss: Tensor = function.apply(hidden, weight, bias, columns, exclude, sizes.tile)
    return loss


def _has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if `fused_loss` computes the losses, which needs a GPU with Triton."""
    return dtype != torch.float64 and support.are_usable(device)


class _Kept(torch.autograd.Function):
    """Keeps p - e for the backward pass, in the dtype of the matmuls."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor,
        exclude: bool,
        tile: int,
    ) -> Tensor:
        losses, kept = [], []
        ctx.rows = max(LEAST_ROWS, tile // len(weight))
        for h, c in zip(hidden.split(ctx.rows), columns.split(ctx.rows), strict=True):
            z = _logits(h, weight, bias)  # (rows, size)
            at = _take(z, c, exclude)
            losses.append(_softmax_(z) - at)
            _subtract_target_(z, c, exclude)
            kept.append(z.to(hidden.dtype))
        loss = torch.cat(losses)
        ctx.exclude = exclude
        ctx.save_for_backward(hidden, weight, columns, *kept)
        return loss if exclude else loss.masked_fill(columns < 0, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, columns, *kept = ctx.saved_tensors
        g, scaled = _scaled(grad, hidden, columns, ctx.exclude)
        d_hidden = _empty(hidden)
        d_weight = _empty(weight) if ctx.needs_input_grad[1] else None
        d_bias = g.new_zeros(len(weight)) if ctx.needs_input_grad[2] else None
        for i, p in enumerate(kept):
            rows = slice(i * ctx.rows, (i + 1) * ctx.rows)
            d_hidden[rows] = times_transposed(p, weight.T)
            if d_weight is not None:
                _add_product(d_weight, p.T, scaled[rows], first=i == 0)
            if d_bias is not None:
                d_bias += p.T @ g[rows].to(p.dtype)
        d_hidden *= g[:, None]
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        return d_hidden.to(hidden.dtype), d_weight, d_bias, None, None, None


class _Recomputed(torch.autograd.Function):
    """Keeps only the logarithm of the sum; the backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor,
        exclude: bool,
        tile: int,
    ) -> Tensor:
        loss, total = _total(hidden, weight, bias, columns, exclude, tile)
        ctx.exclude, ctx.tile = exclude, tile
        ctx.save_for_backward(hidden, weight, bias, columns, total)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, columns, total = ctx.saved_tensors
        g, scaled = _scaled(grad, hidden, columns, ctx.exclude)
        d_hidden = _empty(hidden)
        d_weight = _empty(weight) if ctx.needs_input_grad[1] else None
        d_bias = g.new_zeros(len(weight)) if ctx.needs_input_grad[2] else None
        for size in _tile_columns(hidden, weight, ctx.tile):
            w, b = weight[size], None if bias is None else bias[size]
            for rows in _pieces(len(hidden), MOST_ROWS):
                z = _logits(hidden[rows], w, b)  # (rows, size)
                c = columns[rows] - size.start
                _take(z, c, ctx.exclude)
                z.sub_(total[rows, None]).exp_()
                _subtract_target_(z, c, ctx.exclude)
                p = z.to(hidden.dtype)
                _add_product(d_hidden[rows], p, w, first=size.start == 0)
                if d_weight is not None:
                    _add_product(d_weight[size], p.T, scaled[rows], first=rows.start == 0)
                if d_bias is not None:
                    d_bias[size] += p.T @ g[rows].to(p.dtype)
        d_hidden *= g[:, None]
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        return d_hidden.to(hidden.dtype), d_weight, d_bias, None, None, None


def _total(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool, tile: int
) -> tuple[Tensor, Tensor]:
    """Return the loss and the logarithm of the sum, (n,) each, without a gradient."""
    losses, totals = [], []
    for rows in _pieces(len(hidden), MOST_ROWS):
        at, of_tiles = [], []
        for size in _tile_columns(hidden, weight, tile):
            z = _logits(hidden[rows], weight[size], None if bias is None else bias[size])
            at.append(_take(z, columns[rows] - size.start, exclude))
            of_tiles.append(_softmax_(z))
        totals.append(torch.stack(of_tiles).logsumexp(0))  # (rows,)
        losses.append(totals[-1] - torch.stack(at).sum(0))
    loss, total = torch.cat(losses), torch.cat(totals)
    return (loss if exclude else loss.masked_fill(columns < 0, 0)), total


def _tile_columns(hidden: Tensor, weight: Tensor, tile: int) -> list[slice]:
    return _pieces(len(weight), tile // max(1, min(len(hidden), MOST_ROWS)))


def _pieces(n: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(start, start + step) for start in range(0, max(1, n), step)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = times_transposed(hidden, weight)  # (rows, size)
    z = z.to(_wide(z))
    return z if bias is None else z.add_(bias)


def _take(z: Tensor, columns: Tensor, exclude: bool) -> Tensor:
    """Return the logits of the targets in this tile, (rows,), 0 for targets in other tiles.

    If exclude, mask the logits of these columns in z instead, and return zeros.
    """
    inside = (columns >= 0) & (columns < z.shape[1])
    at = columns.clamp(0, z.shape[1] - 1)[:, None]
    values = z.gather(1, at).squeeze(1)
    if not exclude:
        return values.where(inside, 0)
    z.scatter_(1, at, values.masked_fill(inside, torch.finfo(z.dtype).min)[:, None])
    return torch.zeros_like(values)


def _softmax_(z: Tensor) -> Tensor:
    """Overwrite z with its softmax; return the logarithm of the sum of exponentials, (rows,)."""
    top = z.amax(1)
    torch.softmax(z, 1, out=z)
    return top - z.amax(1).log()  # the largest probability is exp(0) / sum


def _subtract_target_(p: Tensor, columns: Tensor, exclude: bool) -> None:
    if exclude:
        return
    inside = (columns >= 0) & (columns < p.shape[1])
    p.scatter_add_(1, columns.clamp(0, p.shape[1] - 1)[:, None], -inside.to(p.dtype)[:, None])


def _scaled(grad: Tensor, hidden: Tensor, columns: Tensor, exclude: bool) -> tuple[Tensor, Tensor]:
    g = grad if exclude else grad.masked_fill(columns < 0, 0)
    return g, (hidden * g[:, None]).to(hidden.dtype)  # (n,), (n, dim)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=_wide(x))


def _add_product(out: Tensor, a: Tensor, b: Tensor, first: bool) -> None:
    if a.dtype == out.dtype:
        out.addmm_(a, b, beta=0 if first else 1)
    elif first:
        out.copy_(a @ b)
    else:
        out += a @ b
