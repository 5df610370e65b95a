"""Recurrent layers of one direction in operations that torch.export and ONNX know.

`lightning_modules.nn.recurrent` loops over time in Python and writes into buffers, so an export of it
fixes the number of steps. Here a step is a function of tensors, and `torch._higher_order_ops.scan` runs
it over time. ONNX has the same loop as its operator Scan. `scan` has no public name (torch 2.13).

The arithmetic is that of the layers' docstrings. Each direction has matrices and a loop of its own, because
ONNX Runtime is slower with one batched product for both.

Shapes: width is a layer's input and output, hidden the width of a cell state.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_modules.nn.recurrent.gru import GRULayer
from lightning_modules.nn.recurrent.lstm import LSTMLayer
from lightning_modules.portable.errors import PortableError

State = tuple[Tensor, ...]
"""The state of a layer; each part is (batch, part's width), and the first part is the output."""


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
    def step(self, state: State, prepared: Tensor) -> State:
        """Return the state after a step, given that before it and (batch, n) of `prepare`."""

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
                after = self.step(state, prepared)
                return after, after[0].clone()

            after, outputs = torch._higher_order_ops.scan(advance, before, self.prepare(x), dim=0)
        else:

            def advance_present(state: State, read: tuple[Tensor, Tensor]) -> tuple[State, Tensor]:
                prepared, is_present = read
                stepped = zip(self.step(state, prepared), state, strict=True)
                after = tuple(torch.where(is_present, new, old) for new, old in stepped)
                return after, after[0].clone()

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

    def step(self, state: State, prepared: Tensor) -> State:
        h, c = state
        i, f, g, o = (prepared + h @ self.weight_hidden).chunk(4, 1)
        c = _clipped(f.sigmoid() * c + i.sigmoid() * g.tanh(), self._cell_clip)
        h = o.sigmoid() * c.tanh()
        if self.weight_projection is not None:
            h = h @ self.weight_projection
        return _clipped(h, self._clip), c


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

    def step(self, state: State, prepared: Tensor) -> State:
        (h,) = state
        r, z, n = prepared.chunk(3, 1)
        r_hidden, z_hidden, n_hidden = (h @ self.weight_hidden).chunk(3, 1)
        r, z = (r + r_hidden).sigmoid(), (z + z_hidden).sigmoid()
        n = (n + r * (n_hidden + self.bias_hidden)).tanh()
        return ((1 - z) * n + z * h,)


def _clipped(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else x.clamp(-bound, bound)


STEPS: dict[type[nn.Module], Callable[..., Steps]] = {LSTMLayer: LSTMSteps, GRULayer: GRUSteps}
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
            "only lstm and gru can"
        )
    return STEPS[type(layer)](layer, direction)
