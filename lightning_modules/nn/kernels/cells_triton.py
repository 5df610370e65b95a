"""Triton kernels of the modules `lstm` and `gru`, whose docstrings define the arguments.

A program computes a tile of one direction, with float32 arithmetic. Only operations that Triton's
interpreter knows are used; it does not know libdevice.

Memory: in a (directions, rows, n) tensor, only the distance between directions is an argument,
`..._stride`, because the rows follow each other. It is multiplied as int64; within a tile, int32 suffices.
"""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _sigmoid(x: tl.tensor) -> tl.tensor:
    return 1 / (1 + tl.exp(-x))


@triton.jit  # type: ignore[untyped-decorator]
def _tanh(x: tl.tensor) -> tl.tensor:
    """Return tanh(x), with a relative error of 3e-7 for small x too, and NaN for NaN."""
    square = x * x
    # The Taylor series below 1/4, where 1 - e has few correct digits.
    series = -17.0 / 315 + square * (62.0 / 2835)
    series = 1 + square * (-1.0 / 3 + square * (2.0 / 15 + square * series))
    e = tl.exp(-2 * tl.abs(x))
    magnitude = (1 - e) / (1 + e)
    return tl.where(square < 0.0625, x * series, tl.where(x < 0, -magnitude, magnitude))


@triton.jit  # type: ignore[untyped-decorator]
def _place(size: tl.constexpr, tile_rows: tl.constexpr, tile_columns: tl.constexpr) -> tl.tensor:
    """Return the direction and first row of the program's tile, and its columns, (1, tile_columns)."""
    blocks: tl.constexpr = (size + tile_columns - 1) // tile_columns
    program = tl.program_id(0)
    first = (program // blocks).to(tl.int64) * tile_rows
    column = (program % blocks) * tile_columns + tl.arange(0, tile_columns)[None, :]
    return tl.program_id(1).to(tl.int64), first, column


@triton.jit  # type: ignore[untyped-decorator]
def _load(pointer: tl.tensor, mask: tl.tensor) -> tl.tensor:
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _store(pointer: tl.tensor, value: tl.tensor, mask: tl.tensor) -> None:
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _gate(
    x: tl.tensor, pointer: tl.tensor, mask: tl.tensor, as_sums: tl.constexpr, is_tanh: tl.constexpr
) -> tl.tensor:
    """Return the value of a gate with the sum x; store the sum or the value."""
    if as_sums:
        _store(pointer, x, mask)
    value = _tanh(x) if is_tanh else _sigmoid(x)
    if not as_sums:
        _store(pointer, value, mask)
    return value


@triton.jit  # type: ignore[untyped-decorator]
def lstm_forward(
    gates: tl.tensor,
    recurrent: tl.tensor,
    bias: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    squashed: tl.tensor,
    keep: tl.tensor,
    clip: tl.tensor,
    rows: tl.tensor,
    gates_stride: tl.tensor,
    recurrent_stride: tl.tensor,
    before_stride: tl.tensor,
    after_stride: tl.tensor,
    squashed_stride: tl.tensor,
    size: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    clipped: tl.constexpr,
    kept: tl.constexpr,
    as_sums: tl.constexpr,
) -> None:
    direction, first, column = _place(size, tile_rows, tile_columns)
    row = tl.arange(0, tile_rows)[:, None]
    inside, used = first + row < rows, column < size
    mask = inside & used
    four, one = row * (4 * size) + column, row * size + column
    gates += direction * gates_stride + first * (4 * size)
    recurrent += direction * recurrent_stride + first * (4 * size)
    bias += direction * (4 * size)

    # A gate is stored before the next one is loaded, so that few registers are needed.
    factor = 1.0
    c = _load(before + direction * before_stride + first * size + one, mask)
    if kept:
        factor = _load(keep + direction * rows + first + row, inside)
        c *= factor
    i = _load(gates + four, mask) + _load(recurrent + four, mask) * factor
    i = _gate(i + _load(bias + column, used), gates + four, mask, as_sums, False)
    f = _load(gates + four + size, mask) + _load(recurrent + four + size, mask) * factor
    f = _gate(f + _load(bias + column + size, used), gates + four + size, mask, as_sums, False)
    at = four + 2 * size
    g = _load(gates + at, mask) + _load(recurrent + at, mask) * factor
    g = _gate(g + _load(bias + column + 2 * size, used), gates + at, mask, as_sums, True)
    c = f * c + i * g
    at = four + 3 * size
    o = _load(gates + at, mask) + _load(recurrent + at, mask) * factor
    o = _gate(o + _load(bias + column + 3 * size, used), gates + at, mask, as_sums, False)
    if clipped:  # with comparisons, because minimum and maximum lose a NaN
        c = tl.where(c > clip, clip, tl.where(c < -clip, -clip, c))
    _store(after + direction * after_stride + first * size + one, c, mask)
    _store(squashed + direction * squashed_stride + first * size + one, o * _tanh(c), mask)


@triton.jit  # type: ignore[untyped-decorator]
def lstm_backward(
    gates: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    d_squashed: tl.tensor,
    d_cell: tl.tensor,
    keep: tl.tensor,
    clip: tl.tensor,
    rows: tl.tensor,
    gates_stride: tl.tensor,
    before_stride: tl.tensor,
    after_stride: tl.tensor,
    d_squashed_stride: tl.tensor,
    d_cell_stride: tl.tensor,
    size: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    clipped: tl.constexpr,
    kept: tl.constexpr,
    as_sums: tl.constexpr,
) -> None:
    direction, first, column = _place(size, tile_rows, tile_columns)
    row = tl.arange(0, tile_rows)[:, None]
    inside = first + row < rows
    mask = inside & (column < size)
    four, one = row * (4 * size) + column, row * size + column
    gates += direction * gates_stride + first * (4 * size)
    d_cell += direction * d_cell_stride + first * size

    i, f = _load(gates + four, mask), _load(gates + four + size, mask)
    g, o = _load(gates + four + 2 * size, mask), _load(gates + four + 3 * size, mask)
    c = _load(before + direction * before_stride + first * size + one, mask)
    c_after = _load(after + direction * after_stride + first * size + one, mask)
    d_s = _load(d_squashed + direction * d_squashed_stride + first * size + one, mask)
    d_c = _load(d_cell + one, mask)
    if as_sums:
        i, f, g, o = _sigmoid(i), _sigmoid(f), _tanh(g), _sigmoid(o)
    tanh = _tanh(c_after)
    d_c += d_s * o * (1 - tanh * tanh)
    if clipped:  # a product, so that a NaN stays
        d_c *= (tl.abs(c_after) < clip).to(tl.float32)
    d_before = d_c * f
    if kept:
        factor = _load(keep + direction * rows + first + row, inside)
        c, d_before = c * factor, d_before * factor
    _store(gates + four, d_c * g * (i * (1 - i)), mask)
    _store(gates + four + size, d_c * c * (f * (1 - f)), mask)
    _store(gates + four + 2 * size, d_c * i * (1 - g * g), mask)
    _store(gates + four + 3 * size, d_s * tanh * (o * (1 - o)), mask)
    _store(d_cell + one, d_before, mask)


@triton.jit  # type: ignore[untyped-decorator]
def gru_forward(
    gates: tl.tensor,
    recurrent: tl.tensor,
    bias: tl.tensor,
    bias_hidden: tl.tensor,
    before: tl.tensor,
    after: tl.tensor,
    inner: tl.tensor,
    operand: tl.tensor,
    keep: tl.tensor,
    rows: tl.tensor,
    gates_stride: tl.tensor,
    recurrent_stride: tl.tensor,
    before_stride: tl.tensor,
    after_stride: tl.tensor,
    inner_stride: tl.tensor,
    operand_stride: tl.tensor,
    size: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    kept: tl.constexpr,
    as_sums: tl.constexpr,
    with_operand: tl.constexpr,
) -> None:
    direction, first, column = _place(size, tile_rows, tile_columns)
    row = tl.arange(0, tile_rows)[:, None]
    inside, used = first + row < rows, column < size
    mask = inside & used
    three, one = row * (3 * size) + column, row * size + column
    gates += direction * gates_stride + first * (3 * size)
    recurrent += direction * recurrent_stride + first * (3 * size)
    bias += direction * (3 * size)

    factor = 1.0
    h = _load(before + direction * before_stride + first * size + one, mask)
    if kept:
        factor = _load(keep + direction * rows + first + row, inside)
        h *= factor
    r = _load(gates + three, mask) + _load(recurrent + three, mask) * factor
    r = _gate(r + _load(bias + column, used), gates + three, mask, as_sums, False)
    z = _load(gates + three + size, mask) + _load(recurrent + three + size, mask) * factor
    z = _gate(z + _load(bias + column + size, used), gates + three + size, mask, as_sums, False)
    at = three + 2 * size
    multiplied = _load(recurrent + at, mask) * factor
    multiplied += _load(bias_hidden + direction * size + column, used)
    n = _load(gates + at, mask) + _load(bias + column + 2 * size, used)
    n = _gate(n + r * multiplied, gates + at, mask, as_sums, True)
    h = n + z * (h - n)
    _store(inner + direction * inner_stride + first * size + one, multiplied, mask)
    _store(after + direction * after_stride + first * size + one, h, mask)
    if with_operand:
        _store(operand + direction * operand_stride + first * size + one, h, mask)


@triton.jit  # type: ignore[untyped-decorator]
def gru_backward(
    gates: tl.tensor,
    inner: tl.tensor,
    before: tl.tensor,
    d_hidden: tl.tensor,
    d_recurrent: tl.tensor,
    d_output: tl.tensor,
    d_product: tl.tensor,
    keep: tl.tensor,
    rows: tl.tensor,
    gates_stride: tl.tensor,
    inner_stride: tl.tensor,
    before_stride: tl.tensor,
    d_hidden_stride: tl.tensor,
    d_recurrent_stride: tl.tensor,
    d_output_stride: tl.tensor,
    d_product_stride: tl.tensor,
    size: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
    kept: tl.constexpr,
    as_sums: tl.constexpr,
    with_output: tl.constexpr,
    with_product: tl.constexpr,
) -> None:
    direction, first, column = _place(size, tile_rows, tile_columns)
    row = tl.arange(0, tile_rows)[:, None]
    inside = first + row < rows
    mask = inside & (column < size)
    three, one = row * (3 * size) + column, row * size + column
    gates += direction * gates_stride + first * (3 * size)
    d_recurrent += direction * d_recurrent_stride + first * (3 * size)
    d_hidden += direction * d_hidden_stride + first * size

    r, z = _load(gates + three, mask), _load(gates + three + size, mask)
    n = _load(gates + three + 2 * size, mask)
    multiplied = _load(inner + direction * inner_stride + first * size + one, mask)
    h = _load(before + direction * before_stride + first * size + one, mask)
    d_h = _load(d_hidden + one, mask)
    if with_output:
        d_h += _load(d_output + direction * d_output_stride + first * size + one, mask)
    if with_product:
        d_h += _load(d_product + direction * d_product_stride + first * size + one, mask)
    if as_sums:
        r, z, n = _sigmoid(r), _sigmoid(z), _tanh(n)
    through = d_h * (1 - z) * (1 - n * n)
    d_before = d_h * z
    if kept:
        factor = _load(keep + direction * rows + first + row, inside)
        h, d_before = h * factor, d_before * factor
    d_r = through * multiplied * (r * (1 - r))
    d_z = d_h * (h - n) * (z * (1 - z))
    _store(gates + three, d_r, mask)
    _store(gates + three + size, d_z, mask)
    _store(gates + three + 2 * size, through, mask)
    _store(d_recurrent + three, d_r, mask)
    _store(d_recurrent + three + size, d_z, mask)
    _store(d_recurrent + three + 2 * size, through * r, mask)
    _store(d_hidden + one, d_before, mask)
