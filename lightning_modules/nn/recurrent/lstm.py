"""The projected LSTM of several directions, with clips.

Not nn.LSTM, which knows neither clip nor residual connection, hence cannot represent ELMo, and
cannot run two directions that are fed by independent streams as one batched matmul. The gradient
is written by hand for speed: the input's matmul is hoisted out of the loop over time, every step
is one batched matmul of all directions and one pointwise cell, and each weight's gradient is one
matmul after the loop.

Shapes: directions, time, rows, width (of a direction's output), hidden (of a cell).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_modules.config import LSTMConfig, RecurrentConfig
from lightning_modules.nn.recurrent import lstm_cell
from lightning_modules.nn.recurrent.cell import Cell, Mode, compile_cell
from lightning_modules.nn.recurrent.matmul import Products, in_turn, product


class LSTMLayer(nn.Module):
    """One layer of projected LSTM a direction (Peters et al. 2018, section 3.1).

        i, f, g, o = x W_input + h W_hidden + b        (the order of nn.LSTM; f + forget_bias)
        c' = clip(sigmoid(f) c + sigmoid(i) tanh(g))   (cell_clip)
        h' = clip((sigmoid(o) tanh(c')) W_projection)  (projection_clip)

    A clip passes no gradient where it acts. The carried state is h, then c, (directions, rows,
    width + hidden). In training, `weight_drop` leaves out entries of W_hidden, drawn once a call
    (Merity et al. 2018, section 2).

    Weights are Glorot uniform over a direction's ([x, h], gates) matrix and its projection, biases
    0, the forget gate's, all told, 1.
    """

    _forget: Tensor

    def __init__(self, config: RecurrentConfig, directions: int) -> None:
        super().__init__()
        assert isinstance(config, LSTMConfig)
        hidden, width = config.hidden, config.direction_width
        self.config, self.state_width, self.ops = config, width + hidden, lstm_cell.EAGER
        self._clips = config.cell_clip or math.inf, config.projection_clip or math.inf
        self.weight_input = nn.Parameter(torch.empty(directions, width, 4 * hidden))
        self.weight_hidden = nn.Parameter(torch.empty(directions, width, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(directions, 4 * hidden))
        self.weight_projection = (
            None
            if config.projection is None
            else nn.Parameter(torch.empty(directions, hidden, width))
        )
        gates = math.sqrt(6 / (2 * width + 4 * hidden))
        nn.init.uniform_(self.weight_input, -gates, gates)
        nn.init.uniform_(self.weight_hidden, -gates, gates)
        forget = torch.zeros(4 * hidden)  # the gates' order is i, f, g, o
        forget[hidden : 2 * hidden] = config.forget_bias
        self.register_buffer("_forget", forget, persistent=False)
        nn.init.constant_(self.bias[:, hidden : 2 * hidden], 1 - config.forget_bias)
        if self.weight_projection is not None:
            projection = math.sqrt(6 / (hidden + width))
            nn.init.uniform_(self.weight_projection, -projection, projection)

    def compile_cell(self, mode: Mode, rows: int) -> str:
        """Compile the cell for the device the weights lie on; says what came of it."""
        self.ops, sentence = compile_cell(
            mode, lstm_cell, self.bias.device, rows, self.config.hidden, self._clips[0]
        )
        return sentence

    def used_bias(self) -> Tensor:
        """The bias of the gates with the forget gate's own addition, (directions, 4 * hidden)."""
        return self.bias + self._forget if self.config.forget_bias else self.bias

    def forward(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (directions, time, rows, width) -> h' of x's shape, and the state after the last.

        resets: bool (directions, time, rows), before which inputs the state is set to zero.
        """
        x, device = x.to(self.bias.dtype), x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        parts: tuple[slice, ...] = (slice(None),)
        # Without a gradient, rows are those of one text after the other: few, and of any number, for
        # which the packed products are the slower ones.
        if torch.is_grad_enabled() and in_turn(self.weight_hidden, dtype):
            parts = tuple(slice(d, d + 1) for d in range(len(x)))
        plan = _Plan(self._clips, self.ops, dtype, parts)
        weights = _Weights(
            self.weight_input,
            F.dropout(self.weight_hidden, self.config.weight_drop, self.training),
            self.used_bias(),
            self.weight_projection,
        )
        keep = None
        if resets is not None:
            keep = resets.transpose(0, 1).logical_not().unsqueeze(-1).to(x.dtype)
        if torch.is_grad_enabled():
            outputs, after = _Recurrence.apply(x, state, *weights, keep, plan)
            return outputs, after
        with torch.autocast(device, enabled=False):
            return _run(x, state, weights, keep, plan, traced=False)[:2]


class _Weights(NamedTuple):
    """Of a layer, or of one of its directions."""

    input: Tensor
    hidden: Tensor
    bias: Tensor
    projection: Tensor | None

    def of(self, part: slice) -> "_Weights":
        projection = None if self.projection is None else self.projection[part]
        return _Weights(self.input[part], self.hidden[part], self.bias[part].detach(), projection)


class _Plan(NamedTuple):
    """What stays the same between forward and backward."""

    clips: tuple[float, float]  # of cell and projection, inf where there is none
    ops: Cell
    dtype: torch.dtype  # of the matmuls
    parts: tuple[slice, ...]  # the directions that are taken at once

    @property
    def alone(self) -> bool:
        return self.parts[0].stop is not None


class _Trace(NamedTuple):
    """What the backward pass needs of every step; time comes first, so that a step is contiguous.

    The first place for cells is left empty and the last is spare: torch.compile compiles anew for a
    tensor that begins its storage, and for a c that does not share the storage of its c'.
    """

    y: Tensor  # h' with the first h in front, (time + 1, directions, rows, width)
    cells: Tensor  # c' from [2] on, [1] the first c, (time + 3, directions, rows, hidden)
    squashed: Tensor  # sigmoid(o) tanh(c'), (time, directions, rows, hidden)
    gates: tuple[Tensor, ...]  # values of the gates, a part each, (_, time, rows, 4 * hidden)


def _run(
    x: Tensor, state: Tensor, weights: _Weights, keep: Tensor | None, plan: _Plan, traced: bool
) -> tuple[Tensor, Tensor, _Trace]:
    directions, time, rows, width = x.shape
    size = state.shape[-1] - width
    kept = time if traced else 1  # of what only the backward pass needs afterwards
    y = x.new_empty(time + 1, directions, rows, width)
    cells = x.new_empty(kept + 3, directions, rows, size)
    projected = weights.projection is not None
    squashed = x.new_empty(directions, kept, rows, size).transpose(0, 1) if projected else y[1:]
    y[0], cells[1] = state[..., :width], state[..., width:]
    gates = tuple(
        _run_part(x[part], y[:, part], cells[:, part], squashed[:, part], weights.of(part),
                  None if keep is None else keep[:, part], plan)
        for part in plan.parts
    )  # fmt: skip
    after = torch.cat(
        [y[time], cells[1 + time % (kept + 1)]], -1
    )  # (directions, rows, state width)
    outputs = y[1:].transpose(0, 1).contiguous()  # (directions, time, rows, width)
    return outputs, after, _Trace(y, cells, squashed, gates)


def _run_part(
    x: Tensor,
    y: Tensor,
    cells: Tensor,
    squashed: Tensor,
    weights: _Weights,
    keep: Tensor | None,
    plan: _Plan,
) -> Tensor:
    """Fill y, cells and squashed of some directions; returns the values of their gates."""
    directions, time, rows, _ = x.shape
    cell_clip, projection_clip = plan.clips
    gates = product(x.flatten(1, 2), weights.input, plan.dtype, plan.alone)
    gates = gates.view(directions, time, rows, -1)  # (directions, time, rows, 4 * hidden)
    of_hidden = Products(weights.hidden, rows, plan.dtype, plan.alone)
    projection = (
        None
        if weights.projection is None
        else Products(weights.projection, rows, plan.dtype, plan.alone)
    )
    places = len(cells) - 2
    for step, gate in enumerate(gates.unbind(1)):
        hidden, out = y[step], y[step + 1]  # (directions, rows, width)
        before, after = cells[1 + step % places], cells[1 + (step + 1) % places]
        squash = squashed[step % len(squashed)]  # the three (directions, rows, hidden)
        if keep is not None:
            hidden = hidden * keep[step]
            before = torch.mul(before, keep[step], out=cells[-1])
        plan.ops.forward(gate, of_hidden.of(hidden), weights.bias, before, after, squash, cell_clip)
        if projection is not None:
            projection.into(squash, out)
        if projection_clip < math.inf:
            out.clamp_(-projection_clip, projection_clip)
    return gates


class _Recurrence(torch.autograd.Function):
    """One layer over time, all directions, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        state: Tensor,
        weight_input: Tensor,
        weight_hidden: Tensor,
        bias: Tensor,
        weight_projection: Tensor | None,
        keep: Tensor | None,
        plan: _Plan,
    ) -> tuple[Tensor, Tensor]:
        weights = _Weights(weight_input, weight_hidden, bias, weight_projection)
        with torch.autocast(x.device.type, enabled=False):
            outputs, after, trace = _run(x, state, weights, keep, plan, traced=True)
        ctx.save_for_backward(x, *weights, keep, trace.y, trace.cells, trace.squashed, *trace.gates)
        ctx.plan = plan
        return outputs, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights, keep, y, cells, squashed = ctx.saved_tensors[:9]
        weights, plan = _Weights(*weights), ctx.plan
        width = x.shape[-1]
        d_y = d_outputs.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        d_y[-1] += d_after[..., :width]  # (time, directions, rows, width)
        # (directions, rows, hidden)
        d_cell = d_after[..., width:].clone(memory_format=torch.contiguous_format)
        passes = None
        if plan.clips[1] < math.inf:
            passes = (y[1:].abs() < plan.clips[1]).to(y.dtype)  # as d_y
        gradients = []
        with torch.autocast(x.device.type, enabled=False):
            for part, gates in zip(plan.parts, ctx.saved_tensors[9:], strict=True):
                trace = _Trace(y[:, part], cells[:, part], squashed[:, part], (gates,))
                gradients.append(
                    _backward_part(
                        x[part], d_y[:, part], d_cell[part], trace, weights.of(part),
                        None if keep is None else keep[:, part],
                        None if passes is None else passes[:, part],
                        plan, ctx.needs_input_grad[1],
                    )
                )  # fmt: skip
        by = [
            None if g[0] is None else torch.cat(g) if len(g) > 1 else g[0]
            for g in zip(*gradients, strict=True)
        ]
        return (*by, None, None)


def _backward_part(
    x: Tensor,
    d_y: Tensor,
    d_cell: Tensor,
    trace: _Trace,
    weights: _Weights,
    keep: Tensor | None,
    passes: Tensor | None,
    plan: _Plan,
    to_state: bool,
) -> tuple[Tensor | None, ...]:
    """Gradient by x, state and the four weights; changes d_y and d_cell."""
    _, time, rows, _ = x.shape
    (gates,) = trace.gates
    if torch._C._autograd._get_current_graph_task_keep_graph():
        gates = gates.clone()  # another pass will come and need their values
    to_hidden = Products(weights.hidden.transpose(1, 2), rows, plan.dtype, plan.alone)
    projection = (
        None
        if weights.projection is None
        else Products(weights.projection.transpose(1, 2), rows, plan.dtype, plan.alone)
    )
    steps = list(zip(gates.unbind(1), d_y.unbind(0), strict=True))
    spare = torch.empty_like(trace.cells[:2])  # not the trace's own: the graph may be walked again
    for step in reversed(range(time)):
        gate, d_hidden = steps[step]
        if passes is not None:
            d_hidden.mul_(passes[step])
        d_squashed = d_hidden if projection is None else projection.of(d_hidden)
        before, after = trace.cells[1 + step], trace.cells[2 + step]
        if keep is not None:
            before = torch.mul(before, keep[step], out=spare[1])
        plan.ops.backward(gate, before, after, d_squashed, d_cell, plan.clips[0])
        if keep is not None:
            d_cell.mul_(keep[step])
        if step and keep is None:
            to_hidden.onto(gate, steps[step - 1][1])
        elif step and keep is not None:
            steps[step - 1][1].add_(to_hidden.of(gate) * keep[step])
    d_state = None
    if to_state:
        d_first = to_hidden.of(steps[0][0])
        d_first = d_first if keep is None else d_first * keep[0]
        d_state = torch.cat([d_first, d_cell], -1)

    def flat(z: Tensor) -> Tensor:  # (time, directions, rows, n) -> (directions, n, time * rows)
        return z.transpose(0, 1).flatten(1, 2).transpose(1, 2)

    hidden = trace.y[:-1] if keep is None else trace.y[:-1] * keep
    all_gates = gates.flatten(1, 2)  # (directions, time * rows, 4 * hidden)
    d_projection = None
    if projection is not None:
        d_projection = product(flat(trace.squashed), flat(d_y).transpose(1, 2), plan.dtype, False)
    return (
        product(all_gates, weights.input.transpose(1, 2), plan.dtype, plan.alone).view_as(x),
        d_state,
        product(x.flatten(1, 2).transpose(1, 2), all_gates, plan.dtype, plan.alone),
        product(flat(hidden), all_gates, plan.dtype, plan.alone),
        all_gates.sum(1),
        d_projection,
    )
