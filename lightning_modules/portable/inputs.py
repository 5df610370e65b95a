"""Input encoders in operations that torch.export and ONNX know.

The character CNN of `lightning_modules.nn.inputs` is a custom autograd function over buckets of words.
Here it is a convolution over words that are padded to the longest one of the batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.nn.inputs.char_cnn import CharCNN, Highway
from lightning_modules.nn.inputs.word_char_cnn import WordCharCNN
from preprocess.tokenizers.dictionary_speller import PAD as DICTIONARY_PAD
from preprocess.tokenizers.dictionary_speller import WORD_BEGIN
from preprocess.tokenizers.spellings import PAD


class IdInput(nn.Module):
    """The vectors of ids: a token embedding, or the adaptive input.

    Args:
        network: the network, whose input reads ids.
    """

    def __init__(self, network: BiLMNetwork) -> None:
        super().__init__()
        self.encoder = network.input
        # A tied input has its weights in the output layer, which it does not register as a module.
        tied = isinstance(network.input, AdaptiveInput) and network.input.is_tied
        self.head = network.head if tied else None

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of ids, int64 (batch, time), as (batch, time, width)."""
        vectors: Tensor = self.encoder(ids, training=False)
        return vectors


class SpelledInput(nn.Module):
    """The vectors of words under a character CNN; see `CharCNN` for the arithmetic.

    Args:
        cnn: the character CNN.

    Attributes:
        pad: id of the positions after the end of a word.
    """

    limits: Tensor

    def __init__(self, cnn: CharCNN) -> None:
        super().__init__()
        self.pad = pad_of(cnn)
        self._has_numbers = isinstance(cnn, WordCharCNN)
        self.words = cnn.words if isinstance(cnn, WordCharCNN) else None
        self._first_number = cnn.characters.num_embeddings
        self._max_characters = cnn.max_characters
        self.characters = nn.Parameter(cnn.characters().detach().clone(), requires_grad=False)
        dim = self.characters.shape[1]
        self._sizes = [len(weight) // dim for weight in cnn.filters]
        self.filters = nn.ParameterList(
            # (number, dim, size), as a convolution reads it
            nn.Parameter(
                weight.detach().view(size, dim, -1).permute(2, 1, 0).contiguous(),
                requires_grad=False,
            )
            for size, weight in zip(self._sizes, cnn.filters, strict=True)
        )
        self.bias, self.activation = cnn.bias, cnn.activation
        self.highway, self.projection = cnn.highway, cnn.projection

    def forward(self, characters: Tensor) -> Tensor:
        """Return the vectors of words, (words, width).

        Args:
            characters: character ids of each word, int64 (words, columns), padded with ``pad``.
        """
        numbers = characters[:, 0]
        if self._has_numbers:
            is_first = torch.arange(characters.shape[1], device=characters.device) == 0
            characters = characters.masked_fill(is_first, WORD_BEGIN)
        x = self._features(characters)
        if self.words is not None:
            x = torch.cat([self.words((numbers - self._first_number).clamp(min=0)), x], 1)
        if self.projection is not None:
            x = F.linear(x, self.projection.weight, self.projection.bias)
        return x

    def _features(self, characters: Tensor) -> Tensor:
        """Return the output of the last highway layer, (words, filters)."""
        # So that a window of padding follows each word, as it does in a word padded to its full length.
        padded = F.pad(characters, (0, max(self._sizes)), value=self.pad)
        x = F.embedding(padded, self.characters).transpose(1, 2)  # (words, dim, columns)
        maxima = []
        for size, weight in zip(self._sizes, self.filters, strict=True):
            y = F.conv1d(x, weight)  # (words, number, windows)
            window = torch.arange(y.shape[2], device=y.device)
            outside = window > self._max_characters - size
            maxima.append(y.masked_fill(outside, -torch.inf).amax(2))
        x = self.activation(torch.cat(maxima, 1) + self.bias)  # (words, filters)
        for layer in self.highway:
            assert isinstance(layer, Highway)
            linear = layer.linear
            gate, transform = F.linear(x, linear.weight, linear.bias).chunk(2, 1)
            x = torch.lerp(x, transform.relu(), gate.sigmoid())
        return x


def pad_of(cnn: CharCNN) -> int:
    """Return the id of the positions after the end of a word."""
    return DICTIONARY_PAD if isinstance(cnn, WordCharCNN) else PAD
