"""Input encoders: what turns ids into the vectors of layer 0. Both directions share them.

A further encoder is a config with a `kind`, a class here and an entry of INPUTS.
"""

from torch import Tensor, nn

from lightning_modules.config import EmbeddingInputConfig, InputConfig


class TokenEmbedding(nn.Module):
    """A learned vector for each id, mapped to the stack's width where `dim` differs from it.

    Initialised as in bilm-tf: vectors U(-1, 1), map Glorot uniform with a bias of 0.
    """

    def __init__(self, config: EmbeddingInputConfig, vocabulary: int, width: int) -> None:
        super().__init__()
        dim = config.dim or width
        self.embedding = nn.Embedding(vocabulary, dim)
        self.linear = None if dim == width else nn.Linear(dim, width)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.uniform_(self.embedding.weight, -1, 1)
        if self.linear is not None:
            nn.init.xavier_uniform_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (2, time, rows), int64 -> vectors (2, time, rows, width), float32."""
        x = self.embedding(ids)  # (2, time, rows, dim)
        if self.linear is not None:
            x = self.linear(x)  # (2, time, rows, width)
        dropped: Tensor = self.dropout(x)
        return dropped


INPUTS = {"embedding": TokenEmbedding}


def build_input(config: InputConfig, vocabulary: int, width: int) -> TokenEmbedding:
    """The encoder that `config.kind` names."""
    return INPUTS[config.kind](config, vocabulary, width)
