"""Triton kernels of `convolution`, whose docstring defines the numbers and the arguments.

Sums are float32. A tile of windows has a row per type. Its columns are the vectors of the characters of a
window: ``taps`` characters with ``depth`` numbers each. The columns beyond the filter's size and beyond
``dim`` are padding. Indices of rows are int64, so that no address overflows.

``table`` has six constants per width, see `Layout`.
"""

import triton
import triton.language as tl

CONSTANTS = tl.constexpr(6)


@triton.jit  # type: ignore[untyped-decorator]
def _width_of(block: tl.tensor, table: tl.constexpr, aligned: tl.constexpr) -> tl.tensor:
    """Return the constants of the width to which a block of filters belongs."""
    size, number, start, first, column, before = 0, 0, 0, 0, 0, 0
    for j in tl.static_range(0, len(table), CONSTANTS):
        here = block >= table[j + 5]
        size = tl.where(here, table[j], size)
        number = tl.where(here, table[j + 1], number)
        start = tl.where(here, table[j + 2], start)
        first = tl.where(here, table[j + 3], first)
        column = tl.where(here, table[j + 4], column)
        before = tl.where(here, table[j + 5], before)
    if aligned:
        number, start = tl.multiple_of(number, 16), tl.multiple_of(start, 16)
        first = tl.multiple_of(first, 16)
    return size, number, start, first, column, before


@triton.jit  # type: ignore[untyped-decorator]
def _window(
    ids: tl.tensor,
    characters: tl.tensor,
    row: tl.tensor,
    used: tl.tensor,
    s: tl.tensor,
    size: tl.tensor,
    length: tl.tensor,
    pad: tl.tensor,
    dim: tl.constexpr,
    taps: tl.constexpr,
    depth: tl.constexpr,
    tile_types: tl.constexpr,
) -> tl.tensor:
    """Return the vectors of the characters in window s of each type, (tile_types, taps * depth)."""
    tap = tl.arange(0, taps)[None, :]
    seen = used[:, None] & (tap < size)
    place = s + tap
    at = tl.load(ids + row[:, None] * length + place, mask=seen & (place < length), other=pad)
    column = tl.arange(0, depth)[None, None, :]
    mask = seen[:, :, None] & (column < dim)
    x = tl.load(characters + at[:, :, None] * dim + column, mask=mask, other=0.0)
    return tl.reshape(x, (tile_types, taps * depth))


@triton.jit  # type: ignore[untyped-decorator]
def _weights_at(
    size: tl.tensor,
    number: tl.tensor,
    f: tl.tensor,
    dim: tl.constexpr,
    taps: tl.constexpr,
    depth: tl.constexpr,
) -> tl.tensor:
    """Return where a width's weights are, (taps * depth, filters), and which of them exist."""
    k = tl.arange(0, taps * depth)[:, None]
    tap, column = k // depth, k % depth
    mask = (tap < size) & (column < dim) & (f < number)[None, :]
    return (tap * dim + column) * number + f[None, :], mask


@triton.jit  # type: ignore[untyped-decorator]
def maxima(
    ids: tl.tensor,
    characters: tl.tensor,
    weights: tl.tensor,
    bias: tl.tensor,
    values: tl.tensor,
    windows: tl.tensor,
    types: tl.tensor,
    length: tl.tensor,
    most: tl.tensor,
    pad: tl.tensor,
    table: tl.constexpr,
    filters: tl.constexpr,
    dim: tl.constexpr,
    taps: tl.constexpr,
    depth: tl.constexpr,
    tile_types: tl.constexpr,
    tile_filters: tl.constexpr,
    aligned: tl.constexpr,
) -> None:
    size, number, start, first, _, before = _width_of(tl.program_id(1), table, aligned)
    row = tl.program_id(0).to(tl.int64) * tile_types + tl.arange(0, tile_types)
    f = (tl.program_id(1) - before) * tile_filters + tl.arange(0, tile_filters)
    used = row < types
    at, mask = _weights_at(size, number, f, dim, taps, depth)
    w = tl.load(weights + start + at, mask=mask, other=0.0)

    top = tl.full((tile_types, tile_filters), float("-inf"), tl.float32)
    window = tl.full((tile_types, tile_filters), 0, tl.int32)
    for s in range(0, tl.minimum(length, most - size) + 1):
        x = _window(ids, characters, row, used, s, size, length, pad, dim, taps, depth, tile_types)
        y = tl.dot(x, w, input_precision="ieee")
        higher = (y > top) | (y != y)  # NaN stays
        top, window = tl.where(higher, y, top), tl.where(higher, s, window)
    top += tl.load(bias + first + f, mask=f < number, other=0.0).to(tl.float32)[None, :]
    at = row[:, None] * filters + (first + f)[None, :]
    mask = used[:, None] & (f < number)[None, :]
    tl.store(values + at, top.to(values.dtype.element_ty), mask=mask)
    tl.store(windows + at, window.to(windows.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def d_weights(
    ids: tl.tensor,
    characters: tl.tensor,
    gradient: tl.tensor,
    windows: tl.tensor,
    result: tl.tensor,
    types: tl.tensor,
    length: tl.tensor,
    most: tl.tensor,
    pad: tl.tensor,
    chunk: tl.tensor,
    table: tl.constexpr,
    filters: tl.constexpr,
    weights: tl.constexpr,
    dim: tl.constexpr,
    taps: tl.constexpr,
    depth: tl.constexpr,
    tile_types: tl.constexpr,
    tile_filters: tl.constexpr,
    aligned: tl.constexpr,
) -> None:
    size, number, start, first, _, before = _width_of(tl.program_id(1), table, aligned)
    f = (tl.program_id(1) - before) * tile_filters + tl.arange(0, tile_filters)
    begin = tl.program_id(0) * chunk
    end = tl.minimum(begin + chunk, types)
    total = tl.full((taps * depth, tile_filters), 0, tl.float32)
    for tile in range(begin, end, tile_types):
        row = tile + tl.arange(0, tile_types).to(tl.int64)
        used = row < end
        at = row[:, None] * filters + (first + f)[None, :]
        mask = used[:, None] & (f < number)[None, :]
        d = tl.load(gradient + at, mask=mask, other=0.0)
        window = tl.load(windows + at, mask=mask, other=0)
        for s in range(0, tl.minimum(length, most - size) + 1):
            x = _window(
                ids, characters, row, used, s, size, length, pad, dim, taps, depth, tile_types
            )
            here = tl.where(window == s, d, 0.0).to(d.dtype)
            total = tl.dot(tl.trans(x), here, total, input_precision="ieee")
    at, mask = _weights_at(size, number, f, dim, taps, depth)
    tl.store(result + tl.program_id(0).to(tl.int64) * weights + start + at, total, mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def d_windows(
    weights: tl.tensor,
    gradient: tl.tensor,
    windows: tl.tensor,
    result: tl.tensor,
    types: tl.tensor,
    length: tl.tensor,
    table: tl.constexpr,
    filters: tl.constexpr,
    columns: tl.constexpr,
    dim: tl.constexpr,
    taps: tl.constexpr,
    depth: tl.constexpr,
    tile_types: tl.constexpr,
    tile_filters: tl.constexpr,
    aligned: tl.constexpr,
) -> None:
    size, number, start, first, column, _ = _width_of(tl.program_id(1), table, aligned)
    pairs = (
        length + 2
    ) // 2  # a program computes two windows, so that operands are read half as often
    s = tl.program_id(0) % pairs * 2
    row = (tl.program_id(0) // pairs).to(tl.int64) * tile_types + tl.arange(0, tile_types)
    used = row < types
    total = tl.full((tile_types, taps * depth), 0, tl.float32)
    next_total = tl.full((tile_types, taps * depth), 0, tl.float32)
    for tile in range(0, number, tile_filters):
        f = tile + tl.arange(0, tile_filters)
        at = row[:, None] * filters + (first + f)[None, :]
        mask = used[:, None] & (f < number)[None, :]
        d = tl.load(gradient + at, mask=mask, other=0.0)
        window = tl.load(windows + at, mask=mask, other=0)
        at, mask = _weights_at(size, number, f, dim, taps, depth)
        w = tl.trans(tl.load(weights + start + at, mask=mask, other=0.0))
        here = tl.where(window == s, d, 0.0).to(d.dtype)
        total = tl.dot(here, w, total, input_precision="ieee")
        here = tl.where(window == s + 1, d, 0.0).to(d.dtype)
        next_total = tl.dot(here, w, next_total, input_precision="ieee")
    k = tl.arange(0, taps * depth)
    tap, within = k // depth, k % depth
    at = (row * (length + 1) + s)[:, None] * columns + (column + tap * dim + within)[None, :]
    mask = used[:, None] & ((tap < size) & (within < dim))[None, :]
    kind = result.dtype.element_ty
    tl.store(result + at, total.to(kind), mask=mask)
    tl.store(result + at + columns, next_total.to(kind), mask=mask & (s < length))


@triton.jit  # type: ignore[untyped-decorator]
def d_places(
    ids: tl.tensor,
    d_window: tl.tensor,
    result: tl.tensor,
    seen: tl.tensor,
    types: tl.tensor,
    length: tl.tensor,
    places: tl.tensor,
    pad: tl.tensor,
    table: tl.constexpr,
    columns: tl.constexpr,
    dim: tl.constexpr,
    depth: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    at = tl.program_id(0) * tile + tl.arange(0, tile)
    used = at < types * places
    row, place = (at // places).to(tl.int64), at % places  # a division of int32 is faster
    at = at.to(tl.int64)
    within = tl.arange(0, depth)[None, :]
    total = tl.full((tile, depth), 0, tl.float32)
    for j in tl.static_range(0, len(table), CONSTANTS):
        for tap in range(0, table[j]):
            s = place - tap
            mask = (used & (s >= 0) & (s <= length))[:, None] & (within < dim)
            column = (row * (length + 1) + s) * columns + table[j + 4] + tap * dim
            d = tl.load(d_window + column[:, None] + within, mask=mask, other=0.0)
            total += d.to(tl.float32)
    tl.store(result + at[:, None] * dim + within, total, mask=used[:, None] & (within < dim))
    character = tl.load(ids + row * length + place, mask=used & (place < length), other=pad)
    tl.store(seen + at, character, mask=used)
