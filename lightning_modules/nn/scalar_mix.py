"""The weighted sum of a model's layers, with trainable weights."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

EPSILON = 1e-12


class ScalarMix(nn.Module):
    """A trainable weighted sum: gamma * sum_l softmax(weights)_l h_l (Peters et al. 2018, equation 1).

    Args:
        depth: number of layers, input vectors included.
        layer_norm: "text" first normalises each layer of a text by the mean and variance over the
            text's tokens and dimensions. "batch" uses those over all tokens of the batch, as
            AllenNLP does, so that a text's vectors depend on the other texts of its batch. None does
            not normalise.
        weights: initial weights before the softmax; None means zeros.
        gamma: initial factor.

    Raises:
        ValueError: the number of weights is not ``depth``.

    Attributes:
        weights: parameter (depth,), before the softmax.
        gamma: parameter ().
    """

    def __init__(
        self,
        depth: int,
        layer_norm: Literal["text", "batch"] | None = None,
        weights: Sequence[float] | None = None,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        initial = (
            torch.zeros(depth) if weights is None else torch.tensor(weights, dtype=torch.float)
        )
        if initial.shape != (depth,):
            raise ValueError(f"{len(initial)} weights for {depth} layers")
        self.layer_norm = layer_norm
        self.weights = nn.Parameter(initial)
        self.gamma = nn.Parameter(torch.tensor(gamma))

    def forward(self, layers: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the weighted sum, (batch, time, dim).

        Args:
            layers: (depth, batch, time, dim), as `BiLM.forward` returns them.
            lengths: number of tokens of each text, (batch,), for the layer norm; None means that
                all positions are tokens.
        """
        if self.layer_norm:
            layers = normalize_layers(layers, lengths, self.layer_norm)
        return mix_layers(layers, self.weights, self.gamma)


def mix_layers(layers: Tensor, weights: Tensor, gamma: Tensor | float) -> Tensor:
    """Return gamma * sum_l softmax(weights)_l layers_l (Peters et al. 2018, equation 1).

    Args:
        layers: floating point, (depth, ...).
        weights: (depth,), before the softmax.
        gamma: factor of the sum, a number or of shape ().

    Returns:
        A tensor of shape (...) with the dtype of ``layers``. The arithmetic is at least float32.
    """
    wide = torch.promote_types(layers.dtype, torch.float32)
    shares = gamma * weights.softmax(0, torch.promote_types(weights.dtype, torch.float32))
    return torch.einsum("l,l...->...", shares.to(wide), layers.to(wide)).to(layers.dtype)


def normalize_layers(
    layers: Tensor, lengths: Tensor | None, over: Literal["text", "batch"] = "text"
) -> Tensor:
    """Normalise each layer by its mean and variance over tokens and dimensions.

    Args:
        layers: (depth, batch, time, dim).
        lengths: number of tokens of each text, (batch,); None means that all positions are tokens.
        over: the tokens of each "text", or those of the "batch".

    Returns:
        A tensor of the shape and the dtype of ``layers``. The arithmetic is at least float32, because
        sums over a text exceed the range of float16.
    """
    dtype = layers.dtype
    layers = layers.to(torch.promote_types(dtype, torch.float32))
    _, batch, time, dim = layers.shape
    mask = layers.new_ones(batch, time, 1)
    if lengths is not None:
        positions = torch.arange(time, device=layers.device)
        mask = (positions < lengths[:, None]).unsqueeze(2).to(layers.dtype)  # (batch, time, 1)
    axes = (2, 3) if over == "text" else (1, 2, 3)
    count = (mask.expand(-1, -1, dim)[None].sum(axes, keepdim=True)).clamp(min=1)
    mean = (layers * mask).sum(axes, keepdim=True) / count
    variance = ((layers - mean) * mask).square().sum(axes, keepdim=True) / count
    return ((layers - mean) / (variance + EPSILON).sqrt()).to(dtype)
