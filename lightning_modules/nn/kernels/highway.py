"""The pointwise part of a highway layer and its gradient, one kernel each.

    y = g relu(t) + (1 - g) x,  g = sigmoid(a)

for the sums [a, t] of a row, (rows, 2 * width), and x and y, (rows, width). All are contiguous and have
one dtype: bfloat16, float16 or float32. Arithmetic is float32. A NaN stays.
"""

import torch
from torch import Tensor

from lightning_modules.nn.kernels.traffic import Traffic, register

TILE = 1024
"""Most columns of a program."""


@torch.library.custom_op("biloom::highway_forward", mutates_args=())
def highway_forward(both: Tensor, x: Tensor) -> Tensor:
    """Return y.

    Args:
        both: [a, t].
        x: x.
    """
    from lightning_modules.nn.kernels import highway_triton

    y, (rows, width) = torch.empty_like(x), x.shape
    tile = _tile(width)
    if rows:
        with torch.cuda.device_of(x):
            highway_triton.forward[rows, -(-width // tile)](
                both, x, y, width, tile=tile, num_warps=_warps(tile)
            )
    return y


@highway_forward.register_fake
def _(both: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x)


@register("biloom::highway_forward")
def _(both: Tensor, x: Tensor) -> Traffic:
    return Traffic(both.nbytes + x.nbytes, x.nbytes)


@torch.library.custom_op("biloom::highway_backward", mutates_args=())
def highway_backward(both: Tensor, x: Tensor, d_y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of [a, t] and of x, the latter without what comes through [a, t].

    Args:
        both: [a, t].
        x: x.
        d_y: gradient of y.
    """
    from lightning_modules.nn.kernels import highway_triton

    d_both, d_x, (rows, width) = torch.empty_like(both), torch.empty_like(x), x.shape
    tile = _tile(width)
    if rows:
        with torch.cuda.device_of(x):
            highway_triton.backward[rows, -(-width // tile)](
                both, x, d_y, d_both, d_x, width, tile=tile, num_warps=_warps(tile)
            )
    return d_both, d_x


@highway_backward.register_fake
def _(both: Tensor, x: Tensor, d_y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(both), torch.empty_like(x)


@register("biloom::highway_backward")
def _(both: Tensor, x: Tensor, d_y: Tensor) -> Traffic:
    return Traffic(both.nbytes + x.nbytes + d_y.nbytes, both.nbytes + x.nbytes)


def _tile(width: int) -> int:
    return min(TILE, max(16, 1 << (width - 1).bit_length()))


def _warps(tile: int) -> int:
    """Return the warps of a program, so that a thread has at most 8 columns, 16 bytes of 16 bits each."""
    return max(1, tile // 256)
