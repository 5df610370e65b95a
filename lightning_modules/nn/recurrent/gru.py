"""The GRU layer for several directions, with a hand-written gradient.

As in `lightning_modules.nn.recurrent.lstm_recurrence`, the input is multiplied once for all steps, a step is one
batched matmul and one pointwise cell, and each weight's gradient is one matmul after the loop.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_modules.config import GRUConfig, RecurrentConfig
from lightning_modules.nn.mode import is_training
from lightning_modules.nn.recurrent import gru_cell
from lightning_modules.nn.recurrent.cell import Cell, Mode, compile_cell
from lightning_modules.nn.recurrent.matmul import FixedWeight, product


class GRULayer(nn.Module):
    """One GRU layer per direction (Cho et al. 2014), with the arithmetic of nn.GRU.

        r, z = sigmoid(x W_input + h W_hidden + b)            (gates in the order of nn.GRU)
        n = tanh(x W_input + b + r (h W_hidden + b_hidden))
        h' = (1 - z) n + z h

    The state is h, (directions, rows, hidden). In training, `weight_drop` zeroes entries of
    W_hidden, with one mask per call (Merity et al. 2018, section 2).

    Initialisation: weights are Glorot uniform over a direction's ([x, h], gates) matrix, biases 0.
    """

    def __init__(self, config: RecurrentConfig, directions: int) -> None:
        super().__init__()
        assert isinstance(config, GRUConfig)
        hidden = config.hidden
        self.config, self.state_width, self.ops = config, hidden, gru_cell.EAGER
        self.weight_input = nn.Parameter(torch.empty(directions, hidden, 3 * hidden))
        self.weight_hidden = nn.Parameter(torch.empty(directions, hidden, 3 * hidden))
        self.bias = nn.Parameter(torch.zeros(directions, 3 * hidden))
        self.bias_hidden = nn.Parameter(torch.zeros(directions, hidden))
        gates = math.sqrt(6 / (2 * hidden + 3 * hidden))
        nn.init.uniform_(self.weight_input, -gates, gates)
        nn.init.uniform_(self.weight_hidden, -gates, gates)

    def compile_cell(self, mode: Mode, rows: int) -> str:
        """Compile the cell for the weights' device; return a sentence for the user."""
        self.ops, sentence = compile_cell(
            mode, gru_cell, self.bias.device, rows, self.config.hidden, math.inf
        )
        return sentence

    def forward(
        self,
        x: Tensor,
        state: Tensor,
        resets: Tensor | None,
        training: bool | None = None,
        tap: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return h' of each step, in the shape of x, and the state after the last step.

        Args:
            x: (directions, time, rows, hidden).
            state: (directions, rows, hidden).
            resets: True where the state is set to zero before the input is read, bool (directions,
                time, rows); None means nowhere.
            training: whether to drop weights; None means the module's mode.
            tap: its gradient is the total gradient of h', as in
                `lightning_modules.nn.recurrent.lstm_recurrence.Recurrence`; it is not read.
        """
        x, device = x.to(self.bias.dtype), x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        drop = self.config.weight_drop
        weight_hidden = F.dropout(self.weight_hidden, drop, is_training(self, training))
        weights = self.weight_input, weight_hidden, self.bias, self.bias_hidden
        keep = None
        if resets is not None:
            # 0 where the state is reset, else 1; (time, directions, rows, 1)
            keep = resets.transpose(0, 1).logical_not().unsqueeze(-1).to(x.dtype)
        if torch.is_grad_enabled():
            outputs, after = _Recurrence.apply(x, state, *weights, keep, self.ops, dtype, tap)
            return outputs, after
        with torch.autocast(device, enabled=False):
            return _run(x, state, *weights, keep, self.ops, dtype)[:2]


class _Trace(NamedTuple):
    """Values of all steps for the backward pass.

    The first index of y is unused and the last is scratch space, as for `cells` in
    `lightning_modules.nn.recurrent.lstm_recurrence._Trace`.
    """

    y: Tensor  # initial h at [1], h' of step t at [t + 2]; (time + 3, directions, rows, hidden)
    gates: Tensor  # values of the gates, (directions, time, rows, 3 * hidden)
    inner: Tensor  # the term that r multiplies, (directions, time, rows, hidden)


def _run(
    x: Tensor,
    state: Tensor,
    weight_input: Tensor,
    weight_hidden: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
    keep: Tensor | None,
    ops: Cell,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, _Trace]:
    directions, time, rows, size = x.shape
    gates = product(x.flatten(1, 2), weight_input, dtype, onednn=False)
    gates = gates.view(directions, time, rows, -1)  # (directions, time, rows, 3 * hidden)
    y = x.new_empty(time + 3, directions, rows, size)
    y[1] = state
    inner = torch.empty_like(x, memory_format=torch.contiguous_format)
    recurrent_weight = FixedWeight(weight_hidden, rows, dtype, onednn=False)
    bias, bias_hidden = bias.detach(), bias_hidden.detach()
    for step, (gate, inside) in enumerate(zip(gates.unbind(1), inner.unbind(1), strict=True)):
        hidden, after = y[1 + step], y[2 + step]  # (directions, rows, hidden)
        if keep is not None:
            hidden = torch.mul(hidden, keep[step], out=y[-1])
        ops.forward(gate, recurrent_weight.times(hidden), bias, bias_hidden, hidden, after, inside)
    return y[2:-1].transpose(0, 1).contiguous(), y[-2].clone(), _Trace(y, gates, inner)


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
        bias_hidden: Tensor,
        keep: Tensor | None,
        ops: Cell,
        dtype: torch.dtype,
        tap: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            outputs, after, trace = _run(
                x, state, weight_input, weight_hidden, bias, bias_hidden, keep, ops, dtype
            )
        ctx.save_for_backward(x, weight_input, weight_hidden, keep, *trace)
        ctx.ops, ctx.dtype = ops, dtype
        return outputs, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(d_outputs.device.type, enabled=False):
            *gradients, d_tap = _backward(ctx, d_outputs, d_after)
            return (*gradients, None, None, None, d_tap)


def _backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, state, the four weights (None if not needed) and the tap."""
    x, weight_input, weight_hidden, keep, y, gates, inner = ctx.saved_tensors
    _, time, rows, size = x.shape
    if torch._C._autograd._get_current_graph_task_keep_graph():
        gates = gates.clone()  # keep the values for another backward pass
    d_y = d_outputs.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    d_y[-1] += d_after  # (time, directions, rows, hidden)
    d_recurrent = torch.empty_like(gates)  # (directions, time, rows, 3 * hidden)
    transposed = FixedWeight(weight_hidden.mT, rows, ctx.dtype, onednn=False)
    d_tap = torch.empty_like(d_y) if ctx.needs_input_grad[9] else None
    before = y[1:-2]  # (time, directions, rows, hidden)
    if keep is not None:
        before = torch.mul(before, keep, out=torch.empty_like(y)[1:-2])
    for step in reversed(range(time)):
        d_hidden, d_gate = d_y[step], d_recurrent[:, step]
        if d_tap is not None:
            d_tap[step] = d_hidden
        ctx.ops.backward(gates[:, step], inner[:, step], before[step], d_hidden, d_gate)
        transposed.add(d_gate, d_hidden)
        if keep is not None:
            d_hidden.mul_(keep[step])
        if step:
            d_y[step - 1].add_(d_hidden)
    d_gates, d_recurrent = gates.flatten(1, 2), d_recurrent.flatten(1, 2)
    d_x = product(d_gates, weight_input.mT, ctx.dtype, onednn=False).view_as(x)
    if d_tap is not None:
        d_tap = d_tap.transpose(0, 1)
    if not any(ctx.needs_input_grad[2:6]):
        return d_x, d_y[0], None, None, None, None, d_tap
    before = before.transpose(0, 1).flatten(1, 2)  # (directions, time * rows, hidden)
    return (
        d_x,
        d_y[0],
        product(x.flatten(1, 2).mT, d_gates, ctx.dtype, onednn=False),
        product(before.mT, d_recurrent, ctx.dtype, onednn=False),
        d_gates.sum(1),
        d_recurrent[..., 2 * size :].sum(1),
        d_tap,
    )
