"""The recurrent products in int8, for inference on a CPU.

Weights have a scale for each output; what they are multiplied with has a scale for each row, drawn
from that row alone, so that a text's vectors do not depend on its neighbours. Sums are exact; the
pointwise part, states and outputs stay float32.
"""

import math

import torch
from torch import Tensor, nn

from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.recurrent.gru import GRULayer
from lightning_modules.nn.recurrent.lstm import LSTMLayer
from preprocess.errors import UserError

TINY = torch.finfo(torch.float32).tiny


class Int8Error(UserError):
    """int8 where it is not to be had: on a GPU, in training, or in a torch without it."""


def quantize_recurrent(network: BiLMNetwork) -> None:
    """Make the products of all recurrent layers in int8 from now on.

    Raises:
        Int8Error: the network is not on a CPU, or this torch has no int8 products for it.
    """
    if next(network.parameters()).device.type != "cpu":
        raise Int8Error("int8 products are made on a CPU only; move the model there first")
    layers = network.recurrent.layers
    for number, layer in enumerate(layers):
        if isinstance(layer, LSTMLayer):
            layers[number] = _LSTM(layer)
        elif isinstance(layer, GRULayer):
            layers[number] = _GRU(layer)


class _Products:
    """Products of (directions, rows, k) with one weight (directions, k, n)."""

    def __init__(self, weight: Tensor) -> None:
        if not torch.backends.mkldnn.is_available():
            raise Int8Error("this build of torch has no int8 products (no oneDNN)")
        self._weights = [_pack(one.detach().T) for one in weight]
        # Without VNNI, sums of two products overflow unless a bit is left free.
        self._levels = 127 if torch.cpu._is_vnni_supported() else 63

    def of(self, x: Tensor) -> Tensor:
        """(directions, rows, k) -> (directions, rows, n)."""
        largest = x.abs().amax(2, keepdim=True).clamp_(min=TINY)  # (directions, rows, 1)
        rounded = torch.mul(x, self._levels / largest).round_().to(torch.int8)
        found = [
            torch.ops.onednn.qlinear_pointwise(
                one, 1 / self._levels, 0, weight, scales, zeros, None, 1.0, 0, torch.float32,
                "none", [], "",
            )
            for one, (weight, scales, zeros) in zip(rounded, self._weights, strict=True)
        ]  # fmt: skip
        return torch.stack(found).mul_(largest)


def _pack(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight (n, k) as oneDNN wants it, with a scale and a zero point for each of its rows."""
    scales = weight.abs().amax(1).clamp(min=TINY) / 127  # (n,)
    rounded = (weight / scales[:, None]).round().to(torch.int8).contiguous()
    packed = torch.ops.onednn.qlinear_prepack(rounded, None)
    return packed, scales, torch.zeros(len(weight), dtype=torch.int32)


def _keep(resets: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """(time, directions, rows, 1), 0 where the state is set to zero."""
    return None if resets is None else resets.transpose(0, 1).logical_not().unsqueeze(-1).to(dtype)


def _no_gradient() -> None:
    if torch.is_grad_enabled():
        raise Int8Error(
            "a model in int8 has no gradient; use torch.inference_mode(), or load it anew"
        )


class _LSTM(nn.Module):
    """As `LSTMLayer`, without a gradient."""

    def __init__(self, layer: LSTMLayer) -> None:
        super().__init__()
        self.state_width, self.ops = layer.state_width, layer.ops
        self._clips = layer.config.cell_clip or math.inf, layer.config.projection_clip or math.inf
        self._input, self._hidden = _Products(layer.weight_input), _Products(layer.weight_hidden)
        projection = layer.weight_projection
        self._projection = None if projection is None else _Products(projection)
        self.register_buffer("bias", layer.used_bias().detach())

    def forward(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (directions, time, rows, width) -> h' of x's shape, and the state after the last."""
        _no_gradient()
        assert isinstance(self.bias, Tensor)
        directions, time, rows, width = x.shape
        keep = _keep(resets, x.dtype)
        gates = self._input.of(x.flatten(1, 2)).view(directions, time, rows, -1)
        hidden, cell = state[..., :width].contiguous(), state[..., width:].contiguous()
        after, squashed = torch.empty_like(cell), torch.empty_like(cell)
        outputs = torch.empty_like(x, memory_format=torch.contiguous_format)
        for step, gate in enumerate(gates.unbind(1)):
            if keep is not None:
                hidden, cell = hidden * keep[step], cell * keep[step]
            recurrent = self._hidden.of(hidden)
            self.ops.forward(gate, recurrent, self.bias, cell, after, squashed, self._clips[0])
            hidden = squashed if self._projection is None else self._projection.of(squashed)
            if self._clips[1] < math.inf:
                hidden = hidden.clamp(-self._clips[1], self._clips[1])
            outputs[:, step] = hidden
            cell, after = after, torch.empty_like(cell)
        return outputs, torch.cat([hidden, cell], -1)


class _GRU(nn.Module):
    """As `GRULayer`, without a gradient."""

    def __init__(self, layer: GRULayer) -> None:
        super().__init__()
        self.state_width, self.ops = layer.state_width, layer.ops
        self._input, self._hidden = _Products(layer.weight_input), _Products(layer.weight_hidden)
        self.register_buffer("bias", layer.bias.detach())
        self.register_buffer("bias_hidden", layer.bias_hidden.detach())

    def forward(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (directions, time, rows, hidden) -> h' of x's shape, and the state after the last."""
        _no_gradient()
        directions, time, rows, _ = x.shape
        keep = _keep(resets, x.dtype)
        gates = self._input.of(x.flatten(1, 2)).view(directions, time, rows, -1)
        hidden = state.contiguous()
        outputs = torch.empty_like(x, memory_format=torch.contiguous_format)
        for step, gate in enumerate(gates.unbind(1)):
            if keep is not None:
                hidden = hidden * keep[step]
            after, inner = torch.empty_like(hidden), torch.empty_like(hidden)
            recurrent = self._hidden.of(hidden)
            self.ops.forward(gate, recurrent, self.bias, self.bias_hidden, hidden, after, inner)
            hidden = outputs[:, step].copy_(after)
        return outputs, hidden.clone()
