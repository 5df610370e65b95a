"""Loss and gradient of a softmax over logits in memory; the gradient overwrites the logits.

For row i with logits z_ij (j < size), bias b_j and column c_i there are two forms:

    target:  loss_i = log sum_j exp(z_ij + b_j) - (z_ic + b_c), or 0 if c_i < 0
             gradient_ij = softmax(z_i + b)_j - [j = c_i]
    exclude: loss_i = log sum_(j != c_i) exp(z_ij + b_j), or the lowest finite number without such j
             gradient_ij = softmax over j != c_i, or 0 for j = c_i

Logits have strides (a multiple of 16, 1) and are read in their dtype; the gradient is rounded to it.
Arithmetic, bias and losses are float32. Sums have a fixed order, so the same arguments give the same bits.
A NaN or an infinity among the logits of a row makes its loss NaN; minus infinity is a probability of 0.
"""

import torch
from torch import Tensor

from lightning_modules.nn.kernels.traffic import Traffic, register

WHOLE_ROW = 16384
"""Most columns of a row that one program keeps in its registers; longer rows are read twice."""
BLOCK = 4096
"""Columns that a program reads at once in other cases."""


@torch.library.custom_op("biloom::softmax_rows_", mutates_args=("logits",))
def softmax_rows_(logits: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool) -> Tensor:
    """Return the loss of each row, (rows,); overwrite the logits with the gradient.

    Args:
        logits: (rows, size).
        bias: (size,), or None.
        columns: int64 (rows,).
        exclude: the form.
    """
    from lightning_modules.nn.kernels import wide_softmax_triton

    rows, size = logits.shape
    losses = logits.new_empty(rows, dtype=torch.float32)
    is_whole = size <= WHOLE_ROW
    kernel = wide_softmax_triton.whole_row if is_whole else wide_softmax_triton.long_row
    block = _block(size, WHOLE_ROW if is_whole else BLOCK)
    if rows:
        with torch.cuda.device_of(logits):
            kernel[(rows,)](
                logits, bias, columns, losses, size, logits.stride(0),
                biased=bias is not None, exclude=exclude, block=block, num_warps=_warps(block),
            )  # fmt: skip
    return losses


@softmax_rows_.register_fake
def _(logits: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool) -> Tensor:
    return logits.new_empty(len(logits), dtype=torch.float32)


@register("biloom::softmax_rows_")
def _(logits: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool) -> Traffic:
    reads = 1 if logits.shape[1] <= WHOLE_ROW else 2
    stored = _nbytes(logits)
    biases = 0 if bias is None else len(logits) * bias.nbytes
    return Traffic(reads * (stored + biases) + columns.nbytes, stored + 4 * len(logits))


@torch.library.custom_op("biloom::add_softmax_totals_", mutates_args=("totals", "targets"))
def add_softmax_totals_(
    logits: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    targets: Tensor,
    first: int,
    exclude: bool,
) -> None:
    """Add a tile of columns to the logarithms of the sums, and to the logits of the targets.

    After all tiles, a loss is its total less its target's logit, if the totals were -inf and the logits
    of the targets 0 before.

    Args:
        logits: columns first to first + size, (rows, size).
        bias: that of these columns, (size,), or None.
        columns: int64 (rows,).
        totals: log sum exp of the former tiles, (rows,).
        targets: logits of the targets in the former tiles, (rows,).
        first: first column.
        exclude: the form.
    """
    from lightning_modules.nn.kernels import wide_softmax_triton

    rows, size = logits.shape
    block = _block(size, BLOCK)
    if rows:
        with torch.cuda.device_of(logits):
            wide_softmax_triton.tile_totals[(rows,)](
                logits, bias, columns, totals, targets, first, size, logits.stride(0),
                biased=bias is not None, exclude=exclude, block=block, num_warps=_warps(block),
            )  # fmt: skip


@add_softmax_totals_.register_fake
def _(
    logits: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    targets: Tensor,
    first: int,
    exclude: bool,
) -> None: ...


@register("biloom::add_softmax_totals_")
def _(
    logits: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    totals: Tensor,
    targets: Tensor,
    first: int,
    exclude: bool,
) -> Traffic:
    read = _nbytes(logits)
    biases = 0 if bias is None else len(logits) * bias.nbytes
    state = totals.nbytes + (0 if exclude else targets.nbytes)
    return Traffic(read + biases + columns.nbytes + state, state)


@torch.library.custom_op("biloom::softmax_gradient_", mutates_args=("logits",))
def softmax_gradient_(
    logits: Tensor, bias: Tensor | None, columns: Tensor, totals: Tensor, first: int, exclude: bool
) -> None:
    """Overwrite the logits of a tile of columns with the gradient.

    Args:
        logits: columns first to first + size, (rows, size).
        bias: that of these columns, (size,), or None.
        columns: int64 (rows,).
        totals: log sum exp of all columns, (rows,).
        first: first column.
        exclude: the form.
    """
    from lightning_modules.nn.kernels import wide_softmax_triton

    rows, size = logits.shape
    block = _block(size, BLOCK)
    if rows:
        with torch.cuda.device_of(logits):
            wide_softmax_triton.tile_gradient[rows, -(-size // block)](
                logits, bias, columns, totals, first, size, logits.stride(0),
                biased=bias is not None, exclude=exclude, block=block, num_warps=_warps(block),
            )  # fmt: skip


@softmax_gradient_.register_fake
def _(
    logits: Tensor, bias: Tensor | None, columns: Tensor, totals: Tensor, first: int, exclude: bool
) -> None: ...


@register("biloom::softmax_gradient_")
def _(
    logits: Tensor, bias: Tensor | None, columns: Tensor, totals: Tensor, first: int, exclude: bool
) -> Traffic:
    moved = _nbytes(logits)
    biases = 0 if bias is None else len(logits) * bias.nbytes
    blocks = -(-logits.shape[1] // BLOCK)
    return Traffic(moved + biases + blocks * (columns.nbytes + totals.nbytes), moved)


def _block(size: int, most: int) -> int:
    """Return the columns that a program reads at once."""
    return min(most, max(16, 1 << (size - 1).bit_length()))


def _warps(block: int) -> int:
    """Return the warps of a program, so that a thread has at most 32 columns."""
    return max(1, block // 1024)


def _nbytes(logits: Tensor) -> int:
    """Return the bytes of logits that a kernel reads: rows rounded up to a multiple of 16."""
    return len(logits) * -(-logits.shape[1] // 16) * 16 * logits.itemsize
