"""The recurrence of an LSTM layer over time, with a hand-written gradient.

Shapes and equations are those of `lightning_modules.nn.recurrent.lstm.LSTMLayer`. The gradient is
hand-written for speed: the input is multiplied once for all steps, a step is one batched matmul and one
pointwise cell, and each weight's gradient is one matmul after the loop.

Under autocast, the weights are cast once for the forward and the backward pass. What a matmul reads or
writes is in the matmuls' dtype: gates, sigmoid(o) tanh(c'), h', and their gradients. The cell state and
its gradient are float32.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.nn.recurrent.cell import Cell
from lightning_modules.nn.recurrent.graphs import is_kept
from lightning_modules.nn.recurrent.matmul import FixedWeight, product, weight_gradient


class Weights(NamedTuple):
    """Weights of a layer, or of some of its directions."""

    input: Tensor  # (directions, width, 4 * hidden)
    hidden: Tensor  # (directions, width, 4 * hidden)
    bias: Tensor  # (directions, 4 * hidden)
    projection: Tensor | None  # (directions, hidden, width)

    def of(self, part: slice) -> "Weights":
        """Return the weights of some directions, with the bias detached from the graph."""
        projection = None if self.projection is None else self.projection[part]
        return Weights(self.input[part], self.hidden[part], self.bias[part].detach(), projection)


class Settings(NamedTuple):
    """Settings of the forward and the backward pass."""

    clips: tuple[float, float]  # bounds of the cell state and of the output, inf for none
    ops: Cell  # eager or compiled
    dtype: torch.dtype  # of the matmuls
    parts: tuple[slice, ...]  # directions that are computed together

    @property
    def onednn(self) -> bool:
        """Whether each direction is computed separately, with oneDNN."""
        return self.parts[0].stop is not None

    @property
    def cell_dtype(self) -> torch.dtype:
        """Dtype of the cell state: at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def cast(self, weights: Weights) -> Weights:
        """Return the weights in the dtype of the matmuls, and the bias in that of the cell state."""
        weight_input, hidden, bias, projection = weights
        return Weights(
            weight_input.to(self.dtype),
            hidden.to(self.dtype),
            bias.to(self.cell_dtype),
            None if projection is None else projection.to(self.dtype),
        )

    def fixed(self, weight: Tensor, rows: int) -> FixedWeight:
        """Prepare a weight, (directions, k, n), for the matmuls of all steps."""
        return FixedWeight(weight, rows, self.onednn)

    def by_steps(self, x: Tensor) -> Tensor:
        """Return a copy of x, (directions, time, rows, n), in the matmuls' dtype, with time first.

        In float32, steps are contiguous in memory. In 16 bits, directions are, because the matmuls of
        a GPU read a step with any distance between directions, and weight gradients need no copy then.
        """
        if self.dtype == self.cell_dtype:
            return x.transpose(0, 1).to(self.dtype).clone(memory_format=torch.contiguous_format)
        return (
            torch.empty_like(x, dtype=self.dtype, memory_format=torch.contiguous_format)
            .copy_(x)
            .transpose(0, 1)
        )


class _Trace(NamedTuple):
    """Values of all steps for the backward pass; time is the first dimension.

    The first index of cells is unused, because torch.compile recompiles for a tensor that begins its
    storage.
    """

    y: Tensor  # initial h at [0], h' of step t at [t + 1]; (time + 1, directions, rows, width)
    cells: Tensor  # initial c at [1], c' of step t at [t + 2]; (time + 2, directions, rows, hidden)
    squashed: Tensor  # sigmoid(o) tanh(c'), (time, directions, rows, hidden)
    gates: tuple[Tensor, ...]  # from the cell, for each part, (_, time, rows, 4 * hidden)


def run_steps(
    x: Tensor,
    state: Tensor,
    weights: Weights,
    keep: Tensor | None,
    settings: Settings,
    traced: bool,
) -> tuple[Tensor, Tensor, _Trace]:
    """Compute all steps, without a gradient.

    Args:
        x: (directions, time, rows, width), in the matmuls' dtype.
        state: initial h and c, concatenated, (directions, rows, width + hidden).
        weights: weights of all directions, from `Settings.cast`.
        keep: 0 where the state is set to zero before a step, else 1, (time, directions, rows, 1);
            None means nowhere.
        settings: settings of the pass.
        traced: keep the values that the backward pass needs.

    Returns:
        h' of each step, in the shape and the dtype of x; the state after the last step, in the cell
        state's dtype; the values of all steps.
    """
    directions, time, rows, width = x.shape
    size = state.shape[-1] - width
    kept = time if traced else 1  # steps whose cells are kept; only the backward pass needs them
    if settings.dtype == settings.cell_dtype:
        y = x.new_empty(time + 1, directions, rows, width)
    else:  # as in `Settings.by_steps`
        y = x.new_empty(directions, time + 1, rows, width).transpose(0, 1)
    cells = x.new_empty(kept + 2, directions, rows, size, dtype=settings.cell_dtype)
    projected = weights.projection is not None
    squashed = x.new_empty(directions, kept, rows, size).transpose(0, 1) if projected else y[1:]
    y[0], cells[1] = state[..., :width], state[..., width:]
    gates = tuple(
        _run_part(x[part], y[:, part], cells[:, part], squashed[:, part], weights.of(part),
                  None if keep is None else keep[:, part], settings)
        for part in settings.parts
    )  # fmt: skip
    # (directions, rows, width + hidden)
    after = torch.cat([y[time], cells[1 + time % (kept + 1)]], -1)
    return y[1:].transpose(0, 1), after, _Trace(y, cells, squashed, gates)


def _run_part(
    x: Tensor,
    y: Tensor,
    cells: Tensor,
    squashed: Tensor,
    weights: Weights,
    keep: Tensor | None,
    settings: Settings,
) -> Tensor:
    """Compute all steps of some directions: fill y, cells and squashed, return the gates."""
    directions, time, rows, _ = x.shape
    cell_clip, projection_clip = settings.clips
    gates = product(x.flatten(1, 2), weights.input, settings.onednn)
    gates = gates.view(directions, time, rows, -1)  # (directions, time, rows, 4 * hidden)
    recurrent_weight = settings.fixed(weights.hidden, rows)
    projection = None if weights.projection is None else settings.fixed(weights.projection, rows)
    slots = len(cells) - 1  # without a trace, two slots alternate
    for step, gate in enumerate(gates.unbind(1)):
        out = y[step + 1]  # (directions, rows, width)
        before, after = cells[1 + step % slots], cells[1 + (step + 1) % slots]
        squash = squashed[step % len(squashed)]  # these three (directions, rows, hidden)
        settings.ops.forward(
            gate, recurrent_weight.times(y[step]), weights.bias, before, after, squash, cell_clip,
            None if keep is None else keep[step],
        )  # fmt: skip
        if projection is not None:
            projection.write(squash, out)
        if projection_clip < math.inf:
            out.clamp_(-projection_clip, projection_clip)
    return gates


class Recurrence(torch.autograd.Function):
    """`run_steps` with a gradient for x, the state and the weights, which it casts.

    The last argument, ``tap``, (directions, time, rows, width), stands for zeros that are added to each
    h' after the clip. Its values are not read. Its gradient is the total gradient of h': through the
    outputs and through the next steps of the layer, with c' held constant. The gradient of the outputs,
    which autograd gives without a tap, is the part through the outputs only.
    """

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
        settings: Settings,
        tap: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.settings, ctx.weight_dtype = settings, weight_input.dtype
        weights = settings.cast(Weights(weight_input, weight_hidden, bias, weight_projection))
        with torch.autocast(x.device.type, enabled=False):
            outputs, after, trace = run_steps(x, state, weights, keep, settings, traced=True)
        ctx.save_for_backward(x, *weights, keep, trace.y, trace.cells, trace.squashed, *trace.gates)
        return outputs.to(ctx.weight_dtype).contiguous(), after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights, keep, y, cells, squashed = ctx.saved_tensors[:9]
        weights, settings = Weights(*weights), ctx.settings
        width = x.shape[-1]
        d_y = settings.by_steps(d_outputs)
        d_y[-1] += d_after[..., :width]  # (time, directions, rows, width)
        # (directions, rows, hidden)
        d_cell = d_after[..., width:].clone(memory_format=torch.contiguous_format)
        gradients = []
        with torch.autocast(x.device.type, enabled=False):
            for part, gates in zip(settings.parts, ctx.saved_tensors[9:], strict=True):
                trace = _Trace(y[:, part], cells[:, part], squashed[:, part], (gates,))
                gradients.append(
                    _backward_part(
                        x[part], d_y[:, part], d_cell[part], trace, weights.of(part),
                        None if keep is None else keep[:, part],
                        settings, _Needed.of(ctx), ctx.weight_dtype,
                    )
                )  # fmt: skip
        d_inputs = [
            None if g[0] is None else torch.cat(g) if len(g) > 1 else g[0]
            for g in zip(*gradients, strict=True)
        ]
        *d_inputs, d_tap = d_inputs
        return (*d_inputs, None, None, d_tap)


class _Needed(NamedTuple):
    """What is needed of a backward pass, besides the gradient of x."""

    state: bool  # its gradient
    weights: bool
    tap: bool
    trace: bool  # for another backward pass

    @classmethod
    def of(cls, ctx: Any) -> "_Needed":
        """Read the context of `Recurrence`."""
        needed = ctx.needs_input_grad
        return cls(needed[1], any(needed[2:6]), needed[8], is_kept(ctx))


def _backward_part(
    x: Tensor,
    d_y: Tensor,
    d_cell: Tensor,
    trace: _Trace,
    weights: Weights,
    keep: Tensor | None,
    settings: Settings,
    needed: _Needed,
    weight_dtype: torch.dtype,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, state, the four weights and the tap; overwrites d_y, d_cell.

    A gradient that is not needed is None.
    """
    _, time, rows, _ = x.shape
    cell_clip, clip = settings.clips
    (gates,) = trace.gates
    if needed.trace:
        gates = gates.clone()
    transposed = settings.fixed(weights.hidden.mT, rows)
    projection = None if weights.projection is None else settings.fixed(weights.projection.mT, rows)
    steps = list(zip(gates.unbind(1), d_y.unbind(0), strict=True))
    d_tap = torch.empty_like(d_y).transpose(0, 1) if needed.tap else None
    for step in reversed(range(time)):
        gate, d_hidden = steps[step]
        if d_tap is not None:
            d_tap[:, step] = d_hidden
        if clip < math.inf:  # the gradient of a clipped value is 0
            torch.ops.aten.hardtanh_backward.grad_input(
                d_hidden, trace.y[step + 1], -clip, clip, grad_input=d_hidden
            )
        d_squashed = d_hidden if projection is None else projection.times(d_hidden)
        kept = None if keep is None else keep[step]
        before, after = trace.cells[1 + step], trace.cells[2 + step]
        settings.ops.backward(gate, before, after, d_squashed, d_cell, cell_clip, kept)
        if step and kept is None:
            transposed.add(gate, steps[step - 1][1])
        elif step and kept is not None:
            steps[step - 1][1].addcmul_(transposed.times(gate), kept)
    d_state = None
    if needed.state:
        d_first = transposed.times(steps[0][0])
        d_first = d_first if keep is None else d_first * keep[0]
        d_state = torch.cat([d_first, d_cell], -1)

    def flat(z: Tensor) -> Tensor:  # (time, directions, rows, n) -> (directions, n, time * rows)
        return z.transpose(0, 1).flatten(1, 2).mT

    all_gates = gates.flatten(1, 2)  # (directions, time * rows, 4 * hidden)
    d_x = product(all_gates, weights.input.mT, settings.onednn).view_as(x)
    if not needed.weights:
        return d_x, d_state, None, None, None, None, d_tap
    hidden = trace.y[:-1] if keep is None else trace.y[:-1] * keep
    d_projection = None
    if projection is not None:
        d_projection = weight_gradient(flat(trace.squashed), flat(d_y).mT, weight_dtype)
    return (
        d_x,
        d_state,
        weight_gradient(x.flatten(1, 2).mT, all_gates, weight_dtype, settings.onednn),
        weight_gradient(flat(hidden), all_gates, weight_dtype, settings.onednn),
        all_gates.sum(1, dtype=weight_dtype),
        d_projection,
        d_tap,
    )
