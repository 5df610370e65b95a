"""Triton kernels of `narrow_softmax`, whose docstring defines the numbers.

`width` is dim rounded up to a power of 2 of at least 16, the smallest that tl.dot multiplies.
"""

import torch
import triton
import triton.language as tl

# Not -inf, because inf - inf is NaN.
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
NOTHING = tl.constexpr(float("-inf"))


@triton.jit  # type: ignore[untyped-decorator]
def _block(
    matrix: tl.tensor, rows: tl.tensor, n: tl.tensor, dim: tl.constexpr, width: tl.constexpr
) -> tl.tensor:
    """Load rows of a matrix (n, dim), padded with zeros to `width` columns."""
    at = tl.arange(0, width)
    inside = (rows < n)[:, None] & (at < dim)[None, :]
    return tl.load(matrix + rows[:, None] * dim + at[None, :], mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _gradient(
    grad: tl.tensor, rows: tl.tensor, n: tl.tensor, column: tl.tensor, exclude: tl.constexpr
) -> tl.tensor:
    """Load the gradients of losses; those of ignored rows are 0."""
    g = tl.load(grad + rows, mask=rows < n, other=0.0)
    return g if exclude else tl.where(column < 0, 0.0, g)


@triton.jit  # type: ignore[untyped-decorator]
def sums(
    hidden: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    result: tl.tensor,
    n: tl.tensor,
    size: tl.tensor,
    chunk: tl.tensor,
    dim: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    biased: tl.constexpr,
    exclude: tl.constexpr,
) -> None:
    """Compute the largest logit and the sum of exponentials of a block of rows in a chunk."""
    number = tl.program_id(1)
    rows = tl.program_id(0) * block + tl.arange(0, block)
    h = _block(hidden, rows, n, dim, width)
    if exclude:
        column = tl.load(columns + rows, mask=rows < n, other=-1).to(tl.int32)
    top = tl.full((block,), LOWEST, tl.float32)
    total = tl.full((block,), 0.0, tl.float32)
    end = tl.minimum((number + 1) * chunk, size)
    for start in range(number * chunk, end, tile):
        at = start + tl.arange(0, tile)
        z = tl.dot(h, tl.trans(_block(weight, at, size, dim, width)))
        if biased:
            z += tl.load(bias + at, mask=at < size, other=0.0)[None, :]
        if exclude:
            z = tl.where(at[None, :] == column[:, None], LOWEST, z)
        z = tl.where((at < size)[None, :], z, NOTHING)
        higher = tl.maximum(top, tl.max(z, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(z - higher[:, None]), 1)
        top = higher
    result += number * n
    tl.store(result + rows, top, mask=rows < n)
    tl.store(result + tl.num_programs(1) * n + rows, total, mask=rows < n)


@triton.jit  # type: ignore[untyped-decorator]
def loss(
    sums: tl.tensor,
    hidden: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    losses: tl.tensor,
    totals: tl.tensor,
    n: tl.tensor,
    chunks: tl.tensor,
    dim: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    most_chunks: tl.constexpr,
    biased: tl.constexpr,
    exclude: tl.constexpr,
) -> None:
    """Add the chunks of a block of rows; subtract the targets' logits."""
    rows = tl.program_id(0) * block + tl.arange(0, block)
    number = tl.arange(0, most_chunks)
    inside = (number < chunks)[:, None] & (rows < n)[None, :]
    at = sums + number[:, None] * n + rows[None, :]
    tops = tl.load(at, mask=inside, other=LOWEST)
    top = tl.max(tops, 0)
    parts = tl.load(at + chunks * n, mask=inside, other=0.0)
    total = top + tl.log(tl.sum(parts * tl.exp(tops - top[None, :]), 0))
    loss = total
    if not exclude:
        column = tl.load(columns + rows, mask=rows < n, other=-1).to(tl.int32)
        inner = tl.arange(0, width)
        both = (column >= 0)[:, None] & (inner < dim)[None, :]
        h = tl.load(hidden + rows[:, None] * dim + inner[None, :], mask=both, other=0.0)
        w = tl.load(weight + column[:, None] * dim + inner[None, :], mask=both, other=0.0)
        loss -= tl.sum(h.to(tl.float32) * w.to(tl.float32), 1)
        if biased:
            loss -= tl.load(bias + column, mask=column >= 0, other=0.0)
        loss = tl.where(column < 0, 0.0, loss)
    tl.store(losses + rows, loss, mask=rows < n)
    tl.store(totals + rows, total, mask=rows < n)


@triton.jit  # type: ignore[untyped-decorator]
def d_hidden(
    hidden: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    totals: tl.tensor,
    grad: tl.tensor,
    result: tl.tensor,
    n: tl.tensor,
    size: tl.tensor,
    chunk: tl.tensor,
    dim: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    biased: tl.constexpr,
    exclude: tl.constexpr,
) -> None:
    """Compute the part of a chunk of columns in the gradient of a block of rows."""
    number = tl.program_id(1)
    rows = tl.program_id(0) * block + tl.arange(0, block)
    h = _block(hidden, rows, n, dim, width)
    column = tl.load(columns + rows, mask=rows < n, other=-1).to(tl.int32)
    total = tl.load(totals + rows, mask=rows < n, other=0.0)
    summed = tl.full((block, width), 0.0, tl.float32)
    end = tl.minimum((number + 1) * chunk, size)
    for start in range(number * chunk, end, tile):
        at = start + tl.arange(0, tile)
        w = _block(weight, at, size, dim, width)
        z = tl.dot(h, tl.trans(w))
        if biased:
            z += tl.load(bias + at, mask=at < size, other=0.0)[None, :]
        z = tl.where((at < size)[None, :], z, NOTHING)
        p = tl.exp(z - total[:, None])
        hit = at[None, :] == column[:, None]
        p = tl.where(hit, 0.0, p) if exclude else p - tl.where(hit, 1.0, 0.0)
        summed = tl.dot(p.to(h.dtype), w, summed)
    summed *= _gradient(grad, rows, n, column, exclude)[:, None]
    inner = tl.arange(0, width)
    to = result + number.to(tl.int64) * n * dim + rows[:, None] * dim + inner[None, :]
    tl.store(to, summed, mask=(rows < n)[:, None] & (inner < dim)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def d_weight(
    hidden: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    columns: tl.tensor,
    totals: tl.tensor,
    grad: tl.tensor,
    result: tl.tensor,
    d_bias: tl.tensor,
    n: tl.tensor,
    size: tl.tensor,
    dim: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    biased: tl.constexpr,
    exclude: tl.constexpr,
) -> None:
    """Compute the gradients of a tile of rows of the weight, and of their biases."""
    at = tl.program_id(0) * tile + tl.arange(0, tile)
    w = _block(weight, at, size, dim, width)
    if biased:
        b = tl.load(bias + at, mask=at < size, other=0.0)
        bias_sum = tl.full((tile,), 0.0, tl.float32)
    summed = tl.full((tile, width), 0.0, tl.float32)
    for start in range(0, n, block):
        rows = start + tl.arange(0, block)
        h = _block(hidden, rows, n, dim, width)
        column = tl.load(columns + rows, mask=rows < n, other=-1).to(tl.int32)
        total = tl.load(totals + rows, mask=rows < n, other=0.0)
        g = _gradient(grad, rows, n, column, exclude)
        z = tl.dot(w, tl.trans(h))
        if biased:
            z += b[:, None]
        p = tl.exp(z - total[None, :])
        hit = at[:, None] == column[None, :]
        p = tl.where(hit, 0.0, p) if exclude else p - tl.where(hit, 1.0, 0.0)
        p *= g[None, :]
        if biased:
            bias_sum += tl.sum(p, 1)
        summed = tl.dot(p.to(h.dtype), h, summed)
    inner = tl.arange(0, width)
    to = result + at[:, None] * dim + inner[None, :]
    tl.store(to, summed, mask=(at < size)[:, None] & (inner < dim)[None, :])
    if biased:
        tl.store(d_bias + at, bias_sum, mask=at < size)
