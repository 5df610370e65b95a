"""The HGRN2 layer for several directions, with a hand-written gradient.

No gate reads the state, so one matmul computes the gates of all steps, and the recurrence is computed in
chunks, see `lightning_modules.nn.recurrent.hgrn2.scan`.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.nn.recurrent.cell import Cell, Mode, compile_cell
from lightning_modules.nn.recurrent.graphs import Graphs
from lightning_modules.nn.recurrent.hgrn2 import matrix_cell
from lightning_modules.nn.recurrent.matmul import product, weight_gradient
from lightning_modules.recurrent_config import HGRN2Config

EPSILON = 1e-5
"""Added to the mean square of y before the root."""


class HGRN2Layer(nn.Module):
    """One gated linear recurrence with matrix states per direction (Qin et al. 2024, arXiv:2404.07904).

        q, f, v = x W_input                                             (f with a bias)
        f = bound + (1 - bound) sigmoid(f)
        S' = S diag(f) + v (outer) (1 - f)                              (for each head)
        y = S' silu(q)                                                  (for each head)
        h' = (y / sqrt(mean(y^2) + 1e-5) * norm) W_projection

    ``hidden`` gates and values are divided into heads of ``expansion``, so that a head's S has
    expansion x expansion numbers. The mean is over a token's ``hidden`` values. The state is S,
    (directions, rows, hidden * expansion).

    ``bound`` is the lower bound of the forget gates, which upper layers have, so that they remember
    longer. The paper couples the bounds of all layers. Here each layer has its own, so that a layer does
    not depend on those above it: bound = sigmoid(bound_logit).

    Initialisation: weights are Glorot uniform over a direction's matrix of each of q, f and v, and over
    the projection; biases are 0, ``norm`` is 1.

    Args:
        config: the layer.
        directions: 1 or 2.
        bound: initial lower bound; 0 means that there is none.
    """

    def __init__(self, config: HGRN2Config, directions: int, bound: float = 0.0) -> None:
        super().__init__()
        hidden, width = config.hidden, config.direction_width
        self.config, self.ops = config, matrix_cell.EAGER
        self.state_width = hidden * config.expansion
        self.graphs: Graphs | None = None
        self.weight_input = nn.Parameter(torch.empty(directions, width, 3 * hidden))
        self.bias = nn.Parameter(torch.zeros(directions, hidden))
        self.norm = nn.Parameter(torch.ones(directions, hidden))
        self.weight_projection = nn.Parameter(torch.empty(directions, hidden, width))
        self.bound_logit = (
            nn.Parameter(torch.full((directions, hidden), math.log(bound / (1 - bound))))
            if bound
            else None
        )
        limit = math.sqrt(6 / (width + hidden))
        nn.init.uniform_(self.weight_input, -limit, limit)
        nn.init.uniform_(self.weight_projection, -limit, limit)

    def compile_cell(self, mode: Mode, rows: int) -> str:
        """Compile the recurrence for the weights' device; return a sentence for the user."""
        self.ops, sentence = compile_cell(
            mode, matrix_cell, self.bias.device, rows, self.config.hidden, math.inf
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
            x: (directions, time, rows, width).
            state: (directions, rows, hidden * expansion).
            resets: True where the state is set to zero before the input is read, bool (directions,
                time, rows); None means nowhere.
            training: not read; the layer has no dropout of its own.
            tap: its gradient is the gradient of h', which no later step reads; it is not read.
        """
        device, dtype = x.device.type, self.bias.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        x = x.to(dtype)
        keep = None
        if resets is not None:
            # 0 where the state is reset, else 1; (directions, time, rows, 1)
            keep = resets.logical_not().unsqueeze(-1).to(state.dtype)
        logit = self.bound_logit
        bound = torch.zeros_like(self.bias) if logit is None else logit.sigmoid()
        weights = _Weights(self.weight_input, self.bias, bound, self.norm, self.weight_projection)
        if torch.is_grad_enabled():
            apply = _Recurrence.apply if self.graphs is None else self.graphs.of(_Recurrence)
            outputs, after = apply(x, state, *weights, keep, self.config.expansion, self.ops, tap)
            return outputs, after
        with torch.autocast(device, enabled=False):
            expansion = self.config.expansion
            run = _run(x, state, weights.cast(dtype), keep, expansion, self.ops)
            return run.outputs.to(self.bias.dtype), run.after


class _Weights(NamedTuple):
    """Weights of a layer."""

    input: Tensor  # (directions, width, 3 * hidden)
    bias: Tensor  # (directions, hidden)
    bound: Tensor  # (directions, hidden)
    norm: Tensor  # (directions, hidden)
    projection: Tensor  # (directions, hidden, width)

    def cast(self, dtype: torch.dtype) -> "_Weights":
        """Return the matrices in the matmuls' dtype, and the vectors in that of the state."""
        wide = torch.promote_types(dtype, torch.float32)
        bias, bound, norm = (vector.detach().to(wide) for vector in self[1:4])
        return _Weights(self.input.to(dtype), bias, bound, norm, self.projection.to(dtype))


class _Run(NamedTuple):
    """Values of all steps."""

    outputs: Tensor  # h' in the matmuls' dtype, (directions, time, rows, width)
    after: Tensor  # state after the last step, (directions, rows, hidden * expansion)
    gates: Tensor  # x W_input, (directions, time, rows, 3 * hidden)
    y: Tensor  # (directions, time, rows, hidden)


def _run(
    x: Tensor, state: Tensor, weights: _Weights, keep: Tensor | None, expansion: int, ops: Cell
) -> _Run:
    directions, time, rows, width = x.shape
    gates = product(x.flatten(1, 2), weights.input).view(directions, time, rows, -1)
    y = weights.norm.new_empty(directions, time, rows, gates.shape[-1] // 3)
    after = state.to(y.dtype, copy=True, memory_format=torch.contiguous_format)
    ops.forward(gates, weights.bias, weights.bound, _matrices(after, expansion), y, keep)
    scaled = (y * _inverse_rms(y) * weights.norm[:, None, None]).to(x.dtype)
    outputs = product(scaled.flatten(1, 2), weights.projection)
    return _Run(outputs.view(directions, time, rows, width), after, gates, y)


def _matrices(state: Tensor, expansion: int) -> Tensor:
    """View a state as (directions, rows, heads, expansion, expansion)."""
    return state.view(*state.shape[:2], -1, expansion, expansion)


def _inverse_rms(y: Tensor) -> Tensor:
    return (y.square().mean(-1, keepdim=True) + EPSILON).rsqrt()


class _Recurrence(torch.autograd.Function):
    """All steps of a layer, with the gradient; casts the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        state: Tensor,
        weight_input: Tensor,
        bias: Tensor,
        bound: Tensor,
        norm: Tensor,
        weight_projection: Tensor,
        keep: Tensor | None,
        expansion: int,
        ops: Cell,
        tap: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.expansion, ctx.ops, ctx.weight_dtype = expansion, ops, weight_input.dtype
        weights = _Weights(weight_input, bias, bound, norm, weight_projection).cast(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            run = _run(x, state, weights, keep, expansion, ops)
        ctx.save_for_backward(x, state, *weights, keep, run.gates, run.y)
        return run.outputs.to(ctx.weight_dtype), run.after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(d_outputs.device.type, enabled=False):
            gradients = _backward(ctx, d_outputs, d_after)
        d_tap = d_outputs.clone() if ctx.needs_input_grad[10] else None
        return (*gradients, None, None, None, d_tap)


def _backward(ctx: Any, d_outputs: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, the state and the five weights."""
    x, state, *given, keep, gates, y = ctx.saved_tensors
    weights, dtype = _Weights(*given), ctx.weight_dtype
    d_flat = d_outputs.to(x.dtype).flatten(1, 2)  # (directions, time * rows, width)
    inverse = _inverse_rms(y)
    normed = y * inverse  # (directions, time, rows, hidden)
    norm = weights.norm[:, None, None]
    d_scaled = product(d_flat, weights.projection.mT).view_as(y).to(y.dtype)
    d_normed = d_scaled * norm
    d_y = inverse * (d_normed - normed * (d_normed * normed).mean(-1, keepdim=True))
    d_state = d_after.clone(memory_format=torch.contiguous_format)
    d_gates, d_bound = torch.empty_like(gates), torch.empty_like(weights.bound)
    ctx.ops.backward(
        gates, weights.bias, weights.bound,
        _matrices(state.to(y.dtype).contiguous(), ctx.expansion), d_y,
        _matrices(d_state, ctx.expansion), d_gates, d_bound, keep,
    )  # fmt: skip
    d_all = d_gates.flatten(1, 2)  # (directions, time * rows, 3 * hidden)
    d_x = product(d_all, weights.input.mT).view_as(x)
    if not any(ctx.needs_input_grad[2:7]):
        return d_x, d_state, None, None, None, None, None
    hidden = y.shape[-1]
    scaled = (normed * norm).to(x.dtype).flatten(1, 2)
    return (
        d_x,
        d_state,
        weight_gradient(x.flatten(1, 2).mT, d_all, dtype),
        d_all[..., hidden : 2 * hidden].sum(1, dtype=dtype),
        d_bound.to(dtype),
        (d_scaled * normed).sum((1, 2)).to(dtype),
        weight_gradient(scaled.mT, d_flat, dtype),
    )
