"""Convolution of words' characters and its maximum over windows, all widths at once, and the gradient.

    z_f(t, s) = sum_i characters[word_t[s + i]] W_f[i]
    y_f(t)    = bias_f + max_s z_f(t, s)

for types t of one bucket, (types, length), and filters f of all widths. Positions from `length` on hold
padding. Windows s run from 0 to min(length, max_characters - size of the filter), so that the last one
sees only padding if `max_characters` leaves room for it. The first of equal maxima counts. A NaN stays.

Operands are bfloat16, float16 or float32; sums are float32. A tile of windows is made in registers from
the table of characters, so no window is in memory. Gradients are matrix products too: in a window, only
those filters have a gradient whose maximum is there. All sums have a fixed order.

Shapes: types (of the bucket), filters (of all widths), columns = dim * the sum of the sizes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lightning_modules.nn.kernels.convolution_layout import PLACES, Layout, layout_of
from lightning_modules.nn.kernels.traffic import Traffic, register


def _layout(sizes: Sequence[int], numbers: Sequence[int], dim: int, dtype: torch.dtype) -> Layout:
    layout = layout_of(tuple(sizes), tuple(numbers), dim, dtype)
    assert layout
    return layout


@torch.library.custom_op("biloom::convolution_maxima", mutates_args=("values", "windows"))
def convolution_maxima(
    ids: Tensor,
    characters: Tensor,
    weights: Tensor,
    bias: Tensor,
    values: Tensor,
    windows: Tensor,
    sizes: Sequence[int],
    numbers: Sequence[int],
    max_characters: int,
    pad: int,
) -> None:
    """Compute y, and the window of each maximum.

    Args:
        ids: int64 (types, length).
        characters: (number of characters, dim).
        weights: for each width, the numbers of a (size * dim, number) matrix, all in the dtype of
            ``characters``.
        bias: (filters,).
        values: output, (types, filters).
        windows: output, (types, filters), of a dtype of integers.
        sizes: size of the filters of each width.
        numbers: number of filters of each width.
        max_characters: most characters of a word, at least the longest size.
        pad: id of padding.
    """
    from lightning_modules.nn.kernels import convolution_triton

    layout, (types, length) = (
        _layout(sizes, numbers, characters.shape[1], characters.dtype),
        ids.shape,
    )
    with torch.cuda.device_of(ids):
        convolution_triton.maxima[layout.blocks_of(types), layout.blocks](
            ids, characters, weights, bias, values, windows, types, length, max_characters, pad,
            **layout.arguments("maxima"),
        )  # fmt: skip


@convolution_maxima.register_fake
def _(ids: Tensor, *_: Any) -> None: ...


@register("biloom::convolution_maxima")
def _(
    ids: Tensor,
    characters: Tensor,
    weights: Tensor,
    bias: Tensor,
    values: Tensor,
    windows: Tensor,
    sizes: Sequence[int],
    numbers: Sequence[int],
    max_characters: int,
    pad: int,
) -> Traffic:
    layout, types = _layout(sizes, numbers, characters.shape[1], characters.dtype), len(ids)
    blocks = layout.blocks_of(types)
    read = _windows_read(ids, characters, layout, max_characters)
    return Traffic(read + blocks * (weights.nbytes + bias.nbytes), values.nbytes + windows.nbytes)


@torch.library.custom_op("biloom::convolution_d_weights", mutates_args=("result",))
def convolution_d_weights(
    ids: Tensor,
    characters: Tensor,
    gradient: Tensor,
    windows: Tensor,
    result: Tensor,
    sizes: Sequence[int],
    numbers: Sequence[int],
    max_characters: int,
    pad: int,
) -> None:
    """Compute the gradient of the weights in each part of a bucket; the sum over the parts is the gradient.

    Args:
        ids: as in `convolution_maxima`, and so are all others.
        characters: likewise.
        gradient: gradient of y, in the dtype of ``characters``.
        windows: windows of the maxima.
        result: output, float32 (parts, weights), with as many parts as `Layout.chunks_of` says.
        sizes: likewise.
        numbers: likewise.
        max_characters: likewise.
        pad: likewise.
    """
    from lightning_modules.nn.kernels import convolution_triton

    layout, (types, length) = (
        _layout(sizes, numbers, characters.shape[1], characters.dtype),
        ids.shape,
    )
    chunks, chunk = layout.chunks_of(types)
    with torch.cuda.device_of(ids):
        convolution_triton.d_weights[chunks, layout.blocks](
            ids, characters, gradient, windows, result, types, length, max_characters, pad, chunk,
            **layout.arguments("d_weights"),
        )  # fmt: skip


@convolution_d_weights.register_fake
def _(ids: Tensor, *_: Any) -> None: ...


@register("biloom::convolution_d_weights")
def _(
    ids: Tensor,
    characters: Tensor,
    gradient: Tensor,
    windows: Tensor,
    result: Tensor,
    sizes: Sequence[int],
    numbers: Sequence[int],
    max_characters: int,
    pad: int,
) -> Traffic:
    layout = _layout(sizes, numbers, characters.shape[1], characters.dtype)
    read = _windows_read(ids, characters, layout, max_characters)
    return Traffic(read + gradient.nbytes + windows.nbytes, result.nbytes)


@torch.library.custom_op("biloom::convolution_d_windows", mutates_args=("result",))
def convolution_d_windows(
    weights: Tensor,
    gradient: Tensor,
    windows: Tensor,
    result: Tensor,
    sizes: Sequence[int],
    numbers: Sequence[int],
) -> None:
    """Compute the gradient of the characters' vectors in each window, by width and place in the window.

    Args:
        weights: as in `convolution_maxima`, and so are all others.
        gradient: gradient of y, in the dtype of ``weights``.
        windows: windows of the maxima.
        result: output, (types, length + 1, columns); a column is a place in the windows of a width, and a
            number of the vector there.
        sizes: likewise.
        numbers: likewise.
    """
    from lightning_modules.nn.kernels import convolution_triton

    types, length, columns = result.shape
    layout = _layout(sizes, numbers, columns // sum(sizes), weights.dtype)
    with torch.cuda.device_of(gradient):
        convolution_triton.d_windows[layout.blocks_of(types) * -(-length // 2), len(sizes)](
            weights, gradient, windows, result, types, length - 1,
            **layout.arguments("d_windows"),
        )  # fmt: skip


@convolution_d_windows.register_fake
def _(weights: Tensor, *_: Any) -> None: ...


@register("biloom::convolution_d_windows")
def _(
    weights: Tensor,
    gradient: Tensor,
    windows: Tensor,
    result: Tensor,
    sizes: Sequence[int],
    numbers: Sequence[int],
) -> Traffic:
    types, length, columns = result.shape
    layout = _layout(sizes, numbers, columns // sum(sizes), weights.dtype)
    each = gradient.nbytes + windows.nbytes + layout.blocks_of(types) * weights.nbytes
    return Traffic(-(-length // 2) * each, result.nbytes)  # two windows per program


@torch.library.custom_op("biloom::convolution_d_places", mutates_args=("result", "seen"))
def convolution_d_places(
    ids: Tensor, d_windows: Tensor, result: Tensor, seen: Tensor, sizes: Sequence[int], pad: int
) -> None:
    """Add the gradients of each position of a word, over widths and windows.

    Args:
        ids: as in `convolution_maxima`.
        d_windows: from `convolution_d_windows`.
        result: output, float32 (types * places, dim), for length + the longest size positions per type.
        seen: output, the character at each position, int64 (types * places,).
        sizes: as in `convolution_maxima`.
        pad: likewise.
    """
    from lightning_modules.nn.kernels import convolution_triton

    (types, length), dim = ids.shape, result.shape[1]
    layout = _layout(sizes, (1,) * len(sizes), dim, d_windows.dtype)
    with torch.cuda.device_of(ids):
        convolution_triton.d_places[(-(-len(result) // PLACES),)](
            ids, d_windows, result, seen, types, length, length + max(sizes), pad,
            **layout.arguments("d_places"),
        )  # fmt: skip


@convolution_d_places.register_fake
def _(ids: Tensor, *_: Any) -> None: ...


@register("biloom::convolution_d_places")
def _(
    ids: Tensor, d_windows: Tensor, result: Tensor, seen: Tensor, sizes: Sequence[int], pad: int
) -> Traffic:
    return Traffic(ids.nbytes + d_windows.nbytes, result.nbytes + seen.nbytes)


def _windows_of(ids: Tensor, size: int, max_characters: int) -> int:
    return min(ids.shape[1], max_characters - size) + 1


def _windows_read(ids: Tensor, characters: Tensor, layout: Layout, max_characters: int) -> int:
    """Return the bytes that all blocks of filters read to make the windows."""
    types, length = ids.shape
    total = 0
    for size, number in zip(layout.sizes, layout.numbers, strict=True):
        windows = _windows_of(ids, size, max_characters)
        places = sum(min(size, length - s) for s in range(min(windows, length)))
        vectors = windows * size * layout.dim * characters.itemsize
        total += -(-number // layout.tile) * types * (places * ids.itemsize + vectors)
    return total


def _flops(types: int, windows: Sequence[int], layout: Layout) -> int:
    widths = zip(windows, layout.sizes, layout.numbers, strict=True)
    return sum(2 * types * w * size * layout.dim * number for w, size, number in widths)


@register_flop_formula(
    [torch.ops.biloom.convolution_maxima, torch.ops.biloom.convolution_d_weights], get_raw=True
)
def _(ids: Tensor, characters: Tensor, *others: Any, **_: Any) -> int:
    sizes, numbers, max_characters, _ = others[-4:]
    windows = [_windows_of(ids, size, max_characters) for size in sizes]
    return _flops(len(ids), windows, _layout(sizes, numbers, characters.shape[1], characters.dtype))


@register_flop_formula(torch.ops.biloom.convolution_d_windows, get_raw=True)
def _(
    weights: Tensor,
    gradient: Tensor,
    windows: Tensor,
    result: Tensor,
    sizes: Sequence[int],
    numbers: Sequence[int],
    **_: Any,
) -> int:
    types, length, columns = result.shape
    layout = _layout(sizes, numbers, columns // sum(sizes), weights.dtype)
    return _flops(types, [length] * len(sizes), layout)
