"""The convolution and the pointwise part of the highway layers of a character CNN in fused kernels.

Values between matmuls have the matmuls' dtype, under autocast too, where the eager form has float32. All
shapes depend on the arguments' shapes only, nothing is read by the host, and sums have a fixed order, so
that the gradient is deterministic to the bit.
"""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.nn.kernels.convolution import (
    convolution_d_places,
    convolution_d_weights,
    convolution_d_windows,
    convolution_maxima,
)
from lightning_modules.nn.kernels.convolution_layout import layout_of
from lightning_modules.nn.kernels.highway import highway_backward, highway_forward

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def fused_dtype(characters: Tensor, filters: list[Tensor]) -> torch.dtype | None:
    """Return the dtype of the matmuls; None if the kernels do not know it, or the windows are too wide.

    Args:
        characters: vectors of the characters.
        filters: weights of each width.
    """
    device, dim, dtype = characters.device.type, characters.shape[1], characters.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    is_used = dtype in DTYPES and layout_of(*_widths(filters, dim), dim, dtype) is not None
    return dtype if is_used else None


def fused_convolution(
    buckets: tuple[Tensor, ...],
    max_characters: int,
    pad: int,
    characters: Tensor,
    bias: Tensor,
    filters: list[Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """Return the maximum over windows plus the bias, (types, filters), in the dtype of the matmuls.

    Args:
        buckets: types as in `Types.characters`.
        max_characters: most characters of a word.
        pad: id of padding.
        characters: vectors of the characters.
        bias: bias of each filter.
        filters: weights of each width, (size * dim, number).
        dtype: dtype of the matmuls.
    """
    result: Tensor = _Convolution.apply(
        buckets, max_characters, pad, dtype, characters, bias, *filters
    )
    return result


def fused_highway(both: Tensor, x: Tensor) -> Tensor:
    """Return g relu(t) + (1 - g) x, g = sigmoid(a).

    Args:
        both: the sums [a, t], (rows, 2 * width).
        x: (rows, width), in the dtype of ``both``.
    """
    result: Tensor = _Highway.apply(both, x)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        buckets: tuple[Tensor, ...],
        max_characters: int,
        pad: int,
        dtype: torch.dtype,
        characters: Tensor,
        bias: Tensor,
        *filters: Tensor,
    ) -> Tensor:
        table = characters.to(dtype)
        weights = torch.cat([weight.reshape(-1) for weight in filters]).to(dtype)
        ctx.options = (*_widths(filters, characters.shape[1]), max_characters, pad)
        ctx.dtypes = [x.dtype for x in (characters, bias, *filters)]
        ctx.shapes = [weight.shape for weight in filters]
        y = table.new_empty(sum(map(len, buckets)), len(bias))
        # The last window has the number max_characters - 1 or less.
        small = torch.uint8 if max_characters <= 256 else torch.int16
        windows = torch.empty_like(y, dtype=small)
        for rows, ids in _rows(buckets):
            convolution_maxima(ids, table, weights, bias, y[rows], windows[rows], *ctx.options)
        ctx.save_for_backward(table, weights, windows, *buckets)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        table, weights, windows, *buckets = ctx.saved_tensors
        needs, d_y = ctx.needs_input_grad[4:], d_y.contiguous()
        d_characters = d_bias = None
        d_filters: list[Tensor | None] = [None] * len(ctx.shapes)
        if needs[0]:
            d_characters = _d_characters(ctx, d_y, weights, windows, table, buckets)
            d_characters = d_characters.to(ctx.dtypes[0])
        if needs[1]:
            d_bias = d_y.sum(0, dtype=torch.float32).to(ctx.dtypes[1])
        if any(needs[2:]):
            flat = _d_weights(ctx, d_y, weights, windows, table, buckets)
            parts = flat.split([shape.numel() for shape in ctx.shapes])
            d_filters = [
                part.view(shape).to(dtype)
                for part, shape, dtype in zip(parts, ctx.shapes, ctx.dtypes[2:], strict=True)
            ]
        return None, None, None, None, d_characters, d_bias, *d_filters


def _d_weights(
    ctx: Any, d_y: Tensor, weights: Tensor, windows: Tensor, table: Tensor, buckets: list[Tensor]
) -> Tensor:
    """Return the gradient of all weights, float32."""
    sizes, numbers, *_ = ctx.options
    layout = layout_of(sizes, numbers, table.shape[1], table.dtype)
    assert layout
    counts = [layout.chunks_of(len(ids))[0] for ids in buckets]
    sums = weights.new_empty(sum(counts), len(weights), dtype=torch.float32)
    parts = [part for part in sums.split(counts) if len(part)]
    for part, (rows, ids) in zip(parts, _rows(buckets), strict=True):
        convolution_d_weights(ids, table, d_y[rows], windows[rows], part, *ctx.options)
    return sums.sum(0)


def _d_characters(
    ctx: Any, d_y: Tensor, weights: Tensor, windows: Tensor, table: Tensor, buckets: list[Tensor]
) -> Tensor:
    """Return the gradient of the characters' vectors, float32."""
    sizes, numbers, _, pad = ctx.options
    dim = table.shape[1]
    counts = [len(ids) * (ids.shape[1] + max(sizes)) for ids in buckets]
    d_places = weights.new_empty(sum(counts), dim, dtype=torch.float32)
    seen = d_places.new_empty(sum(counts), dtype=torch.int64)
    places = [part for part in d_places.split(counts) if len(part)]
    parts = zip(places, (part for part in seen.split(counts) if len(part)), strict=True)
    for (d_place, at), (rows, ids) in zip(parts, _rows(buckets), strict=True):
        d_windows = weights.new_empty(len(ids), ids.shape[1] + 1, dim * sum(sizes))
        convolution_d_windows(weights, d_y[rows], windows[rows], d_windows, sizes, numbers)
        convolution_d_places(ids, d_windows, d_place, at, sizes, pad)
    # Deterministic on a GPU too, because it sorts the ids.
    d_characters: Tensor = torch.ops.aten.embedding_dense_backward(
        d_places, seen, len(table), -1, False
    )
    return d_characters


class _Highway(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(both, x)
        y: Tensor = highway_forward(both, x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor] = highway_backward(*ctx.saved_tensors, d_y.contiguous())
        return gradients


def _widths(filters: Any, dim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the size and the number of the filters of each width."""
    shapes = [weight.shape for weight in filters]
    return tuple(rows // dim for rows, _ in shapes), tuple(number for _, number in shapes)


def _rows(buckets: Any) -> list[tuple[slice, Tensor]]:
    """Return the rows of each bucket that is not empty, and its types."""
    ends = accumulate(map(len, buckets), initial=0)
    rows = [slice(*bounds) for bounds in pairwise(ends)]
    return [(each, ids.contiguous()) for each, ids in zip(rows, buckets, strict=True) if len(ids)]
