"""The pointwise part of a GRU step and its gradient, one kernel each.

The equations, and the order of the gates (r, z, n), are those of
`lightning_modules.nn.recurrent.gru.GRULayer`. Tensors are (directions, rows, hidden), or
(directions, rows, 3 * hidden) for the gates; their last two dimensions are contiguous. What lies between
two matmuls may be bfloat16 or float16; the state h is float32, and so is the arithmetic.
"""

import math

import torch
from torch import Tensor

from lightning_modules.nn.kernels.tile import Tile
from lightning_modules.nn.kernels.traffic import Traffic, register


@torch.library.custom_op("biloom::gru_forward", mutates_args=("gates", "after", "inner", "operand"))
def gru_forward(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
    before: Tensor,
    after: Tensor,
    inner: Tensor,
    operand: Tensor | None,
    keep: Tensor | None,
) -> None:
    """Compute the gates and the next state.

    Args:
        gates: x W_input; overwritten with the values of the gates if float32, else with the sums that
            the nonlinearities get, because 1 - sigmoid(x) has few correct digits in 16 bits.
        recurrent: h W_hidden, with the h that `keep` has not zeroed.
        bias: float32 (directions, 3 * hidden).
        bias_hidden: float32 (directions, hidden).
        before: h, float32.
        after: output, h', float32.
        inner: output, the term that r multiplies.
        operand: output, h' in the dtype of the next matmul; None if that is float32.
        keep: 0 where h is zeroed before the step, else 1, contiguous (directions, rows, 1); None means
            nowhere.
    """
    from lightning_modules.nn.kernels import cells_triton

    directions, rows, size = before.shape
    tile = Tile.of(rows, size)
    with torch.cuda.device_of(gates):
        cells_triton.gru_forward[(math.prod(tile.blocks(rows, size)), directions)](
            gates, recurrent, bias, bias_hidden, before, after, inner,
            inner if operand is None else operand, gates if keep is None else keep, rows,
            gates.stride(0), recurrent.stride(0), before.stride(0), after.stride(0), inner.stride(0),
            0 if operand is None else operand.stride(0),
            size=size, tile_rows=tile.rows, tile_columns=tile.columns,
            kept=keep is not None, as_sums=gates.dtype != torch.float32,
            with_operand=operand is not None, num_warps=tile.warps,
        )  # fmt: skip


@gru_forward.register_fake
def _(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
    before: Tensor,
    after: Tensor,
    inner: Tensor,
    operand: Tensor | None,
    keep: Tensor | None,
) -> None: ...


@register("biloom::gru_forward")
def _(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
    before: Tensor,
    after: Tensor,
    inner: Tensor,
    operand: Tensor | None,
    keep: Tensor | None,
) -> Traffic:
    by_rows, by_columns = Tile.of(*before.shape[1:]).blocks(*before.shape[1:])
    resets = 0 if keep is None else by_columns * keep.nbytes
    biases = by_rows * (bias.nbytes + bias_hidden.nbytes)
    return Traffic(
        gates.nbytes + recurrent.nbytes + biases + before.nbytes + resets,
        gates.nbytes + after.nbytes + inner.nbytes + (0 if operand is None else operand.nbytes),
    )


@torch.library.custom_op("biloom::gru_backward", mutates_args=("gates", "d_hidden", "d_recurrent"))
def gru_backward(
    gates: Tensor,
    inner: Tensor,
    before: Tensor,
    d_hidden: Tensor,
    d_recurrent: Tensor,
    d_output: Tensor | None,
    d_product: Tensor | None,
    keep: Tensor | None,
) -> None:
    """Compute the gradients of a step.

    Args:
        gates: from `gru_forward`; overwritten with the gradient of x W_input.
        inner: from `gru_forward`.
        before: h, float32.
        d_hidden: part of the gradient of h', float32; overwritten with the part of h's gradient that
            does not pass through the gates.
        d_recurrent: output, gradient of h W_hidden, of the h that ``keep`` has zeroed.
        d_output: further part of the gradient of h', or None.
        d_product: further part of the gradient of h', or None.
        keep: as in `gru_forward`.
    """
    from lightning_modules.nn.kernels import cells_triton

    directions, rows, size = before.shape
    tile = Tile.of(rows, size)
    with torch.cuda.device_of(gates):
        cells_triton.gru_backward[(math.prod(tile.blocks(rows, size)), directions)](
            gates, inner, before, d_hidden, d_recurrent,
            inner if d_output is None else d_output, inner if d_product is None else d_product,
            gates if keep is None else keep, rows,
            gates.stride(0), inner.stride(0), before.stride(0), d_hidden.stride(0),
            d_recurrent.stride(0), 0 if d_output is None else d_output.stride(0),
            0 if d_product is None else d_product.stride(0),
            size=size, tile_rows=tile.rows, tile_columns=tile.columns,
            kept=keep is not None, as_sums=gates.dtype != torch.float32,
            with_output=d_output is not None, with_product=d_product is not None,
            num_warps=tile.warps,
        )  # fmt: skip


@gru_backward.register_fake
def _(
    gates: Tensor,
    inner: Tensor,
    before: Tensor,
    d_hidden: Tensor,
    d_recurrent: Tensor,
    d_output: Tensor | None,
    d_product: Tensor | None,
    keep: Tensor | None,
) -> None: ...


@register("biloom::gru_backward")
def _(
    gates: Tensor,
    inner: Tensor,
    before: Tensor,
    d_hidden: Tensor,
    d_recurrent: Tensor,
    d_output: Tensor | None,
    d_product: Tensor | None,
    keep: Tensor | None,
) -> Traffic:
    resets = (
        0 if keep is None else keep.nbytes * Tile.of(*before.shape[1:]).blocks(*before.shape[1:])[1]
    )
    parts = sum(part.nbytes for part in (d_output, d_product) if part is not None)
    loads = gates.nbytes + inner.nbytes + before.nbytes + d_hidden.nbytes + parts + resets
    return Traffic(loads, gates.nbytes + d_hidden.nbytes + d_recurrent.nbytes)
