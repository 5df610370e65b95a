"""The pointwise part of an LSTM step and its gradient, one kernel each.

The equations, and the order of the gates (i, f, g, o), are those of
`lightning_modules.nn.recurrent.lstm.LSTMLayer`. Tensors are (directions, rows, hidden), or
(directions, rows, 4 * hidden) for the gates; their last two dimensions are contiguous. What lies between
two matmuls may be bfloat16 or float16; the cell state is float32, and so is the arithmetic.
"""

import math

import torch
from torch import Tensor

from lightning_modules.nn.kernels.tile import Tile
from lightning_modules.nn.kernels.traffic import Traffic, register


@torch.library.custom_op("biloom::lstm_forward", mutates_args=("gates", "after", "squashed"))
def lstm_forward(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    before: Tensor,
    after: Tensor,
    squashed: Tensor,
    clip: float,
    keep: Tensor | None,
) -> None:
    """Compute the gates, the next cell state and the output before projection.

    Args:
        gates: x W_input; overwritten with the values of the gates if float32, else with the sums that
            the nonlinearities get, because 1 - sigmoid(x) has few correct digits in 16 bits.
        recurrent: h W_hidden, with the h that `keep` has not zeroed.
        bias: float32 (directions, 4 * hidden).
        before: c, float32.
        after: output, c', clipped to [-clip, clip], float32.
        squashed: output, sigmoid(o) tanh(c'), the operand of the next matmul.
        clip: bound of c', inf for none.
        keep: 0 where h and c are zeroed before the step, else 1, contiguous (directions, rows, 1); None
            means nowhere.
    """
    from lightning_modules.nn.kernels import cells_triton

    directions, rows, size = before.shape
    tile = Tile.of(rows, size)
    with torch.cuda.device_of(gates):
        cells_triton.lstm_forward[(math.prod(tile.blocks(rows, size)), directions)](
            gates, recurrent, bias, before, after, squashed, gates if keep is None else keep,
            clip, rows,
            gates.stride(0), recurrent.stride(0), before.stride(0), after.stride(0), squashed.stride(0),
            size=size, tile_rows=tile.rows, tile_columns=tile.columns,
            clipped=clip < math.inf, kept=keep is not None, as_sums=gates.dtype != torch.float32,
            num_warps=tile.warps,
        )  # fmt: skip


@lstm_forward.register_fake
def _(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    before: Tensor,
    after: Tensor,
    squashed: Tensor,
    clip: float,
    keep: Tensor | None,
) -> None: ...


@register("biloom::lstm_forward")
def _(
    gates: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    before: Tensor,
    after: Tensor,
    squashed: Tensor,
    clip: float,
    keep: Tensor | None,
) -> Traffic:
    by_rows, by_columns = Tile.of(*before.shape[1:]).blocks(*before.shape[1:])
    resets = 0 if keep is None else by_columns * keep.nbytes
    return Traffic(
        gates.nbytes + recurrent.nbytes + by_rows * bias.nbytes + before.nbytes + resets,
        gates.nbytes + after.nbytes + squashed.nbytes,
    )


@torch.library.custom_op("biloom::lstm_backward", mutates_args=("gates", "d_cell"))
def lstm_backward(
    gates: Tensor,
    before: Tensor,
    after: Tensor,
    d_squashed: Tensor,
    d_cell: Tensor,
    clip: float,
    keep: Tensor | None,
) -> None:
    """Compute the gradients of a step.

    Args:
        gates: from `lstm_forward`; overwritten with the gradient of the sums, the operand of the next
            matmuls.
        before: c, float32.
        after: c', float32.
        d_squashed: gradient of sigmoid(o) tanh(c').
        d_cell: gradient of c', float32; overwritten with that of c.
        clip: bound of c', inf for none.
        keep: as in `lstm_forward`.
    """
    from lightning_modules.nn.kernels import cells_triton

    directions, rows, size = before.shape
    tile = Tile.of(rows, size)
    with torch.cuda.device_of(gates):
        cells_triton.lstm_backward[(math.prod(tile.blocks(rows, size)), directions)](
            gates, before, after, d_squashed, d_cell, gates if keep is None else keep,
            clip, rows,
            gates.stride(0), before.stride(0), after.stride(0), d_squashed.stride(0), d_cell.stride(0),
            size=size, tile_rows=tile.rows, tile_columns=tile.columns,
            clipped=clip < math.inf, kept=keep is not None, as_sums=gates.dtype != torch.float32,
            num_warps=tile.warps,
        )  # fmt: skip


@lstm_backward.register_fake
def _(
    gates: Tensor,
    before: Tensor,
    after: Tensor,
    d_squashed: Tensor,
    d_cell: Tensor,
    clip: float,
    keep: Tensor | None,
) -> None: ...


@register("biloom::lstm_backward")
def _(
    gates: Tensor,
    before: Tensor,
    after: Tensor,
    d_squashed: Tensor,
    d_cell: Tensor,
    clip: float,
    keep: Tensor | None,
) -> Traffic:
    resets = (
        0 if keep is None else keep.nbytes * Tile.of(*before.shape[1:]).blocks(*before.shape[1:])[1]
    )
    cells = before.nbytes + after.nbytes + d_cell.nbytes
    return Traffic(gates.nbytes + cells + d_squashed.nbytes + resets, gates.nbytes + d_cell.nbytes)
