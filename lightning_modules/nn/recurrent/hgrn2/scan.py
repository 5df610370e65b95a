"""The recurrence of matrices of an HGRN2 layer, in chunks of steps, with its gradient.

For each head, with a state S of values x keys,

    S' = S diag(decay) + value (outer) key,    y = S' query

A chunk of steps is computed by matrix products between its steps, and the state is carried from chunk to
chunk (Yang et al. 2024, arXiv:2312.06635, section 4). There are about 2 sqrt(time) dependent operations in
place of time.

The paper divides by products of decays, which may underflow. Here each key is multiplied by one more
decay with each later step of its chunk, so that factors are from 0 to 1, nothing overflows, and a reset
is a decay of 0.

Shape suffixes: B is directions * rows * heads, N chunks, C steps of a chunk, K keys, V values.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def chunk_length(time: int, size: int) -> int:
    """Return the number of steps of a chunk.

    Long chunks have more products between steps, short ones more states in memory. Both are about as many
    for sqrt(2 size) steps; longer windows have chunks of sqrt(time) steps.

    Args:
        time: steps of a window.
        size: keys of a head.
    """
    chunks = math.ceil(time / math.sqrt(max(time, 2 * size)))
    return max(1, math.ceil(time / max(1, chunks)))


class Steps(NamedTuple):
    """What the steps of a window read, each (B, N, C, K or V)."""

    query: Tensor
    key: Tensor
    decay: Tensor
    value: Tensor


class _Within(NamedTuple):
    """Values of a chunk that starts from a zero state.

    Attributes:
        keys: for each step i, the keys of the steps up to i after the decays up to i, (B, N, i + 1, K).
        reach: product of the chunk's decays up to each step, (B, N, C, K).
        scores: product of each query (rows) with the keys up to its step (columns), (B, N, C, C).
    """

    keys: list[Tensor]
    reach: Tensor
    scores: Tensor


def matrix_scan(steps: Steps, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return y of each step, (B, N, C, V), and the state after the last one; not differentiable.

    Args:
        steps: queries, keys, decays and values; decays are from 0 to 1.
        state: S before the first step, (B, V, K).
    """
    within = _within(steps)
    before, after = _states(steps, within, state)
    reached = steps.query * within.reach
    return within.scores @ steps.value + reached @ before.mT, after[:, -1]


def matrix_scan_gradient(
    steps: Steps, state: Tensor, d_outputs: Tensor, d_after: Tensor
) -> tuple[Steps, Tensor]:
    """Return the gradients of `matrix_scan` with respect to its arguments.

    Args:
        steps, state: its arguments.
        d_outputs: gradient of y, (B, N, C, V).
        d_after: gradient of the state after the last step, (B, V, K).
    """
    query, key, decay, value = steps
    within = _within(steps)
    before, _ = _states(steps, within, state)
    reached = query * within.reach
    d_before = d_outputs.mT @ reached  # through the outputs of the chunk, (B, N, V, K)
    total = within.reach[:, :, -1:]  # (B, N, 1, K)
    carried = [d_after]  # gradient of the state after each chunk, the last chunk first
    for index in reversed(range(1, d_before.shape[1])):
        carried.append(torch.addcmul(d_before[:, index], total[:, index], carried[-1]))
    d_state = torch.addcmul(d_before[:, 0], total[:, 0], carried[-1])
    d_chunk = torch.stack(carried[::-1], 1)  # (B, N, V, K)
    d_value = within.scores.mT @ d_outputs + within.keys[-1] @ d_chunk.mT
    d_scores = d_outputs @ value.mT  # only those of keys up to the query's step are read
    d_keys = value @ d_chunk
    d_reached = d_outputs @ before
    d_query, d_reach = d_reached * within.reach, d_reached * query
    d_reach[:, :, -1] += (d_chunk * before).sum(-2)
    d_key, d_decay = torch.empty_like(key), torch.empty_like(decay)
    for step in reversed(range(decay.shape[2])):
        d_row = d_scores[:, :, step : step + 1, : step + 1]  # (B, N, 1, step + 1)
        d_query[:, :, step : step + 1] += d_row @ within.keys[step]
        d_keys[:, :, : step + 1] += d_row.mT * query[:, :, step : step + 1]
        d_key[:, :, step] = d_keys[:, :, step]
        d_decay[:, :, step] = d_reach[:, :, step]
        if step:
            earlier, now = d_keys[:, :, :step], decay[:, :, step : step + 1]
            d_decay[:, :, step] *= within.reach[:, :, step - 1]
            d_decay[:, :, step] += (earlier * within.keys[step - 1]).sum(-2)
            d_reach[:, :, step - 1] += d_reach[:, :, step] * now.squeeze(2)
            earlier *= now
    return Steps(d_query, d_key, d_decay, d_value), d_state


def _within(steps: Steps) -> _Within:
    query, key, decay, _ = steps
    length = key.shape[2]
    reach = decay.clone()
    scores = key.new_zeros(*key.shape[:3], length)
    keys: list[Tensor] = []
    for step in range(length):
        now = slice(step, step + 1)
        if step:
            reach[:, :, step] *= reach[:, :, step - 1]
            keys.append(torch.cat([keys[-1] * decay[:, :, now], key[:, :, now]], 2))
        else:
            keys.append(key[:, :, now])
        scores[:, :, now, : step + 1] = query[:, :, now] @ keys[-1].mT
    return _Within(keys, reach, scores)


def _states(steps: Steps, within: _Within, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state before and after each chunk, (B, N, V, K)."""
    added = steps.value.mT @ within.keys[-1]  # (B, N, V, K)
    total = within.reach[:, :, -1:]
    states = [state]
    for index in range(added.shape[1]):
        states.append(torch.addcmul(added[:, index], total[:, index], states[-1]))
    whole = torch.stack(states, 1)
    return whole[:, :-1], whole[:, 1:]
