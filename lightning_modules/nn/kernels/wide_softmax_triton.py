"""Triton kernels of `wide_softmax`, whose docstring defines the numbers.

A program computes one row, or one block of a row, in float32. Logits are `stride` numbers apart from
row to row. Strides are multiples of 16, so that a thread reads 16 bytes at once.
"""

import torch
import triton
import triton.language as tl

# Not -inf, because inf - inf is NaN.
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
NOTHING = tl.constexpr(float("-inf"))


@triton.jit  # type: ignore[untyped-decorator]
def _aligned(size: tl.tensor) -> tl.tensor:
    """Return size rounded up, so that all masks of the 16 bytes that a thread moves are equal."""
    return (size + 15) // 16 * 16


@triton.jit  # type: ignore[untyped-decorator]
def _load(
    logits: tl.tensor,
    bias: tl.tensor,
    at: tl.tensor,
    hit: tl.tensor,
    size: tl.tensor,
    biased: tl.constexpr,
    exclude: tl.constexpr,
) -> tl.tensor:
    """Return logits of a row, -inf beyond its end, LOWEST at the excluded column."""
    z = tl.load(logits + at, mask=at < _aligned(size), other=NOTHING).to(tl.float32)
    z = tl.where(at < size, z, NOTHING)
    if biased:
        z += tl.load(bias + at, mask=at < size, other=0.0).to(tl.float32)
    if exclude:
        z = tl.where(hit, LOWEST, z)
    return z


@triton.jit  # type: ignore[untyped-decorator]
def _store(
    logits: tl.tensor,
    e: tl.tensor,
    at: tl.tensor,
    hit: tl.tensor,
    size: tl.tensor,
    scale: tl.tensor,
    exclude: tl.constexpr,
) -> None:
    """Overwrite logits of a row with e scale, less 1 at the target, or 0 at the excluded column."""
    p = e * scale
    p = tl.where(hit, 0.0, p) if exclude else p - tl.where(hit, 1.0, 0.0)
    tl.store(logits + at, p.to(logits.dtype.element_ty), mask=at < _aligned(size))


@triton.jit  # type: ignore[untyped-decorator]
def whole_row(
    logits: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    losses: tl.tensor,
    size: tl.tensor,
    stride: tl.tensor,
    biased: tl.constexpr,
    exclude: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Compute the loss of a row of at most ``block`` columns; overwrite the row with its gradient."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.load(columns + row).to(tl.int32)
    logits += row * stride
    at = tl.arange(0, block)
    hit = at == column
    z = _load(logits, bias, at, hit, size, biased, exclude)
    top = tl.maximum(tl.max(z, 0), LOWEST)
    e = tl.exp(z - top)
    total = tl.sum(e, 0)
    loss = top + tl.log(total)
    if not exclude:
        loss -= tl.sum(tl.where(hit, z, 0.0), 0)
        loss = tl.where(column < 0, 0.0, loss)
    _store(logits, e, at, hit, size, 1.0 / total, exclude)
    tl.store(losses + row, loss)


@triton.jit  # type: ignore[untyped-decorator]
def _row_totals(
    logits: tl.tensor,
    bias: tl.tensor,
    column: tl.tensor,
    size: tl.tensor,
    biased: tl.constexpr,
    exclude: tl.constexpr,
    block: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Return a row's maximum, the sum of the exponentials of the differences, and the target's logit."""
    top = tl.full((), LOWEST, tl.float32)
    total = tl.full((), 0.0, tl.float32)
    target = tl.full((), 0.0, tl.float32)
    for start in range(0, size, block):
        at = start + tl.arange(0, block)
        hit = at == column
        z = _load(logits, bias, at, hit, size, biased, exclude)
        higher = tl.maximum(top, tl.max(z, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(z - higher), 0)
        top = higher
        if not exclude:
            target += tl.sum(tl.where(hit, z, 0.0), 0)
    return top, total, target


@triton.jit  # type: ignore[untyped-decorator]
def long_row(
    logits: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    losses: tl.tensor,
    size: tl.tensor,
    stride: tl.tensor,
    biased: tl.constexpr,
    exclude: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Do what `whole_row` does for a row of any length, which is read twice."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.load(columns + row).to(tl.int32)
    logits += row * stride
    top, total, target = _row_totals(logits, bias, column, size, biased, exclude, block)
    for start in range(0, size, block):
        at = start + tl.arange(0, block)
        hit = at == column
        z = _load(logits, bias, at, hit, size, biased, exclude)
        _store(logits, tl.exp(z - top), at, hit, size, 1.0 / total, exclude)
    loss = top + tl.log(total)
    if not exclude:
        loss = tl.where(column < 0, 0.0, loss - target)
    tl.store(losses + row, loss)


@triton.jit  # type: ignore[untyped-decorator]
def _column_in_tile(column: tl.tensor, first: tl.tensor, size: tl.tensor) -> tl.tensor:
    """Return a row's column counted from the first of a tile, -1 if it is in another tile."""
    at = tl.load(column) - first
    return tl.where(at < size, at, -1).to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def tile_totals(
    logits: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    totals: tl.tensor,
    targets: tl.tensor,
    first: tl.tensor,
    size: tl.tensor,
    stride: tl.tensor,
    biased: tl.constexpr,
    exclude: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Add a tile's columns to each row's total, and its logit to the targets that are in the tile."""
    row = tl.program_id(0).to(tl.int64)
    column = _column_in_tile(columns + row, first, size)
    top, total, target = _row_totals(
        logits + row * stride, bias, column, size, biased, exclude, block
    )
    here = top + tl.log(total)
    before = tl.load(totals + row)
    higher = tl.maximum(tl.maximum(here, before), LOWEST)
    tl.store(totals + row, higher + tl.log(tl.exp(here - higher) + tl.exp(before - higher)))
    if not exclude:
        tl.store(targets + row, tl.load(targets + row) + target)


@triton.jit  # type: ignore[untyped-decorator]
def tile_gradient(
    logits: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    totals: tl.tensor,
    first: tl.tensor,
    size: tl.tensor,
    stride: tl.tensor,
    biased: tl.constexpr,
    exclude: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Overwrite a block of a tile's row with its gradient."""
    row = tl.program_id(0).to(tl.int64)
    column = _column_in_tile(columns + row, first, size)
    logits += row * stride
    at = tl.program_id(1) * block + tl.arange(0, block)
    hit = at == column
    z = _load(logits, bias, at, hit, size, biased, exclude)
    _store(logits, tl.exp(z - tl.load(totals + row)), at, hit, size, 1.0, exclude)
