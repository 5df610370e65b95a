"""Linear recurrences c_t = a_t c_{t-1} + b_t over time, in blocks of steps.

Blocks are computed at once, each from a zero state, and then their states are carried from block to
block. This takes about 2 sqrt(time) dependent operations in place of time. There are only products of
decays, which are from 0 to 1, so nothing overflows, and a reset is a decay of 0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def block_length(time: int) -> int:
    """Return the number of steps of a block for which blocks and steps of a block are about as many."""
    return max(1, math.ceil(math.sqrt(time)))


def linear_scan(decay: Tensor, added: Tensor, state: Tensor, block: int | None = None) -> Tensor:
    """Return c_t = decay_t c_{t-1} + added_t of each step; not differentiable.

    Args:
        decay: from 0 to 1, (directions, time, rows, hidden).
        added: of the same shape and dtype.
        state: c before the first step, (directions, rows, hidden).
        block: steps of a block; None means `block_length`. 1 and ``time`` compute step by step.
    """
    time = added.shape[1]
    block = block or block_length(time)
    decay, added = (_blocks(x, block) for x in (decay, added))  # (directions, blocks, block, ...)
    own, reach = torch.empty_like(added), torch.empty_like(decay)
    own[:, :, 0], reach[:, :, 0] = added[:, :, 0], decay[:, :, 0]
    for step in range(1, block):
        torch.addcmul(
            added[:, :, step], decay[:, :, step], own[:, :, step - 1], out=own[:, :, step]
        )
        torch.mul(decay[:, :, step], reach[:, :, step - 1], out=reach[:, :, step])
    before = [state]  # of each block
    for index in range(own.shape[1] - 1):
        before.append(torch.addcmul(own[:, index, -1], reach[:, index, -1], before[-1]))
    own.addcmul_(reach, torch.stack(before, 1).unsqueeze(2))
    return own.view(len(own), -1, *state.shape[1:])[:, :time]


def reversed_linear_scan(decay: Tensor, added: Tensor, block: int | None = None) -> Tensor:
    """Return g_t = added_t + decay_{t+1} g_{t+1} of each step, with g = 0 after the last one.

    It is the gradient of `linear_scan` with respect to its ``added``, if ``added`` here is the
    gradient of its result. Arguments are those of `linear_scan`.
    """
    later = torch.cat([torch.zeros_like(decay[:, :1]), decay[:, 1:].flip(1)], 1)
    return linear_scan(later, added.flip(1), torch.zeros_like(added[:, 0]), block).flip(1)


def _blocks(x: Tensor, block: int) -> Tensor:
    """Divide the time of x into blocks, with zeros after the end; x itself if no zeros are needed."""
    missing = -x.shape[1] % block
    x = F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
    directions, _, *shape = x.shape
    return x.reshape(directions, -1, block, *shape)
