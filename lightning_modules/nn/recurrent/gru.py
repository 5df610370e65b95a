"""The GRU layer for several directions, with a hand-written gradient.

As in `lightning_modules.nn.recurrent.lstm_recurrence`, the input is multiplied once for all steps, a step is one
batched matmul and one pointwise cell, and each weight's gradient is one matmul after the loop. Under
autocast, too, what a matmul reads or writes is in the matmuls' dtype. The state h and its gradient are
float32; the cell writes each h a second time, as the operand of the next matmul.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lightning_modules.nn.mode import is_training
from lightning_modules.nn.recurrent import gru_cell
from lightning_modules.nn.recurrent.cell import Cell, Mode, compile_cell
from lightning_modules.nn.recurrent.graphs import Graphs, is_kept
from lightning_modules.nn.recurrent.matmul import FixedWeight, product, weight_gradient
from lightning_modules.recurrent_config import GRUConfig, RecurrentConfig


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
        self.graphs: Graphs | None = None
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
        device, dtype = x.device.type, self.bias.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        x = x.to(dtype)
        drop = self.config.weight_drop
        weight_hidden = F.dropout(self.weight_hidden, drop, is_training(self, training))
        weights = self.weight_input, weight_hidden, self.bias, self.bias_hidden
        keep = None
        if resets is not None:
            # 0 where the state is reset, else 1; (time, directions, rows, 1)
            keep = resets.transpose(0, 1).logical_not().unsqueeze(-1).to(dtype).contiguous()
        if torch.is_grad_enabled():
            apply = _Recurrence.apply if self.graphs is None else self.graphs.of(_Recurrence)
            outputs, after = apply(x, state, *weights, keep, self.ops, tap)
            return outputs, after
        with torch.autocast(device, enabled=False):
            y = _run(x, state, *_cast(dtype, *weights), keep, self.ops).y
            return y[2:].transpose(0, 1).to(self.bias.dtype).contiguous(), y[-1].clone()


class _Trace(NamedTuple):
    """Values of all steps for the backward pass.

    The first index of y is unused, as in `lightning_modules.nn.recurrent.lstm_recurrence._Trace`.
    """

    y: Tensor  # initial h at [1], h' of step t at [t + 2]; (time + 2, directions, rows, hidden)
    operands: Tensor  # y[1:] in the matmuls' dtype
    gates: Tensor  # from the cell, (directions, time, rows, 3 * hidden)
    inner: Tensor  # the term that r multiplies, (directions, time, rows, hidden)


def _cast(
    dtype: torch.dtype,
    weight_input: Tensor,
    weight_hidden: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weights in the matmuls' dtype, and the biases in that of the state."""
    wide = torch.promote_types(dtype, torch.float32)
    return (
        weight_input.to(dtype),
        weight_hidden.to(dtype),
        bias.detach().to(wide),
        bias_hidden.detach().to(wide),
    )


def _run(
    x: Tensor,
    state: Tensor,
    weight_input: Tensor,
    weight_hidden: Tensor,
    bias: Tensor,
    bias_hidden: Tensor,
    keep: Tensor | None,
    ops: Cell,
) -> _Trace:
    directions, time, rows, size = x.shape
    gates = product(x.flatten(1, 2), weight_input)
    gates = gates.view(directions, time, rows, -1)  # (directions, time, rows, 3 * hidden)
    y = bias.new_empty(time + 2, directions, rows, size)
    y[1] = state
    narrow = x.dtype != y.dtype
    operands = y[1:]
    if narrow:  # directions are contiguous, as in lstm_recurrence.Settings.by_steps
        operands = x.new_empty(directions, time + 1, rows, size).transpose(0, 1)
        operands[0] = state
    inner = torch.empty_like(x, memory_format=torch.contiguous_format)
    recurrent_weight = FixedWeight(weight_hidden, rows)
    for step, (gate, inside) in enumerate(zip(gates.unbind(1), inner.unbind(1), strict=True)):
        ops.forward(
            gate, recurrent_weight.times(operands[step]), bias, bias_hidden, y[1 + step],
            y[2 + step], inside, operands[step + 1] if narrow else None,
            None if keep is None else keep[step],
        )  # fmt: skip
    return _Trace(y, operands, gates, inner)


class _Recurrence(torch.autograd.Function):
    """All steps of a layer, with the gradient; casts the weights."""

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
        tap: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.ops, ctx.weight_dtype = ops, weight_input.dtype
        weights = _cast(x.dtype, weight_input, weight_hidden, bias, bias_hidden)
        with torch.autocast(x.device.type, enabled=False):
            trace = _run(x, state, *weights, keep, ops)
        ctx.save_for_backward(x, *weights[:2], keep, *trace)
        outputs = trace.y[2:].transpose(0, 1).to(ctx.weight_dtype).contiguous()
        return outputs, trace.y[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(d_outputs.device.type, enabled=False):
            *gradients, d_tap = _backward(ctx, d_outputs, d_after)
            return (*gradients, None, None, d_tap)


def _backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, state, the four weights (None if not needed) and the tap."""
    x, weight_input, weight_hidden, keep, y, operands, gates, inner = ctx.saved_tensors
    _, time, rows, size = x.shape
    if is_kept(ctx):
        gates = gates.clone()  # keep the values for another backward pass
    d_outputs = d_outputs.contiguous()
    d_recurrent = torch.empty_like(gates)  # (directions, time, rows, 3 * hidden)
    transposed = FixedWeight(weight_hidden.mT, rows)
    d_tap = torch.empty_like(d_outputs).transpose(0, 1) if ctx.needs_input_grad[8] else None
    narrow = x.dtype != y.dtype
    # (directions, rows, hidden): of h', less d_output and d_product in 16 bits, and else the whole
    d_hidden = d_after.clone(memory_format=torch.contiguous_format)
    d_product: Tensor | None = None
    for step in reversed(range(time)):
        d_output, d_gate = d_outputs[:, step], d_recurrent[:, step]
        kept = None if keep is None else keep[step]
        if not narrow:
            d_hidden = d_output + d_hidden
        if d_tap is not None:
            parts = (d_output, d_product) if narrow else ()
            d_tap[step] = sum((part for part in parts if part is not None), d_hidden)
        ctx.ops.backward(
            gates[:, step], inner[:, step], y[1 + step], d_hidden, d_gate,
            d_output if narrow else None, d_product, kept,
        )  # fmt: skip
        if narrow:
            d_product = transposed.times(d_gate)
            if kept is not None:
                d_product.mul_(kept)
        else:
            transposed.add(d_gate, d_hidden)
            if kept is not None:
                d_hidden.mul_(kept)
    if d_product is not None:
        d_hidden.add_(d_product)
    d_gates, d_recurrent = gates.flatten(1, 2), d_recurrent.flatten(1, 2)
    d_x = product(d_gates, weight_input.mT).view_as(x)
    if d_tap is not None:
        d_tap = d_tap.transpose(0, 1)
    if not any(ctx.needs_input_grad[2:6]):
        return d_x, d_hidden, None, None, None, None, d_tap
    before = operands[:-1] if keep is None else operands[:-1] * keep
    before = before.transpose(0, 1).flatten(1, 2)  # (directions, time * rows, hidden)
    return (
        d_x,
        d_hidden,
        weight_gradient(x.flatten(1, 2).mT, d_gates, ctx.weight_dtype),
        weight_gradient(before.mT, d_recurrent, ctx.weight_dtype),
        d_gates.sum(1, dtype=ctx.weight_dtype),
        d_recurrent[..., 2 * size :].sum(1, dtype=ctx.weight_dtype),
        d_tap,
    )
