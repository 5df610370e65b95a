"""Loss and gradients of a narrow linear map followed by a softmax; logits are never in memory.

The logits z = hidden weight^T + bias are computed tile by tile in registers, again in each pass. With dim
at most 128, the matmul of a tile takes less time than it takes to write and to read the tile. The forms of
the loss and the treatment of NaN are those of `wide_softmax`. Logits are not rounded; p - e (times the
gradient of the loss, for the weight) is rounded to the dtype of hidden before it is multiplied.

Work is divided by shapes only, and each sum has a fixed order, so the same arguments give the same bits.
The columns are divided into chunks, so that few rows suffice to occupy a GPU.

n is the number of rows of hidden, dim the number of its columns, size the number of logits of a row.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.nn.kernels.traffic import Traffic, register

WIDEST = 128
"""Largest dim."""
ROWS, COLUMNS = 128, 64
"""Logits of a tile whose program keeps its rows, and goes on to the next columns."""
WEIGHT_COLUMNS, WEIGHT_ROWS = 128, 32
"""Logits of a tile whose program keeps its columns, and goes on to the next rows."""
LOSS_ROWS = 16
"""Rows per program of the kernel that adds the sums of all chunks."""
PROGRAMS = 512
"""About the number of programs of a kernel that works on chunks; an H100 runs 264 at a time."""


class Grid(NamedTuple):
    """Division of the logits into programs.

    Attributes:
        rows: number of blocks of ROWS rows.
        chunk: columns of a chunk, a multiple of COLUMNS.
        chunks: number of chunks.
        tiles: number of tiles of WEIGHT_COLUMNS columns.
    """

    rows: int
    chunk: int
    chunks: int
    tiles: int


def grid_of(n: int, size: int) -> Grid:
    """Return the division for a shape."""
    rows, tiles = -(-n // ROWS), -(-size // COLUMNS)
    each = -(-tiles // max(1, PROGRAMS // max(1, rows)))  # tiles of a chunk
    return Grid(rows, each * COLUMNS, -(-tiles // each), -(-size // WEIGHT_COLUMNS))


@torch.library.custom_op("biloom::narrow_softmax_sums", mutates_args=())
def narrow_softmax_sums(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool
) -> Tensor:
    """Return for each chunk and row the largest logit and the sum of exponentials less it.

    Args:
        hidden: (n, dim), contiguous.
        weight: (size, dim), contiguous, in the dtype of hidden.
        bias: float32 (size,), or None.
        columns: int64 (n,).
        exclude: the form.

    Returns:
        float32 (2, chunks, n).
    """
    from lightning_modules.nn.kernels import narrow_softmax_triton

    (n, dim), size = hidden.shape, len(weight)
    grid = grid_of(n, size)
    result = hidden.new_empty(2, grid.chunks, n, dtype=torch.float32)
    if n:
        with torch.cuda.device_of(hidden):
            narrow_softmax_triton.sums[grid.rows, grid.chunks](
                hidden, weight, bias, columns, result, n, size, grid.chunk,
                dim=dim, width=_width(dim), block=ROWS, tile=COLUMNS,
                biased=bias is not None, exclude=exclude, num_warps=8,
            )  # fmt: skip
    return result


@narrow_softmax_sums.register_fake
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool
) -> Tensor:
    chunks = grid_of(len(hidden), len(weight)).chunks
    return hidden.new_empty(2, chunks, len(hidden), dtype=torch.float32)


@register("biloom::narrow_softmax_sums")
def _(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool
) -> Traffic:
    grid = grid_of(len(hidden), len(weight))
    weights = weight.nbytes + (0 if bias is None else bias.nbytes)
    rows = hidden.nbytes + (columns.nbytes if exclude else 0)
    return Traffic(grid.rows * weights + grid.chunks * rows, 8 * grid.chunks * len(hidden))


@torch.library.custom_op("biloom::narrow_softmax_loss", mutates_args=())
def narrow_softmax_loss(
    sums: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    exclude: bool,
) -> tuple[Tensor, Tensor]:
    """Return the loss of each row and log sum exp of its logits, float32 (n,) each.

    Args:
        sums: result of `narrow_softmax_sums` for the other arguments.
        hidden: (n, dim), contiguous.
        weight: (size, dim), contiguous, in the dtype of hidden.
        bias: float32 (size,), or None.
        columns: int64 (n,).
        exclude: the form.
    """
    from lightning_modules.nn.kernels import narrow_softmax_triton

    (n, dim), chunks = hidden.shape, sums.shape[1]
    losses, totals = sums.new_empty(n), sums.new_empty(n)
    if n:
        with torch.cuda.device_of(hidden):
            narrow_softmax_triton.loss[(-(-n // LOSS_ROWS),)](
                sums, hidden, weight, bias, columns, losses, totals, n, chunks,
                dim=dim, width=_width(dim), block=LOSS_ROWS,
                most_chunks=1 << (chunks - 1).bit_length(),
                biased=bias is not None, exclude=exclude, num_warps=4,
            )  # fmt: skip
    return losses, totals


@narrow_softmax_loss.register_fake
def _(
    sums: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    exclude: bool,
) -> tuple[Tensor, Tensor]:
    return sums.new_empty(len(hidden)), sums.new_empty(len(hidden))


@register("biloom::narrow_softmax_loss")
def _(
    sums: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    exclude: bool,
) -> Traffic:
    n = len(hidden)
    # At most a row of the weight for each row of hidden: ignored rows read none.
    targets = 0 if exclude else columns.nbytes + 2 * hidden.nbytes + (0 if bias is None else 4 * n)
    return Traffic(sums.nbytes + targets, 8 * n)


@torch.library.custom_op("biloom::narrow_softmax_d_hidden", mutates_args=())
def narrow_softmax_d_hidden(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    grad: Tensor,
    exclude: bool,
) -> Tensor:
    """Return the part of each chunk of columns in the gradient of hidden.

    Args:
        hidden: (n, dim), contiguous.
        weight: (size, dim), contiguous, in the dtype of hidden.
        bias: float32 (size,), or None.
        columns: int64 (n,).
        totals: log sum exp of the logits, the second result of `narrow_softmax_loss`.
        grad: gradient of the loss, float32 (n,).
        exclude: the form.

    Returns:
        float32 (chunks, n, dim); their sum over the chunks is the gradient.
    """
    from lightning_modules.nn.kernels import narrow_softmax_triton

    (n, dim), size = hidden.shape, len(weight)
    grid = grid_of(n, size)
    result = hidden.new_empty(grid.chunks, n, dim, dtype=torch.float32)
    if n:
        with torch.cuda.device_of(hidden):
            narrow_softmax_triton.d_hidden[grid.rows, grid.chunks](
                hidden, weight, bias, columns, totals, grad, result, n, size, grid.chunk,
                dim=dim, width=_width(dim), block=ROWS, tile=COLUMNS,
                biased=bias is not None, exclude=exclude, num_warps=8,
            )  # fmt: skip
    return result


@narrow_softmax_d_hidden.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    grad: Tensor,
    exclude: bool,
) -> Tensor:
    chunks = grid_of(len(hidden), len(weight)).chunks
    return hidden.new_empty(chunks, *hidden.shape, dtype=torch.float32)


@register("biloom::narrow_softmax_d_hidden")
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    grad: Tensor,
    exclude: bool,
) -> Traffic:
    grid = grid_of(len(hidden), len(weight))
    weights = weight.nbytes + (0 if bias is None else bias.nbytes)
    rows = hidden.nbytes + columns.nbytes + 8 * len(hidden)
    return Traffic(grid.rows * weights + grid.chunks * rows, 4 * grid.chunks * hidden.numel())


@torch.library.custom_op("biloom::narrow_softmax_d_weight", mutates_args=())
def narrow_softmax_d_weight(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    grad: Tensor,
    exclude: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the weight and of the bias, float32; the latter is empty without a bias.

    Arguments are those of `narrow_softmax_d_hidden`.
    """
    from lightning_modules.nn.kernels import narrow_softmax_triton

    (n, dim), size = hidden.shape, len(weight)
    result = torch.empty_like(weight, dtype=torch.float32)
    d_bias = grad.new_empty(0 if bias is None else size)
    with torch.cuda.device_of(hidden):
        narrow_softmax_triton.d_weight[(grid_of(n, size).tiles,)](
            hidden, weight, bias, columns, totals, grad, result, d_bias, n, size,
            dim=dim, width=_width(dim), block=WEIGHT_ROWS, tile=WEIGHT_COLUMNS,
            biased=bias is not None, exclude=exclude, num_warps=8,
        )  # fmt: skip
    return result, d_bias


@narrow_softmax_d_weight.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    grad: Tensor,
    exclude: bool,
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(weight, dtype=torch.float32),
        grad.new_empty(0 if bias is None else len(bias)),
    )


@register("biloom::narrow_softmax_d_weight")
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    grad: Tensor,
    exclude: bool,
) -> Traffic:
    grid = grid_of(len(hidden), len(weight))
    biases = 0 if bias is None else bias.nbytes
    rows = hidden.nbytes + columns.nbytes + 8 * len(hidden)
    return Traffic(grid.tiles * rows + weight.nbytes + biases, 4 * weight.numel() + biases)


def _width(dim: int) -> int:
    return max(16, 1 << (dim - 1).bit_length())
