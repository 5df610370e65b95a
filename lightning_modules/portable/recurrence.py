"""Recurrent layers of one direction in operations that torch.export and ONNX know.

`lightning_modules.nn.recurrent` loops over time in Python and writes into buffers, so an export of it
fixes the number of steps. Here a step is a function of tensors, and `torch._higher_order_ops.scan` runs
it over time. ONNX has the same loop as its operator Scan. `scan` has no public name (torch 2.13).

The arithmetic is that of the layers' docstrings. Each direction has matrices and a loop of its own, because
ONNX Runtime is slower with one batched product for both.

Shapes: width is a layer's input and output, hidden the width of a cell state.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.nn.recurrent.gru import GRULayer
from lightning_modules.nn.recurrent.hgrn2.layer import EPSILON, HGRN2Layer
from lightning_modules.nn.recurrent.lstm import LSTMLayer
from lightning_modules.nn.recurrent.sru import SRULayer
from lightning_modules.portable.errors import PortableError

State = tuple[Tensor, ...]
"""The state of a layer; each part is (batch, part's width)."""


class Steps(nn.Module, ABC):
    """One direction of a recurrent layer.

    Attributes:
        widths: width of each part of the state.
    """

    widths: tuple[int, ...]

    @abstractmethod
    def prepare(self, x: Tensor) -> Tensor:
        """Return what all steps read, (time, batch, n), given x (time, batch, width)."""

    @abstractmethod
    def step(self, state: State, prepared: Tensor) -> tuple[State, Tensor]:
        """Return the state and the output after a step, given the state before and (batch, n) of `prepare`.

        The output is (batch, width).
        """

    def forward(self, x: Tensor, state: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the output of each step and the state after the last one.

        Args:
            x: (time, batch, width).
            state: (batch, sum of ``widths``).
            present: False at steps that leave the state as it is, bool (time, batch, 1); None means
                that every step changes it.

        Returns:
            (time, batch, width), and a tensor of the shape of ``state``.
        """
        # scan refuses parts that are views of one tensor.
        before = tuple(part.clone() for part in state.split(self.widths, 1))
        if present is None:

            def advance(state: State, prepared: Tensor) -> tuple[State, Tensor]:
                after, output = self.step(state, prepared)
                return after, output.clone()

            after, outputs = torch._higher_order_ops.scan(advance, before, self.prepare(x), dim=0)
        else:

            def advance_present(state: State, read: tuple[Tensor, Tensor]) -> tuple[State, Tensor]:
                prepared, is_present = read
                stepped, output = self.step(state, prepared)
                both = zip(stepped, state, strict=True)
                return tuple(torch.where(is_present, new, old) for new, old in both), output.clone()

            read = self.prepare(x), present
            after, outputs = torch._higher_order_ops.scan(advance_present, before, read, dim=0)
        return outputs, torch.cat(after, 1)


class LSTMSteps(Steps):
    """One direction of an `LSTMLayer`; the state is h (width) and c (hidden)."""

    weight_input: Tensor
    weight_hidden: Tensor
    bias: Tensor
    weight_projection: Tensor | None

    def __init__(self, layer: LSTMLayer, direction: int) -> None:
        super().__init__()
        hidden, width = layer.config.hidden, layer.config.direction_width
        self.widths = width, hidden
        self._cell_clip, self._clip = layer.config.cell_clip, layer.config.projection_clip
        bias = layer.bias[direction].detach().clone()
        bias[hidden : 2 * hidden] += layer.config.forget_bias
        self.register_buffer("bias", bias)
        for name in ("weight_input", "weight_hidden", "weight_projection"):
            weight = getattr(layer, name)
            kept = None if weight is None else weight[direction].detach().clone()
            self.register_buffer(name, kept)

    def prepare(self, x: Tensor) -> Tensor:
        return x @ self.weight_input + self.bias

    def step(self, state: State, prepared: Tensor) -> tuple[State, Tensor]:
        h, c = state
        i, f, g, o = (prepared + h @ self.weight_hidden).chunk(4, 1)
        c = _clipped(f.sigmoid() * c + i.sigmoid() * g.tanh(), self._cell_clip)
        h = o.sigmoid() * c.tanh()
        if self.weight_projection is not None:
            h = h @ self.weight_projection
        h = _clipped(h, self._clip)
        return (h, c), h


class GRUSteps(Steps):
    """One direction of a `GRULayer`; the state is h (hidden)."""

    weight_input: Tensor
    weight_hidden: Tensor
    bias: Tensor
    bias_hidden: Tensor

    def __init__(self, layer: GRULayer, direction: int) -> None:
        super().__init__()
        self.widths = (layer.config.hidden,)
        for name in ("weight_input", "weight_hidden", "bias", "bias_hidden"):
            self.register_buffer(name, getattr(layer, name)[direction].detach().clone())

    def prepare(self, x: Tensor) -> Tensor:
        return x @ self.weight_input + self.bias

    def step(self, state: State, prepared: Tensor) -> tuple[State, Tensor]:
        (h,) = state
        r, z, n = prepared.chunk(3, 1)
        r_hidden, z_hidden, n_hidden = (h @ self.weight_hidden).chunk(3, 1)
        r, z = (r + r_hidden).sigmoid(), (z + z_hidden).sigmoid()
        n = (n + r * (n_hidden + self.bias_hidden)).tanh()
        h = (1 - z) * n + z * h
        return (h,), h


class SRUSteps(Steps):
    """One direction of an `SRULayer`; the state is c (hidden)."""

    weight_input: Tensor
    bias: Tensor

    def __init__(self, layer: SRULayer, direction: int) -> None:
        super().__init__()
        hidden = layer.config.hidden
        self.widths = (hidden,)
        self.register_buffer("weight_input", layer.weight_input[direction].detach().clone())
        # No bias for u.
        bias = F.pad(layer.bias[direction].detach(), (hidden, 0))
        self.register_buffer("bias", bias.clone())

    def prepare(self, x: Tensor) -> Tensor:
        return torch.cat([x @ self.weight_input + self.bias, math.sqrt(3) * x], -1)

    def step(self, state: State, prepared: Tensor) -> tuple[State, Tensor]:
        (c,) = state
        u, f, r, highway = prepared.chunk(4, 1)
        f, r = f.sigmoid(), r.sigmoid()
        c = f * c + (1 - f) * u
        return (c,), r * c + (1 - r) * highway


class HGRN2Steps(Steps):
    """One direction of an `HGRN2Layer`; the state is S, head by head (hidden * expansion)."""

    weight_input: Tensor
    bias: Tensor
    bound: Tensor
    weight_projection: Tensor

    def __init__(self, layer: HGRN2Layer, direction: int) -> None:
        super().__init__()
        self._expansion = layer.config.expansion
        self.widths = (layer.state_width,)
        bias, logit = layer.bias[direction].detach(), layer.bound_logit
        bound = torch.zeros_like(bias) if logit is None else logit[direction].detach().sigmoid()
        # The projection is linear in the output's scale, so both are one matrix.
        projection = layer.norm[direction, :, None] * layer.weight_projection[direction]
        kept = {
            "weight_input": layer.weight_input[direction].detach().clone(),
            "bias": bias.clone(),
            "bound": bound,
            "weight_projection": projection.detach(),
        }
        for name, value in kept.items():
            self.register_buffer(name, value)

    def prepare(self, x: Tensor) -> Tensor:
        q, f, v = (x @ self.weight_input).chunk(3, -1)
        f = self.bound + (1 - self.bound) * (f + self.bias).sigmoid()
        return torch.cat([F.silu(q), f, v], -1)

    def step(self, state: State, prepared: Tensor) -> tuple[State, Tensor]:
        (flat,) = state
        size = self._expansion
        q, f, v = (part.unflatten(1, (-1, size)) for part in prepared.chunk(3, 1))
        # (batch, heads, values, gates)
        matrices = flat.unflatten(1, (-1, size, size))
        matrices = matrices * f[:, :, None] + v[..., None] * (1 - f)[:, :, None]
        y = (matrices @ q[..., None]).flatten(1)  # (batch, hidden)
        scaled = y * (y.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
        return (matrices.flatten(1),), scaled @ self.weight_projection


def _clipped(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else x.clamp(-bound, bound)


STEPS: dict[type[nn.Module], Callable[..., Steps]] = {
    LSTMLayer: LSTMSteps,
    GRULayer: GRUSteps,
    HGRN2Layer: HGRN2Steps,
    SRULayer: SRUSteps,
}
"""The step of each recurrent layer that can be exported."""


def steps_of(layer: nn.Module, kind: str, direction: int) -> Steps:
    """Return one direction of a recurrent layer.

    Args:
        layer: the layer of the network.
        kind: its ``recurrent.kind``, for the message.
        direction: 0 or 1.

    Raises:
        PortableError: there is no step for this kind of layer.
    """
    if type(layer) not in STEPS:
        raise PortableError(
            f"a model with model.recurrent.kind={kind} cannot be exported to ONNX or with torch.export; "
            "only lstm, gru, hgrn2 and sru can"
        )
    return STEPS[type(layer)](layer, direction)
