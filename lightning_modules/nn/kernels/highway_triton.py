"""Triton kernels of `highway`, whose docstring defines the numbers. Arithmetic is float32."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _load(pointer: tl.tensor, mask: tl.tensor) -> tl.tensor:
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _store(pointer: tl.tensor, value: tl.tensor, mask: tl.tensor) -> None:
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _relu(x: tl.tensor) -> tl.tensor:
    return tl.where(x <= 0, 0.0, x)  # NaN stays


@triton.jit  # type: ignore[untyped-decorator]
def forward(
    both: tl.tensor, x: tl.tensor, y: tl.tensor, width: tl.tensor, tile: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    mask = column < width
    both += row * (2 * width)
    carried = _load(x + row * width + column, mask)
    gate = 1 / (1 + tl.exp(-_load(both + column, mask)))
    transformed = _relu(_load(both + width + column, mask))
    # As torch.lerp, which is exact at both ends.
    change = transformed - carried
    mixed = tl.where(gate < 0.5, carried + gate * change, transformed - (1 - gate) * change)
    _store(y + row * width + column, mixed, mask)


@triton.jit  # type: ignore[untyped-decorator]
def backward(
    both: tl.tensor,
    x: tl.tensor,
    d_y: tl.tensor,
    d_both: tl.tensor,
    d_x: tl.tensor,
    width: tl.tensor,
    tile: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * tile + tl.arange(0, tile)
    mask = column < width
    both += row * (2 * width)
    d_both += row * (2 * width)
    carried = _load(x + row * width + column, mask)
    d = _load(d_y + row * width + column, mask)
    gate = 1 / (1 + tl.exp(-_load(both + column, mask)))
    transform = _load(both + width + column, mask)
    _store(d_both + column, d * (_relu(transform) - carried) * (gate * (1 - gate)), mask)
    _store(d_both + width + column, tl.where(transform <= 0, 0.0, d * gate), mask)
    _store(d_x + row * width + column, d * (1 - gate), mask)
