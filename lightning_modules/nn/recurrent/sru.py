"""The SRU layer for several directions, with a hand-written gradient.

No gate reads the state, so one matmul computes the gates of all steps, and what remains of a step is
pointwise.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.nn.recurrent import sru_cell
from lightning_modules.nn.recurrent.cell import Cell, Mode, compile_cell
from lightning_modules.nn.recurrent.graphs import Graphs
from lightning_modules.nn.recurrent.matmul import product, weight_gradient
from lightning_modules.recurrent_config import RecurrentConfig, SRUConfig


class SRULayer(nn.Module):
    """One layer of simple recurrent units per direction (Lei et al. 2018, arXiv:1709.02755).

        u, f, r = x W                                  (f and r with a bias)
        c' = sigmoid(f) c + (1 - sigmoid(f)) u
        h' = sigmoid(r) c' + (1 - sigmoid(r)) sqrt(3) x

    The gates do not read c, as in the first version of the paper, so that steps can be computed at
    once. The term of x is a highway connection, scaled as in section 3.2. The state is c, (directions,
    rows, hidden).

    Initialisation: weights are uniform with variance 1 / hidden, biases 0 (section 3.2).
    """

    def __init__(self, config: RecurrentConfig, directions: int) -> None:
        super().__init__()
        assert isinstance(config, SRUConfig)
        hidden = config.hidden
        self.config, self.state_width, self.ops = config, hidden, sru_cell.EAGER
        self.graphs: Graphs | None = None
        self.weight_input = nn.Parameter(torch.empty(directions, hidden, 3 * hidden))
        self.bias = nn.Parameter(torch.zeros(directions, 2 * hidden))
        bound = math.sqrt(3 / hidden)
        nn.init.uniform_(self.weight_input, -bound, bound)

    def compile_cell(self, mode: Mode, rows: int) -> str:
        """Compile the cell for the weights' device; return a sentence for the user."""
        self.ops, sentence = compile_cell(
            mode, sru_cell, self.bias.device, rows, self.config.hidden, math.inf
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
            training: not read; the layer has no dropout of its own.
            tap: its gradient is the gradient of h', which no later step reads; it is not read.
        """
        device, dtype = x.device.type, self.bias.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        x = x.to(dtype).contiguous()
        keep = None
        if resets is not None:
            # 0 where the state is reset, else 1; (directions, time, rows, 1)
            keep = resets.logical_not().unsqueeze(-1).to(state.dtype)
        if torch.is_grad_enabled():
            apply = _Recurrence.apply if self.graphs is None else self.graphs.of(_Recurrence)
            outputs, after = apply(x, state, self.weight_input, self.bias, keep, self.ops, tap)
            return outputs, after
        with torch.autocast(device, enabled=False):
            weight, bias = _cast(dtype, self.weight_input, self.bias)
            outputs, cells, _ = _run(x, state, weight, bias, keep, self.ops)
            return outputs.to(self.bias.dtype), cells[:, -1].clone()


def _cast(dtype: torch.dtype, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight in the matmuls' dtype, and the bias in that of the state."""
    return weight.to(dtype), bias.to(torch.promote_types(dtype, torch.float32))


def _run(
    x: Tensor, state: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None, ops: Cell
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h', c before and after each step, and the gates, as `sru_cell.forward` has them."""
    directions, time, rows, size = x.shape
    gates = product(x.flatten(1, 2), weight).view(directions, time, rows, 3 * size)
    cells = bias.new_empty(directions, time + 1, rows, size)
    cells[:, 0] = state
    outputs = torch.empty_like(cells[:, 1:], memory_format=torch.contiguous_format)
    ops.forward(gates, bias, x, cells, outputs, keep)
    return outputs, cells, gates


class _Recurrence(torch.autograd.Function):
    """All steps of a layer, with the gradient; casts the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        state: Tensor,
        weight: Tensor,
        bias: Tensor,
        keep: Tensor | None,
        ops: Cell,
        tap: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.ops, ctx.weight_dtype = ops, weight.dtype
        weight, bias = _cast(x.dtype, weight, bias)
        with torch.autocast(x.device.type, enabled=False):
            outputs, cells, gates = _run(x, state, weight, bias, keep, ops)
        ctx.save_for_backward(x, weight, bias, keep, cells, gates)
        return outputs.to(ctx.weight_dtype), cells[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, keep, cells, gates = ctx.saved_tensors
        d_state = d_after.clone(memory_format=torch.contiguous_format)
        d_gates, d_highway = torch.empty_like(gates), torch.empty_like(cells[:, 1:])
        with torch.autocast(x.device.type, enabled=False):
            d_wide = d_outputs.to(cells.dtype).contiguous()
            ctx.ops.backward(gates, bias, x, cells, d_wide, d_state, d_gates, d_highway, keep)
            flat = d_gates.flatten(1, 2)  # (directions, time * rows, 3 * hidden)
            d_x = product(flat, weight.mT).view_as(x).add_(d_highway)
            d_weight = d_bias = None
            if any(ctx.needs_input_grad[2:4]):
                d_weight = weight_gradient(x.flatten(1, 2).mT, flat, ctx.weight_dtype)
                d_bias = flat[..., x.shape[-1] :].sum(1, dtype=ctx.weight_dtype)
        d_tap = d_outputs.clone() if ctx.needs_input_grad[6] else None
        return d_x, d_state, d_weight, d_bias, None, None, d_tap
