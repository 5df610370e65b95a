"""The projected LSTM layer for several directions, with clipping and a hand-written gradient.

nn.LSTM has no clipping, so it cannot represent ELMo, and cannot run two directions with independent
inputs as one batched matmul. The gradient is hand-written for speed: the input is multiplied once for
all steps, a step is one batched matmul and one pointwise cell, and each weight's gradient is one matmul
after the loop.

In shapes, width is that of a direction's output and hidden that of its cell state.
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
from lightning_modules.nn.recurrent.matmul import FixedWeight, per_direction, product


class LSTMLayer(nn.Module):
    """One projected LSTM layer per direction (Peters et al. 2018, section 3.1).

        i, f, g, o = x W_input + h W_hidden + b        (in the order of nn.LSTM; f + forget_bias)
        c' = clip(sigmoid(f) c + sigmoid(i) tanh(g))   (cell_clip)
        h' = clip((sigmoid(o) tanh(c')) W_projection)  (projection_clip)

    The gradient of a clipped value is 0. The state is h and c, concatenated, (directions, rows,
    width + hidden). In training, `weight_drop` zeroes entries of W_hidden, with one mask per call
    (Merity et al. 2018, section 2).

    Initialisation: weights are Glorot uniform over a direction's ([x, h], gates) matrix and over its
    projection; biases are 0, except that the forget gate's bias plus forget_bias is 1.
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
        forget = torch.zeros(4 * hidden)  # gates are in the order i, f, g, o
        forget[hidden : 2 * hidden] = config.forget_bias
        self.register_buffer("_forget", forget, persistent=False)
        nn.init.constant_(self.bias[:, hidden : 2 * hidden], 1 - config.forget_bias)
        if self.weight_projection is not None:
            projection = math.sqrt(6 / (hidden + width))
            nn.init.uniform_(self.weight_projection, -projection, projection)

    def compile_cell(self, mode: Mode, rows: int) -> str:
        """Compile the cell for the weights' device; return a sentence for the user."""
        self.ops, sentence = compile_cell(
            mode, lstm_cell, self.bias.device, rows, self.config.hidden, self._clips[0]
        )
        return sentence

    def forward(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return h' of each step, in the shape of x, and the state after the last step.

        Args:
            x: (directions, time, rows, width).
            state: (directions, rows, width + hidden).
            resets: True where the state is set to zero before the input is read, bool (directions,
                time, rows); None means nowhere.
        """
        x, device = x.to(self.bias.dtype), x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        parts: tuple[slice, ...] = (slice(None),)
        # Inference has few rows, and their number varies, for which reordered weights are slower.
        if torch.is_grad_enabled() and per_direction(self.weight_hidden, dtype):
            parts = tuple(slice(d, d + 1) for d in range(len(x)))
        plan = _Plan(self._clips, self.ops, dtype, parts)
        weights = _Weights(
            self.weight_input,
            F.dropout(self.weight_hidden, self.config.weight_drop, self.training),
            self.bias + self._forget if self.config.forget_bias else self.bias,
            self.weight_projection,
        )
        keep = None
        if resets is not None:
            # 0 where the state is reset, else 1; (time, directions, rows, 1)
            keep = resets.transpose(0, 1).logical_not().unsqueeze(-1).to(x.dtype)
        if torch.is_grad_enabled():
            outputs, after = _Recurrence.apply(x, state, *weights, keep, plan)
            return outputs, after
        with torch.autocast(device, enabled=False):
            return _run(x, state, weights, keep, plan, traced=False)[:2]


class _Weights(NamedTuple):
    """Weights of a layer, or of some of its directions."""

    input: Tensor
    hidden: Tensor
    bias: Tensor
    projection: Tensor | None

    def of(self, part: slice) -> "_Weights":
        projection = None if self.projection is None else self.projection[part]
        return _Weights(self.input[part], self.hidden[part], self.bias[part].detach(), projection)


class _Plan(NamedTuple):
    """Settings of the forward and the backward pass."""

    clips: tuple[float, float]  # bounds of cell state and projection, inf for none
    ops: Cell
    dtype: torch.dtype  # of the matmuls
    parts: tuple[slice, ...]  # directions that are computed together

    @property
    def onednn(self) -> bool:
        """Whether each direction is computed by itself, with oneDNN."""
        return self.parts[0].stop is not None

    def fixed(self, weight: Tensor, rows: int) -> FixedWeight:
        return FixedWeight(weight, rows, self.dtype, self.onednn)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return product(a, b, self.dtype, self.onednn)


class _Trace(NamedTuple):
    """Values of all steps for the backward pass; time is the first dimension, so steps are contiguous.

    The first index of cells is unused and the last is scratch space, because torch.compile recompiles
    for a tensor that begins its storage, and for a c in another storage than its c'.
    """

    y: Tensor  # initial h at [0], h' of step t at [t + 1]; (time + 1, directions, rows, width)
    cells: Tensor  # initial c at [1], c' of step t at [t + 2]; (time + 3, directions, rows, hidden)
    squashed: Tensor  # sigmoid(o) tanh(c'), (time, directions, rows, hidden)
    gates: tuple[Tensor, ...]  # values of the gates of each part, (_, time, rows, 4 * hidden)


def _run(
    x: Tensor, state: Tensor, weights: _Weights, keep: Tensor | None, plan: _Plan, traced: bool
) -> tuple[Tensor, Tensor, _Trace]:
    directions, time, rows, width = x.shape
    size = state.shape[-1] - width
    kept = time if traced else 1  # steps whose cells are kept; only the backward pass needs them
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
    # (directions, rows, width + hidden)
    after = torch.cat([y[time], cells[1 + time % (kept + 1)]], -1)
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
    """Compute all steps of some directions: fill y, cells and squashed, return the gates."""
    directions, time, rows, _ = x.shape
    cell_clip, projection_clip = plan.clips
    gates = plan.product(x.flatten(1, 2), weights.input)
    gates = gates.view(directions, time, rows, -1)  # (directions, time, rows, 4 * hidden)
    recurrent_weight = plan.fixed(weights.hidden, rows)
    projection = None if weights.projection is None else plan.fixed(weights.projection, rows)
    slots = len(cells) - 2  # without a trace, two slots alternate
    for step, gate in enumerate(gates.unbind(1)):
        hidden, out = y[step], y[step + 1]  # (directions, rows, width)
        before, after = cells[1 + step % slots], cells[1 + (step + 1) % slots]
        squash = squashed[step % len(squashed)]  # these three (directions, rows, hidden)
        if keep is not None:
            hidden = hidden * keep[step]
            before = torch.mul(before, keep[step], out=cells[-1])
        plan.ops.forward(
            gate, recurrent_weight.times(hidden), weights.bias, before, after, squash, cell_clip
        )
        if projection is not None:
            projection.write(squash, out)
        if projection_clip < math.inf:
            out.clamp_(-projection_clip, projection_clip)
    return gates


class _Recurrence(torch.autograd.Function):
    """All steps of a layer, with the gradient."""

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
        unclipped = None
        if plan.clips[1] < math.inf:
            unclipped = (y[1:].abs() < plan.clips[1]).to(y.dtype)  # 1 or 0, shape of d_y
        gradients = []
        with torch.autocast(x.device.type, enabled=False):
            for part, gates in zip(plan.parts, ctx.saved_tensors[9:], strict=True):
                trace = _Trace(y[:, part], cells[:, part], squashed[:, part], (gates,))
                gradients.append(
                    _backward_part(
                        x[part], d_y[:, part], d_cell[part], trace, weights.of(part),
                        None if keep is None else keep[:, part],
                        None if unclipped is None else unclipped[:, part],
                        plan, ctx.needs_input_grad[1],
                    )
                )  # fmt: skip
        d_inputs = [
            None if g[0] is None else torch.cat(g) if len(g) > 1 else g[0]
            for g in zip(*gradients, strict=True)
        ]
        return (*d_inputs, None, None)


def _backward_part(
    x: Tensor,
    d_y: Tensor,
    d_cell: Tensor,
    trace: _Trace,
    weights: _Weights,
    keep: Tensor | None,
    unclipped: Tensor | None,
    plan: _Plan,
    state_gradient: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, state (if state_gradient) and the four weights; overwrites d_y, d_cell."""
    _, time, rows, _ = x.shape
    (gates,) = trace.gates
    if torch._C._autograd._get_current_graph_task_keep_graph():
        gates = gates.clone()  # keep the values for another backward pass
    transposed = plan.fixed(weights.hidden.mT, rows)
    projection = None if weights.projection is None else plan.fixed(weights.projection.mT, rows)
    steps = list(zip(gates.unbind(1), d_y.unbind(0), strict=True))
    # Scratch space of its own, because another backward pass needs the trace unchanged.
    spare = torch.empty_like(trace.cells[:2])
    for step in reversed(range(time)):
        gate, d_hidden = steps[step]
        if unclipped is not None:
            d_hidden.mul_(unclipped[step])
        d_squashed = d_hidden if projection is None else projection.times(d_hidden)
        before, after = trace.cells[1 + step], trace.cells[2 + step]
        if keep is not None:
            before = torch.mul(before, keep[step], out=spare[1])
        plan.ops.backward(gate, before, after, d_squashed, d_cell, plan.clips[0])
        if keep is not None:
            d_cell.mul_(keep[step])
        if step and keep is None:
            transposed.add(gate, steps[step - 1][1])
        elif step and keep is not None:
            steps[step - 1][1].add_(transposed.times(gate) * keep[step])
    d_state = None
    if state_gradient:
        d_first = transposed.times(steps[0][0])
        d_first = d_first if keep is None else d_first * keep[0]
        d_state = torch.cat([d_first, d_cell], -1)

    def flat(z: Tensor) -> Tensor:  # (time, directions, rows, n) -> (directions, n, time * rows)
        return z.transpose(0, 1).flatten(1, 2).mT

    hidden = trace.y[:-1] if keep is None else trace.y[:-1] * keep
    all_gates = gates.flatten(1, 2)  # (directions, time * rows, 4 * hidden)
    d_projection = None
    if projection is not None:
        d_projection = product(flat(trace.squashed), flat(d_y).mT, plan.dtype, False)
    return (
        plan.product(all_gates, weights.input.mT).view_as(x),
        d_state,
        plan.product(x.flatten(1, 2).mT, all_gates),
        plan.product(flat(hidden), all_gates),
        all_gates.sum(1),
        d_projection,
    )
