"""The token embedding, and the choice of an input encoder by its config.

An input encoder computes the vectors of layer 0 from ids or spellings; all directions share it. To
add one, write a config with a `kind`, a module in this package and a line in `build_input`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import EmbeddingInputConfig, InputConfig
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_char_cnn import WordCharCNN
from lightning_modules.nn.mode import is_training


class TokenEmbedding(nn.Module):
    """A learned vector per id, with a linear map to ``width`` if ``config.dim`` differs from it.

    In training, `type_dropout` zeroes whole ids, the same ones at all positions of a call, and scales
    the others by 1 / (1 - type_dropout) (Merity et al. 2018, section 4.3). `dropout` is then applied
    to each position independently.

    Initialisation as in bilm-tf: vectors U(-initial, initial); map Glorot uniform with bias 0.

    Args:
        config: width, dropouts and bound of the initial vectors.
        vocabulary: number of ids.
        width: width of the vectors returned.
    """

    def __init__(self, config: EmbeddingInputConfig, vocabulary: int, width: int) -> None:
        super().__init__()
        dim = config.dim or width
        self.type_dropout = config.type_dropout
        self.embedding = nn.Embedding(vocabulary, dim)
        self.linear = None if dim == width else nn.Linear(dim, width)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.uniform_(self.embedding.weight, -config.initial, config.initial)
        if self.linear is not None:
            nn.init.xavier_uniform_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, ids: Tensor, training: bool | None = None) -> Tensor:
        """Return the vectors of ids.

        Args:
            ids: int64 (directions, time, rows).
            training: whether to apply dropout; None means the module's mode.

        Returns:
            (directions, time, rows, width).
        """
        training = is_training(self, training)
        x = self.embedding(ids)  # (directions, time, rows, dim)
        if training and self.type_dropout:
            weight = self.embedding.weight
            kept = F.dropout(weight.new_ones(len(weight), 1), self.type_dropout)
            x = x * F.embedding(ids, kept)
        if self.linear is not None:
            # (directions, time, rows, width); the map gives bf16 under autocast.
            x = self.linear(x).to(x.dtype)
        dropped: Tensor = self.dropout(x) if training else x
        return dropped


InputEncoder = TokenEmbedding | AdaptiveInput | CharCNN


def build_input(
    config: InputConfig,
    vocabulary: int,
    width: int,
    cutoffs: tuple[int, ...] = (),
    div: float = 4.0,
    ranks: Tensor | None = None,
) -> InputEncoder:
    """Build the encoder of a config.

    Args:
        config: the encoder.
        vocabulary: number of ids.
        width: width of the vectors that it returns.
        cutoffs: for the adaptive input, as in `AdaptiveInput`; ignored by the others.
        div: likewise.
        ranks: likewise.
    """
    if config.kind == "word_char_cnn":
        return WordCharCNN(config, vocabulary, width)
    if config.kind == "char_cnn":
        return CharCNN(config, width)
    if config.kind == "adaptive":
        return AdaptiveInput(config, vocabulary, width, cutoffs, div, ranks)
    return TokenEmbedding(config, vocabulary, width)
