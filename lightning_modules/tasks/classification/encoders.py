"""Encoders that map the vectors of a text to one vector.

Each result depends on its text alone, not on the padding or on the other texts of the batch. A text
without units is read as a text whose vectors are zeros.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_modules.tasks.classification.network_config import NetworkConfig


class RecurrentEncoder(nn.Module):
    """A bidirectional LSTM or GRU, and the mean and the maximum of its outputs at all units.

    Args:
        config: its kind and width.
        dim: size of the vectors.

    Attributes:
        width: size of the result.
    """

    def __init__(self, config: NetworkConfig, dim: int) -> None:
        super().__init__()
        kind = nn.LSTM if config.kind == "lstm" else nn.GRU
        self.recurrent = kind(dim, config.hidden, batch_first=True, bidirectional=True)
        self.width = 4 * config.hidden

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return (batch, width).

        Args:
            vectors: (batch, units, dim), 0 past the end of a text.
            lengths: number of units of each text, (batch,) int64.
        """
        if not vectors.shape[1]:
            vectors = vectors.new_zeros(len(vectors), 1, vectors.shape[2])
        lengths = lengths.clamp(min=1)
        packed = pack_padded_sequence(
            vectors, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        # (batch, units, 2 hidden), 0 past the end of a text
        read, _ = pad_packed_sequence(
            self.recurrent(packed)[0], batch_first=True, total_length=vectors.shape[1]
        )
        outside = (torch.arange(read.shape[1], device=read.device) >= lengths[:, None])[:, :, None]
        mean = read.sum(1) / lengths[:, None]
        return torch.cat([mean, read.masked_fill(outside, -torch.inf).amax(1)], 1)


class ConvolutionEncoder(nn.Module):
    """Convolutions of several widths, ReLU, and the maximum over the units (Kim 2014).

    A text is padded with width - 1 zeros at both ends, as in Kim's code, so that each unit is seen by
    each position of a filter.

    Args:
        config: number of filters, and their widths.
        dim: size of the vectors.

    Attributes:
        width: size of the result.
    """

    def __init__(self, config: NetworkConfig, dim: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(dim, config.filters, width, padding=width - 1) for width in config.widths
        )
        self.width = config.filters * len(config.widths)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return (batch, width); arguments as in `RecurrentEncoder.forward`."""
        if not vectors.shape[1]:
            vectors = vectors.new_zeros(len(vectors), 1, vectors.shape[2])
        lengths, x = lengths.clamp(min=1), vectors.transpose(1, 2)
        found = []
        for convolution in self.convolutions:
            y = convolution(x)  # (batch, filters, units + width - 1)
            windows = lengths + y.shape[2] - x.shape[2]  # that touch the text, (batch,)
            outside = torch.arange(y.shape[2], device=y.device) >= windows[:, None]
            found.append(y.masked_fill(outside[:, None], -torch.inf).amax(2).relu())
        return torch.cat(found, 1)
