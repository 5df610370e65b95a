"""The recurrent stack: a projected LSTM of two directions with clipping and residual connections.

Not nn.LSTM, which knows neither clip nor residual connection, hence cannot represent ELMo, and
cannot run two directions that are fed by independent streams as one batched matmul. The gradient
is written by hand for speed: the input's matmul is hoisted out of the loop over time, every step
is one batched matmul of both directions and one pointwise cell, and each weight's gradient is one
matmul after the loop.

Shapes: time, rows, width (of a direction's output), hidden (of a cell).
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.config import LSTMConfig
from lightning_modules.nn.cell import EAGER, Cell, compile_cell


class State(NamedTuple):
    """What the stack carries from one stretch of text to the next.

    hidden: (layers, 2, rows, width), a layer's output before the residual; cell: (layers, 2, rows,
    hidden). Both float32.
    """

    hidden: Tensor
    cell: Tensor


class BiLSTM(nn.Module):
    """Two independent stacks of projected LSTM layers (Peters et al. 2018, section 3.1).

        i, f, g, o = x W_input + h W_hidden + b        (the order of nn.LSTM)
        c' = clip(sigmoid(f) c + sigmoid(i) tanh(g))   (cell_clip)
        h' = clip((sigmoid(o) tanh(c')) W_projection)  (projection_clip)
        output = h' + x from the second layer on, with `residual`; h' itself is carried on

    A clip passes no gradient where it acts. In training, dropout falls on the input of every layer
    above the first (the first one's is the input encoder's) and on the top output; the residual
    adds the input as dropout left it, as bilm-tf does. In eval mode there is none.

    Weights are Glorot uniform over a direction's ([x, h], gates) matrix and its projection, biases
    0, the forget gate's 1.
    """

    def __init__(self, config: LSTMConfig, width: int) -> None:
        super().__init__()
        assert width == config.direction_width
        self.config, self.width = config, width
        self.layers = nn.ModuleList(LSTMLayer(config, width) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self._cell = EAGER

    def zero_state(self, rows: int, device: torch.device | str | None = None) -> State:
        """The state before any text, zeros."""
        layers, hidden = self.config.layers, self.config.hidden
        return State(
            torch.zeros(layers, 2, rows, self.width, device=device),
            torch.zeros(layers, 2, rows, hidden, device=device),
        )

    def compile_cell(self, mode: Literal["auto", "on", "off"], rows: int = 32) -> str:
        """Compile the pointwise cell for the device the weights lie on; says what came of it.

        rows: the number of rows to tune for; any other number runs on the same code. Errors: see
        `lightning_modules.nn.cell.compile_cell`.
        """
        device = next(self.parameters()).device
        self._cell, sentence = compile_cell(
            mode, device, self.config.hidden, self.config.cell_clip, rows
        )
        return sentence

    def forward(self, x: Tensor, state: State) -> tuple[tuple[Tensor, ...], State]:
        """x: (2, time, rows, width) -> each layer's output, of x's shape, and the state after it.

        The new state is part of the graph; whoever truncates the gradient detaches it.
        """
        outputs: list[Tensor] = []
        hidden, cell = [], []
        for index, layer in enumerate(self.layers):
            x = self.dropout(x) if index else x
            y, cell_after = layer(x, state.hidden[index], state.cell[index], self._cell)
            hidden.append(y[:, -1])  # (2, rows, width)
            cell.append(cell_after)  # (2, rows, hidden)
            x = y + x if index and self.config.residual else y  # (2, time, rows, width)
            outputs.append(x)
        outputs[-1] = self.dropout(outputs[-1])
        return tuple(outputs), State(torch.stack(hidden), torch.stack(cell))


class LSTMLayer(nn.Module):
    """Weights of one layer, both directions, and its run over time."""

    def __init__(self, config: LSTMConfig, width: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.clips = config.cell_clip, config.projection_clip
        self.weight_input = nn.Parameter(torch.empty(2, width, 4 * hidden))
        self.weight_hidden = nn.Parameter(torch.empty(2, width, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(2, 4 * hidden))
        self.weight_projection = (
            None if config.projection is None else nn.Parameter(torch.empty(2, hidden, width))
        )
        gates = math.sqrt(6 / (2 * width + 4 * hidden))
        nn.init.uniform_(self.weight_input, -gates, gates)
        nn.init.uniform_(self.weight_hidden, -gates, gates)
        nn.init.ones_(self.bias[:, hidden : 2 * hidden])
        if self.weight_projection is not None:
            projection = math.sqrt(6 / (hidden + width))
            nn.init.uniform_(self.weight_projection, -projection, projection)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor, ops: Cell) -> tuple[Tensor, Tensor]:
        """x (2, time, rows, width), hidden (2, rows, width), cell (2, rows, hidden) -> h', c.

        h': (2, time, rows, width); c: the last cell, (2, rows, hidden).
        """
        weights = self.weight_input, self.weight_hidden, self.bias, self.weight_projection
        if torch.is_grad_enabled():
            y, after = _Recurrence.apply(x, hidden, cell, *weights, self.clips, ops)
            return y, after
        return _run(x, hidden, cell, *weights, self.clips, ops, None)


Clips = tuple[float | None, float | None]


class _Trace(NamedTuple):
    """What the backward pass needs of every step."""

    gates: list[Tensor]  # before the nonlinearities, (2 * rows, 4 * hidden)
    cells: list[Tensor]  # after the clip, with the first state in front, (2 * rows, hidden)
    squashed: list[Tensor]  # sigmoid(o) tanh(c'), (2, rows, hidden)


def _run(
    x: Tensor,
    hidden: Tensor,
    cell: Tensor,
    weight_input: Tensor,
    weight_hidden: Tensor,
    bias: Tensor,
    weight_projection: Tensor | None,
    clips: Clips,
    ops: Cell,
    trace: _Trace | None,
) -> tuple[Tensor, Tensor]:
    _, time, rows, width = x.shape
    cell_clip, projection_clip = clips
    of_input = torch.baddbmm(bias.unsqueeze(1), x.reshape(2, time * rows, width), weight_input)
    of_input = of_input.view(2, time, rows, -1)  # (2, time, rows, 4 * hidden)
    size = cell.shape[-1]
    cell = cell.reshape(2 * rows, size).contiguous()  # other strides would be compiled apart
    if trace is not None:
        trace.cells.append(cell)
    outputs = []
    for step in range(time):
        gates = torch.baddbmm(of_input[:, step], hidden, weight_hidden)  # (2, rows, 4 * hidden)
        gates = gates.view(2 * rows, 4 * size)
        cell, flat = ops.forward(gates, cell, cell_clip)
        squashed = flat.view(2, rows, size)
        hidden = squashed if weight_projection is None else squashed.bmm(weight_projection)
        if projection_clip is not None:
            hidden = hidden.clamp(-projection_clip, projection_clip)
        outputs.append(hidden)  # (2, rows, width)
        if trace is not None:
            trace.gates.append(gates)
            trace.cells.append(cell)
            trace.squashed.append(squashed)
    return torch.stack(outputs, 1), cell.view(2, rows, size)


class _Recurrence(torch.autograd.Function):
    """One layer over time, both directions, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        hidden: Tensor,
        cell: Tensor,
        weight_input: Tensor,
        weight_hidden: Tensor,
        bias: Tensor,
        weight_projection: Tensor | None,
        clips: Clips,
        ops: Cell,
    ) -> tuple[Tensor, Tensor]:
        trace = _Trace([], [], [])
        weights = weight_input, weight_hidden, bias, weight_projection
        y, after = _run(x, hidden, cell, *weights, clips, ops, trace)
        ctx.save_for_backward(
            y, x, hidden, weight_input, weight_hidden, weight_projection, *trace.gates,
            *trace.cells, *trace.squashed,
        )  # fmt: skip
        ctx.clips, ctx.ops = clips, ops
        return y, after.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_cell: Tensor) -> tuple[Tensor | None, ...]:
        y, x, hidden, weight_input, weight_hidden, weight_projection, *steps = ctx.saved_tensors
        _, time, rows, width = x.shape
        gates, cells, squashed = steps[:time], steps[time : 2 * time + 1], steps[2 * time + 1 :]
        cell_clip, projection_clip = ctx.clips
        size = d_cell.shape[-1]
        to_hidden = weight_hidden.transpose(1, 2)  # (2, 4 * hidden, width)

        d_cell = d_cell.reshape(2 * rows, size).contiguous()
        d_hidden = torch.zeros_like(hidden)
        all_gates = x.new_empty(2, time, rows, 4 * size)
        d_projected = torch.empty_like(y)
        for step in reversed(range(time)):
            d_hidden = d_hidden + d_y[:, step]  # (2, rows, width)
            if projection_clip is not None:
                d_hidden = d_hidden * (y[:, step].abs() < projection_clip)
            d_projected[:, step] = d_hidden
            if weight_projection is not None:
                d_hidden = d_hidden.bmm(weight_projection.transpose(1, 2))  # (2, rows, hidden)
            d_gate, d_cell = ctx.ops.backward(
                gates[step], cells[step], cells[step + 1],
                d_hidden.reshape(2 * rows, size), d_cell, cell_clip,
            )  # fmt: skip
            d_gate = d_gate.view(2, rows, 4 * size)
            all_gates[:, step] = d_gate
            d_hidden = d_gate.bmm(to_hidden)  # (2, rows, width)

        all_gates = all_gates.view(2, time * rows, 4 * size)
        before = torch.cat([hidden.unsqueeze(1), y[:, :-1]], 1)  # (2, time, rows, width)
        d_projection = None
        if weight_projection is not None:
            projected = d_projected.view(2, time * rows, width)
            inner = torch.stack(squashed, 1).view(2, time * rows, size)
            d_projection = inner.transpose(1, 2).bmm(projected)  # (2, hidden, width)
        return (
            all_gates.bmm(weight_input.transpose(1, 2)).view_as(x),
            d_hidden,
            d_cell.view(2, rows, size),
            x.reshape(2, time * rows, width).transpose(1, 2).bmm(all_gates),
            before.view(2, time * rows, width).transpose(1, 2).bmm(all_gates),
            all_gates.sum(1),
            d_projection,
            None,
            None,
        )
