"""Neural heads: a learned mix of the layers, an encoder of the text, and a linear output layer.

Legend of shapes: n is the number of texts, k the number of outputs: one for each label, or 1 for a
number. depth, units and dim as in `lightning_modules.tasks.features`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_modules.nn.scalar_mix import ScalarMix
from lightning_modules.tasks.classification.encoders import ConvolutionEncoder, RecurrentEncoder
from lightning_modules.tasks.classification.inputs import Inputs
from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.epoch_batches import EpochBatches
from lightning_modules.tasks.features import Padded


class TextHead(nn.Module):
    """Maps the vectors of a text, or of a pair of texts, to one output for each label.

    A pair is read by the same encoder; its features are u, v, |u - v| and u * v (Conneau et al. 2017,
    section 3.1). The outputs of a number are in its own unit: the linear layer predicts the
    standardised number.

    Args:
        config: settings of the head.
        depth: layers of a text.
        dim: size of a vector in one layer.
        outputs: number of outputs.
        pairs: whether pairs of texts are read.

    Attributes:
        mix: the learned weights of the layers.
        center, scale: mean and standard deviation of a number, buffers of shape (); 0 and 1 otherwise.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self, config: NetworkConfig, depth: int, dim: int, outputs: int, pairs: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.mix = ScalarMix(depth, "text" if config.layer_norm else None)
        kind = ConvolutionEncoder if config.kind == "cnn" else RecurrentEncoder
        self.encoder = kind(config, dim)
        self.output = nn.Linear(self.encoder.width * (4 if pairs else 1), outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.pairs = pairs
        self.register_buffer("center", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, texts: Sequence[Padded]) -> Tensor:
        """Return the outputs, (batch, k) float32.

        Args:
            texts: the vectors of a batch of texts, and of the second texts if these are pairs.
        """
        first, *others = [self._encode(one) for one in texts]
        if others:
            second = others[0]
            first = torch.cat([first, second, (first - second).abs(), first * second], 1)
        outputs: Tensor = self.output(self.dropout(first))
        return self.center + self.scale * outputs

    def _encode(self, text: Padded) -> Tensor:
        mixed = self.mix(text.layers, text.lengths)  # (batch, units, dim)
        units = torch.arange(mixed.shape[1], device=mixed.device)
        mixed = mixed * (units < text.lengths[:, None])[:, :, None]
        encoded: Tensor = self.encoder(self.dropout(mixed), text.lengths)
        return encoded

    @property
    def layer_weights(self) -> tuple[float, ...]:
        """The learned weights of the layers, which sum to 1."""
        return tuple(self.mix.weights.detach().double().softmax(0).tolist())


def predict(
    head: TextHead, inputs: Inputs, tuned: nn.Module | None = None, batch_texts: int = 64
) -> npt.NDArray[np.float32]:
    """Return the outputs of texts, (n, k) float32; without dropout, whatever the mode of the head.

    Args:
        head: the head.
        inputs: the texts.
        tuned: the language model that was trained with the head; None if ``inputs`` are vectors.
        batch_texts: texts of a batch. With 1, a result does not depend on the other texts, to the bit;
            otherwise it may differ by the rounding of sums.
    """
    device = next(head.parameters()).device
    outputs = np.zeros((len(inputs.lengths), head.output.out_features), np.float32)
    with evaluating(head), evaluating(tuned or head), torch.inference_mode():
        for rows in EpochBatches(inputs.lengths, batch_texts, seed=None):
            texts = [one.to(device) for one in inputs.batch(rows)]
            vectors = texts if tuned is None else [tuned(one) for one in texts]
            outputs[rows] = head(vectors).float().cpu().numpy()
    return outputs


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode in the block."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
