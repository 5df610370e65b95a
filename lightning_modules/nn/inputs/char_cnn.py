"""ELMo's character CNN: word vectors from spelling (Kim et al. 2016; Peters et al. 2018).

bilm-tf convolves each token of a batch, padded to `max_characters`. Here each distinct word (type) of
a window is convolved once, in a bucket of types of similar length, and only the maximum passes a
gradient. The vectors are the same: all windows beyond a word's end see only padding, and one such
window is kept if `max_characters` leaves room for it.

In shapes, types is the number of types of a window, in all buckets, and filters the number of filters
of all convolutions.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.config import CharCNNInputConfig
from lightning_modules.nn.kernels.support import are_usable
from lightning_modules.nn.mode import is_training
from lightning_modules.nn.recurrent.matmul import Linear, times_transposed
from lightning_modules.nn.window import Types
from preprocess.tokenizers.spellings import CHARACTERS, PAD

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class CharCNN(nn.Module):
    """An input encoder that computes a word's vector from its characters (Peters et al. 2018).

        y_f = activation(max_s sum_i characters[word[s + i]] W_f[i] + b_f)
        y   = g relu(W_t y + b_t) + (1 - g) y,  g = sigmoid(W_g y + b_g)     for each highway layer
        x   = W_p y + b_p                      (only if the number of filters differs from the width)

    The word is padded to `max_characters`; s runs over the positions at which the filter fits.

    Initialisation as in bilm-tf: characters U(-1, 1); filters U(-0.05, 0.05), or
    N(0, 1 / (filter width * dim)) with tanh; highway N(0, 1 / filters) with gate bias -2;
    projection N(0, 1 / filters); all other biases 0.

    Args:
        config: sizes, activation and dropout.
        width: width of the vectors returned.
        characters: number of character ids.
        pad: id of the positions after the end of a word.

    Attributes:
        max_characters: number of characters that a word is truncated or padded to.
        width: width of the vectors returned.
    """

    def __init__(
        self, config: CharCNNInputConfig, width: int, characters: int = CHARACTERS, pad: int = PAD
    ) -> None:
        super().__init__()
        self.max_characters, self.width, self._pad = config.max_characters, width, pad
        self.characters = CharacterVectors(characters, config.dim)
        self.filters = nn.ParameterList(
            torch.empty(size * config.dim, number) for size, number in config.filters
        )
        filters = sum(number for _, number in config.filters)
        self.bias = nn.Parameter(torch.zeros(filters))
        self.activation = ACTIVATIONS[config.activation]
        self.highway = nn.ModuleList(Highway(filters) for _ in range(config.highway))
        self.projection = None if filters == width else Linear(filters, width)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.uniform_(self.characters.weight, -1, 1)
        for weight in self.filters:
            if config.activation == "relu":
                nn.init.uniform_(weight, -0.05, 0.05)
            else:
                nn.init.normal_(weight, std=1 / math.sqrt(len(weight)))
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=1 / math.sqrt(filters))
            nn.init.zeros_(self.projection.bias)

    def forward(self, inputs: Types, training: bool | None = None) -> Tensor:
        """Return the vector at each position.

        Args:
            inputs: spellings of the types, and the type at each position.
            training: whether to apply dropout; None means the module's mode.

        Returns:
            (directions, time, rows, width), in the dtype of the weights.
        """
        # F.embedding, not index_select, because its gradient is deterministic on a GPU too.
        x = F.embedding(inputs.positions, self.vectors(inputs.characters))
        return self.dropout(x) if is_training(self, training) else x

    def vectors(self, characters: tuple[Tensor, ...]) -> Tensor:
        """Return the vectors of types, (types, width), without dropout.

        Args:
            characters: buckets of types as in `Types.characters`.
        """
        x = self.features(characters)
        if self.projection is not None:
            x = self.projection(x)  # (types, width)
        return x.to(self.bias.dtype)  # bf16 under autocast before

    def features(self, characters: tuple[Tensor, ...]) -> Tensor:
        """Return the output of the last highway layer, (types, filters); arguments as in `vectors`.

        Its dtype is that of the weights, or that of the matmuls if fused kernels compute it.
        """
        table, filters = self.characters(), list(self.filters)
        options = (characters, self.max_characters, self._pad, table)
        dtype = _fused_dtype(table, filters)
        if dtype is None:
            x: Tensor = _Convolution.apply(*options, *filters) + self.bias
        else:
            from lightning_modules.nn.inputs.fused_char_cnn import fused_convolution

            x = fused_convolution(*options, self.bias, filters, dtype)
        x = self.activation(x)  # (types, filters)
        for layer in self.highway:
            x = layer(x, dtype is not None)
        return x


class CharacterVectors(nn.Embedding):
    """The vectors of all characters. They are read by a call, so that hooks such as pruning run."""

    def forward(self) -> Tensor:  # type: ignore[override]
        """Return the vectors, (characters, dim)."""
        return self.weight


class Highway(nn.Module):
    """A highway layer (Srivastava et al. 2015): g relu(W_t x + b_t) + (1 - g) x, g = sigmoid(W_g x + b_g).

    The gate g, which bilm-tf calls "carry", multiplies the transformed input. ``linear`` holds W_g,
    then W_t.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, 2 * width)
        nn.init.normal_(self.linear.weight, std=1 / math.sqrt(width))
        nn.init.zeros_(self.linear.bias)
        nn.init.constant_(self.linear.bias[:width], -2)

    def forward(self, x: Tensor, fused: bool = False) -> Tensor:
        """Map (types, width) to (types, width), in fused kernels or in PyTorch's operations."""
        both = self.linear(x)  # (types, 2 * width)
        if fused:
            from lightning_modules.nn.inputs.fused_char_cnn import fused_highway

            return fused_highway(both, x)
        gate, transform = both.to(x.dtype).chunk(2, 1)
        return torch.lerp(x, transform.relu(), gate.sigmoid())


def _fused_dtype(characters: Tensor, filters: list[Tensor]) -> torch.dtype | None:
    """Return the dtype of the matmuls if fused kernels compute the filters, else None."""
    if not are_usable(characters.device):
        return None
    from lightning_modules.nn.inputs.fused_char_cnn import fused_dtype

    return fused_dtype(characters, filters)


class _Convolution(torch.autograd.Function):
    """Convolution without bias and maximum over a word's windows: (types, filters), float32.

    Only the window of the maximum has a gradient. The backward pass looks up its characters and sums
    gradients by (character, filter), with hundreds of times fewer multiplications than two matmuls.
    On a GPU the order of these sums varies, so the gradient is not deterministic to the bit, unlike that
    of `fused_convolution`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        buckets: tuple[Tensor, ...],
        max_characters: int,
        pad: int,
        characters: Tensor,
        *filters: Tensor,
    ) -> Tensor:
        dim = characters.shape[1]
        sizes = [len(weight) // dim for weight in filters]
        longest = max(bucket.shape[1] for bucket in buckets)
        room = longest + max(sizes)  # so that a window of padding only fits after each word
        padded, maxima, windows = [], [], []
        for bucket in buckets:
            types, length = bucket.shape
            ids = F.pad(bucket, (0, room - length), value=pad)  # (types, room)
            x = F.embedding(ids, characters).view(types, room * dim)
            strongest = [
                # The last window sees only padding, unless the word fills max_characters.
                _strongest(x, weight, dim, min(length, max_characters - size) + 1)
                for size, weight in zip(sizes, filters, strict=True)
            ]
            padded.append(ids)
            maxima.append(torch.cat([value for value, _ in strongest], 1))
            windows.append(torch.cat([index for _, index in strongest], 1))
        ctx.save_for_backward(torch.cat(padded), torch.cat(windows), characters, *filters)
        return torch.cat(maxima).to(characters.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        ids, windows, characters, *filters = ctx.saved_tensors
        dim = characters.shape[1]
        d_characters = torch.zeros_like(characters)
        d_filters = []
        first = 0
        for weight in filters:
            number = weight.shape[1]
            d_maxima = gradient[:, first : first + number]  # (types, number)
            window = windows[:, first : first + number]
            first += number
            d_weight = torch.empty_like(weight)
            for offset in range(len(weight) // dim):
                rows = slice(offset * dim, (offset + 1) * dim)
                seen = ids.gather(1, window + offset)  # (types, number)
                by_character = weight.new_zeros(len(characters), number).scatter_add_(
                    0, seen, d_maxima
                )
                d_weight[rows] = characters.T @ by_character
                d_characters += by_character @ weight[rows].T
            d_filters.append(d_weight)
        return None, None, None, d_characters, *d_filters


def _strongest(x: Tensor, weight: Tensor, dim: int, windows: int) -> tuple[Tensor, Tensor]:
    """Return each filter's maximum over the first windows, and the index of its window.

    Args:
        x: vectors of the characters, (types, room * dim).
        weight: filters of one convolution, (size * dim, number).
        dim: width of a character.
        windows: number of windows.

    Returns:
        Both (types, number).
    """
    seen = x.unfold(1, len(weight), dim)[:, :windows]  # (types, windows, size * dim)
    y = times_transposed(seen.reshape(-1, len(weight)), weight.T).view(len(x), windows, 1, -1)
    # Channels last, because y.max(1), which also returns indices, is not vectorised and many times slower.
    value, index = F.max_pool2d(y.permute(0, 3, 1, 2), (windows, 1), return_indices=True)
    return value.flatten(1), index.flatten(1)
