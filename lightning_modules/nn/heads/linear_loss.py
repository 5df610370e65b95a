"""Loss of a linear map and a softmax in bounded memory: logits are made tile by tile.

Legend: n = positions, dim = dimensions of hidden, size = logits of a position.

    nll_i       = log sum_j exp z_ij - z_ic,  z = hidden weight^T + bias, c = columns[i]
    logsumexp_i = log sum_(j != c) exp z_ij

Gradients, with p the softmax that stands in the formula, e the one-hot of c (logsumexp: 0) and g
the gradient of the loss:

    d hidden = g * ((p - e) weight),  d weight = (p - e)^T (g * hidden),  d bias = (p - e)^T g

so p - e is made in the forward pass, in place of the logits, and no further (n, size) is needed.
Where it would be too large to keep, the logits are computed again.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.nn.recurrent.matmul import times_transposed


class Sizes(NamedTuple):
    """In numbers. tile: logits computed at once; kept: logits of a call that wait for backward."""

    tile: int
    kept: int


# 16 MB of float32, which glibc's allocator still gives out again without touching new pages.
CPU_SIZES = Sizes(1 << 22, 1 << 25)
GPU_SIZES = Sizes(1 << 26, 1 << 28)
# A matmul of fewer rows reads weights more than it computes; more rows gain nothing.
LEAST_ROWS = 128
MOST_ROWS = 1024


def linear_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """-log softmax(hidden weight^T + bias)[targets] in nats, (n,), 0 where a target is below 0.

    hidden (n, dim), weight (size, dim), bias (size,), targets (n,) int64. Under autocast the
    matmuls are in its dtype; softmax and loss are float32 (float64 where hidden is).
    """
    return _loss(hidden, weight, bias, targets, False)


def linear_logsumexp(hidden: Tensor, weight: Tensor, bias: Tensor | None, holes: Tensor) -> Tensor:
    """log sum exp (hidden weight^T + bias), (n,), without column holes[i] in row i (below 0: none).

    Shapes and dtypes as in linear_nll. A row of nothing but its hole has the lowest number.
    """
    return _loss(hidden, weight, bias, holes, True)


def _loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, hole: bool
) -> Tensor:
    device = hidden.device.type
    sizes = CPU_SIZES if device == "cpu" else GPU_SIZES
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        if not torch.is_grad_enabled():
            return _total(hidden, weight, bias, columns, hole, sizes.tile)[0]
        few = len(hidden) * len(weight) <= sizes.kept
        function = _Kept if few else _Recomputed
        loss: Tensor = function.apply(hidden, weight, bias, columns, hole, sizes.tile)
    return loss


class _Kept(torch.autograd.Function):
    """p - e waits for the backward pass, in the dtype of the matmuls."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor,
        hole: bool,
        tile: int,
    ) -> Tensor:
        losses, kept = [], []
        ctx.rows = max(LEAST_ROWS, tile // len(weight))
        for h, c in zip(hidden.split(ctx.rows), columns.split(ctx.rows), strict=True):
            z = _logits(h, weight, bias)  # (rows, size)
            at = _take(z, c, hole)
            losses.append(_softmax_(z) - at)
            _subtract_target_(z, c, hole)
            kept.append(z.to(hidden.dtype))
        loss = torch.cat(losses)
        ctx.hole, ctx.has_bias = hole, bias is not None
        ctx.save_for_backward(hidden, weight, columns, *kept)
        return loss if hole else loss.masked_fill(columns < 0, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, columns, *kept = ctx.saved_tensors
        g, scaled = _scaled(grad, hidden, columns, ctx.hole)
        d_hidden, d_weight = _empty(hidden), _empty(weight)
        d_bias = g.new_zeros(len(weight)) if ctx.has_bias else None
        for i, p in enumerate(kept):
            rows = slice(i * ctx.rows, (i + 1) * ctx.rows)
            d_hidden[rows] = times_transposed(p, weight.T)
            _add_product(d_weight, p.T, scaled[rows], first=i == 0)
            if d_bias is not None:
                d_bias += p.T @ g[rows].to(p.dtype)
        d_hidden *= g[:, None]
        return d_hidden.to(hidden.dtype), d_weight.to(weight.dtype), d_bias, None, None, None


class _Recomputed(torch.autograd.Function):
    """The logarithm of the sum waits for the backward pass, which computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        columns: Tensor,
        hole: bool,
        tile: int,
    ) -> Tensor:
        loss, total = _total(hidden, weight, bias, columns, hole, tile)
        ctx.hole, ctx.tile = hole, tile
        ctx.save_for_backward(hidden, weight, bias, columns, total)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, columns, total = ctx.saved_tensors
        g, scaled = _scaled(grad, hidden, columns, ctx.hole)
        d_hidden, d_weight = _empty(hidden), _empty(weight)
        d_bias = None if bias is None else g.new_zeros(len(weight))
        for size in _tile_columns(hidden, weight, ctx.tile):
            w, b = weight[size], None if bias is None else bias[size]
            for rows in _pieces(len(hidden), MOST_ROWS):
                z = _logits(hidden[rows], w, b)  # (rows, size)
                c = columns[rows] - size.start
                _take(z, c, ctx.hole)
                z.sub_(total[rows, None]).exp_()
                _subtract_target_(z, c, ctx.hole)
                p = z.to(hidden.dtype)
                _add_product(d_hidden[rows], p, w, first=size.start == 0)
                _add_product(d_weight[size], p.T, scaled[rows], first=rows.start == 0)
                if d_bias is not None:
                    d_bias[size] += p.T @ g[rows].to(p.dtype)
        d_hidden *= g[:, None]
        return d_hidden.to(hidden.dtype), d_weight.to(weight.dtype), d_bias, None, None, None


def _total(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, hole: bool, tile: int
) -> tuple[Tensor, Tensor]:
    """The loss and the logarithm of the sum, (n,) each, without any gradient."""
    losses, totals = [], []
    for rows in _pieces(len(hidden), MOST_ROWS):
        at, of_tiles = [], []
        for size in _tile_columns(hidden, weight, tile):
            z = _logits(hidden[rows], weight[size], None if bias is None else bias[size])
            at.append(_take(z, columns[rows] - size.start, hole))
            of_tiles.append(_softmax_(z))
        totals.append(torch.stack(of_tiles).logsumexp(0))  # (rows,)
        losses.append(totals[-1] - torch.stack(at).sum(0))
    loss, total = torch.cat(losses), torch.cat(totals)
    return (loss if hole else loss.masked_fill(columns < 0, 0)), total


def _tile_columns(hidden: Tensor, weight: Tensor, tile: int) -> list[slice]:
    return _pieces(len(weight), tile // max(1, min(len(hidden), MOST_ROWS)))


def _pieces(n: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(start, start + step) for start in range(0, max(1, n), step)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = times_transposed(hidden, weight)  # (rows, size)
    z = z.to(_wide(z))
    return z if bias is None else z.add_(bias)


def _take(z: Tensor, columns: Tensor, hole: bool) -> Tensor:
    """Logits of the targets, 0 for those of other tiles; or the holes are left out of z, and 0."""
    inside = (columns >= 0) & (columns < z.shape[1])
    at = columns.clamp(0, z.shape[1] - 1)[:, None]
    values = z.gather(1, at).squeeze(1)
    if not hole:
        return values.where(inside, 0)
    z.scatter_(1, at, values.masked_fill(inside, torch.finfo(z.dtype).min)[:, None])
    return torch.zeros_like(values)


def _softmax_(z: Tensor) -> Tensor:
    """z becomes its softmax; returns the logarithm of the sum of exponentials."""
    top = z.amax(1)
    torch.softmax(z, 1, out=z)
    return top - z.amax(1).log()  # the largest probability is exp(0) / sum


def _subtract_target_(p: Tensor, columns: Tensor, hole: bool) -> None:
    if hole:
        return
    inside = (columns >= 0) & (columns < p.shape[1])
    p.scatter_add_(1, columns.clamp(0, p.shape[1] - 1)[:, None], -inside.to(p.dtype)[:, None])


def _scaled(grad: Tensor, hidden: Tensor, columns: Tensor, hole: bool) -> tuple[Tensor, Tensor]:
    g = grad if hole else grad.masked_fill(columns < 0, 0)
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
