"""The weighted sum of a model's layers, with weights that can be learned."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

EPSILON = 1e-12


class ScalarMix(nn.Module):
    """Gamma * sum_l softmax(w)_l h_l (Peters et al. 2018, equation 1).

    layer_norm "text" first normalises each layer of each text by the mean and variance over the
    text's own tokens and dimensions; "batch" by those over all tokens of the batch, as AllenNLP
    does: there a text's vectors depend on what it is batched with.

    Attributes: weights (depth,), before the softmax, 0 at first; gamma (), 1 at first.
    """

    def __init__(
        self,
        depth: int,
        layer_norm: Literal["text", "batch"] | None = None,
        weights: Sequence[float] | None = None,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        first = torch.zeros(depth) if weights is None else torch.tensor(weights, dtype=torch.float)
        if first.shape != (depth,):
            raise ValueError(f"{len(first)} weights for {depth} layers")
        self.layer_norm = layer_norm
        self.weights = nn.Parameter(first)
        self.gamma = nn.Parameter(torch.tensor(gamma))

    def forward(self, layers: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Layers (depth, batch, time, dim) -> (batch, time, dim).

        Args:
            layers: of a model, as `BiLM.forward` gives them.
            lengths: (batch,) tokens of each text, for the layer norm; none: all of them.
        """
        if self.layer_norm:
            layers = self._normalized(layers, lengths)
        return mix_layers(layers, self.weights, self.gamma)

    def _normalized(self, layers: Tensor, lengths: Tensor | None) -> Tensor:
        _, batch, time, dim = layers.shape
        mask = layers.new_ones(batch, time, 1)
        if lengths is not None:
            place = torch.arange(time, device=layers.device)
            mask = (place < lengths[:, None]).unsqueeze(2).to(layers.dtype)  # (batch, time, 1)
        over = (2, 3) if self.layer_norm == "text" else (1, 2, 3)
        count = (mask.expand(-1, -1, dim)[None].sum(over, keepdim=True)).clamp(min=1)
        mean = (layers * mask).sum(over, keepdim=True) / count
        variance = ((layers - mean) * mask).square().sum(over, keepdim=True) / count
        return (layers - mean) / (variance + EPSILON).sqrt()


def mix_layers(layers: Tensor, weights: Tensor, gamma: Tensor | float) -> Tensor:
    """Return gamma * sum_l softmax(weights)_l layers_l (Peters et al. 2018, equation 1).

    Args:
        layers: floating point, (depth, ...).
        weights: (depth,), before the softmax.
        gamma: factor of the sum, a number or of shape ().

    Returns:
        A tensor of shape (...) with the dtype of ``layers``.
    """
    shares = (gamma * weights.softmax(0)).to(layers.dtype)
    return torch.einsum("l,l...->...", shares, layers)
