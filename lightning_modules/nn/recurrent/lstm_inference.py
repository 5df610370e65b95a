"""The steps of a projected LSTM layer on a CPU without a gradient, for many rows.

A step has one product with an inner dimension twice as long, and keeps no gates. `run_steps` of
`lightning_modules.nn.recurrent.lstm_recurrence` computes the products of all inputs at once, and that of both
directions in a step; then the weights and the gates do not fit into a core's cache. A wide layer without a
projection is faster that way, and so are few rows, because each step here reads both weights. In a call of
few steps, joining the weights counts.
"""

import torch
from torch import Tensor

from lightning_modules.nn.recurrent.lstm_recurrence import Settings, Weights

LEAST_ROWS, LEAST_STEPS = 40, 8
"""Rows and steps from which `run_joined` is used."""


def is_for(x: Tensor, weights: Weights, settings: Settings) -> bool:
    """Return True if `run_joined` computes an input x, (directions, time, rows, width)."""
    wide = settings.dtype == settings.cell_dtype
    _, time, rows, _ = x.shape
    is_large = time >= LEAST_STEPS and rows >= LEAST_ROWS
    return x.device.type == "cpu" and wide and weights.projection is not None and is_large


def run_joined(
    x: Tensor, state: Tensor, weights: Weights, keep: Tensor | None, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Compute all steps of a layer; return h' of each step, and the state after the last one.

    Args:
        x: (directions, time, rows, width), float32 or float64, as the weights.
        state: initial h and c, concatenated, (directions, rows, width + hidden).
        weights: weights of all directions.
        keep: 0 where the state is set to zero before a step, else 1, (time, directions, rows, 1); None
            means nowhere.
        settings: settings of the pass.
    """
    outputs = torch.empty_like(x, memory_format=torch.contiguous_format)
    after = state.to(x.dtype, copy=True)
    for direction in range(len(x)):
        part = slice(direction, direction + 1)
        _run_direction(
            x[direction], outputs[direction], after[part], weights.of(part),
            None if keep is None else keep[:, part], settings,
        )  # fmt: skip
    return outputs, after


def _run_direction(
    x: Tensor,
    outputs: Tensor,
    state: Tensor,
    weights: Weights,
    keep: Tensor | None,
    settings: Settings,
) -> None:
    """Fill the outputs, (time, rows, width), and change the state, (1, rows, width + hidden)."""
    time, rows, width = x.shape
    cell_clip, output_clip = settings.clips
    assert weights.projection is not None
    projection = weights.projection[0]  # (hidden, width)
    weight = torch.cat([weights.input[0], weights.hidden[0]])  # (2 * width, 4 * hidden)
    operands = x.new_empty(time, rows, 2 * width)  # x and h before each step
    operands[..., :width] = x
    h = state[0, :, :width]
    gates = x.new_empty(1, rows, weight.shape[1])
    before = state[..., width:].contiguous()  # the cell state, (1, rows, hidden)
    after, squashed = torch.empty_like(before), torch.empty_like(before)
    for step in range(time):
        kept = None if keep is None else keep[step]
        operands[step, :, width:] = h if kept is None else h * kept[0]
        torch.mm(operands[step], weight, out=gates[0])
        settings.ops.forward(gates, None, weights.bias, before, after, squashed, cell_clip, kept)
        h = squashed[0] @ projection
        h = torch.clamp(h, -output_clip, output_clip, out=outputs[step])
        before, after = after, before
    state[0, :, :width] = h
    state[..., width:] = before
