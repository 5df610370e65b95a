"""Input encoders: what turns ids or spellings into the vectors of layer 0. All directions share them.

A further encoder is a config with a `kind`, a file here and a line of `build_input`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import EmbeddingInputConfig, InputConfig
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.nn.inputs.char_cnn import CharCNN


class TokenEmbedding(nn.Module):
    """A learned vector for each id, mapped to the stack's width where `dim` differs from it.

    In training `type_dropout` leaves out whole ids, drawn once a call for all places an id stands
    at, and scales the others by 1 / (1 - type_dropout) (Merity et al. 2018, section 4.3); `dropout`
    then falls on each place by itself.

    Initialised as in bilm-tf: vectors U(-initial, initial), map Glorot uniform with a bias of 0.
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

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (directions, time, rows), int64 -> vectors of width (directions, time, rows, width)."""
        x = self.embedding(ids)  # (directions, time, rows, dim)
        if self.training and self.type_dropout:
            weight = self.embedding.weight
            kept = F.dropout(weight.new_ones(len(weight), 1), self.type_dropout)
            x = x * F.embedding(ids, kept)
        if self.linear is not None:
            x = self.linear(x).to(
                x.dtype
            )  # (directions, time, rows, width), of bf16 under autocast
        dropped: Tensor = self.dropout(x)
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
    """The encoder that `config.kind` names.

    cutoffs, div, ranks: the clusters of the adaptive softmax, for the adaptive input.
    """
    if config.kind == "char_cnn":
        return CharCNN(config, width)
    if config.kind == "adaptive":
        return AdaptiveInput(config, vocabulary, width, cutoffs, div, ranks)
    return TokenEmbedding(config, vocabulary, width)
