"""Words by their spelling: ELMo's convolutions over characters (Kim et al. 2016; Peters et al. 2018).

bilm-tf convolves every token of a batch, padded to `max_characters`. Here a word is convolved once
however often it occurs, in a bucket of words of about its length, and the gradient follows the
maximum alone. The vectors are the same: every window beyond a word's end sees nothing but padding,
and one such window stays wherever `max_characters` leaves room for it.

Legend: types = the different words of a window, over all buckets; filters = of all widths together.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.config import CharCNNInputConfig
from lightning_modules.nn.recurrent.matmul import linear, times_transposed
from lightning_modules.nn.window import Types
from preprocess.tokenizers.spellings import CHARACTERS, PAD

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class CharCNN(nn.Module):
    """The vector of a word from the characters it is written with (Peters et al. 2018, section 3.1).

        y_f = activation(max_s sum_i characters[word[s + i]] W_f[i] + b_f)
        y   = g relu(W_t y + b_t) + (1 - g) y,  g = sigmoid(W_g y + b_g)     for each highway layer
        x   = W_p y + b_p                      (where the number of filters is not the stack's width)

    s runs over all positions of a word padded to `max_characters` at which the whole filter fits.

    Initialised as in bilm-tf: characters U(-1, 1); filters U(-0.05, 0.05), with tanh
    N(0, 1 / (width dim)); highway N(0, 1 / filters), the gate's bias -2; projection
    N(0, 1 / filters); all other biases 0.

    Attributes: max_characters, positions of a word; width, dimensions of its vector.
    """

    def __init__(self, config: CharCNNInputConfig, width: int) -> None:
        super().__init__()
        self.max_characters, self.width = config.max_characters, width
        self.characters = nn.Embedding(CHARACTERS, config.dim)
        self.filters = nn.ParameterList(
            torch.empty(size * config.dim, number) for size, number in config.filters
        )
        filters = sum(number for _, number in config.filters)
        self.bias = nn.Parameter(torch.zeros(filters))
        self.activation = ACTIVATIONS[config.activation]
        self.highway = nn.ModuleList(Highway(filters) for _ in range(config.highway))
        self.projection = None if filters == width else nn.Linear(filters, width)
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

    def forward(self, inputs: Types) -> Tensor:
        """Types -> the vector of every place, (directions, time, rows, width), float32."""
        # F.embedding, not index_select: its gradient is summed in one order on a GPU too.
        x = F.embedding(inputs.places, self.vectors(inputs.characters))
        dropped: Tensor = self.dropout(x)
        return dropped

    def vectors(self, characters: tuple[Tensor, ...]) -> Tensor:
        """Buckets of words, int64 (types of it, length of it), PAD at the end -> (types, width)."""
        x: Tensor = _Convolution.apply(
            characters, self.max_characters, self.characters.weight, *self.filters
        )
        x = self.activation(x + self.bias)  # (types, filters)
        for layer in self.highway:
            x = layer(x)
        if self.projection is not None:
            projected = linear(x, self.projection.weight, self.projection.bias)
            x = projected.to(x.dtype)  # (types, width), of bf16 under autocast
        return x


class Highway(nn.Module):
    """g relu(W_t x + b_t) + (1 - g) x with g = sigmoid(W_g x + b_g) (Srivastava et al. 2015).

    The gate, which bilm-tf calls "carry", multiplies the transformed input. Both are one matrix:
    the gate's rows, then the transform's.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)
        nn.init.normal_(self.linear.weight, std=1 / math.sqrt(width))
        nn.init.zeros_(self.linear.bias)
        nn.init.constant_(self.linear.bias[:width], -2)

    def forward(self, x: Tensor) -> Tensor:
        """(types, width) -> (types, width)."""
        both = linear(x, self.linear.weight, self.linear.bias)  # (types, 2 * width)
        gate, transform = both.to(x.dtype).chunk(2, 1)
        return torch.lerp(x, transform.relu(), gate.sigmoid())


class _Convolution(torch.autograd.Function):
    """The maximum of every filter over a word's windows: (types, filters), float32, without bias.

    Only the window with the maximum has a gradient, so backward looks up which characters it saw
    and sums by (character, filter): hundreds of times fewer multiplications than two matmuls. On a
    GPU the order of these sums, and so the last bits of the gradient, is not fixed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        buckets: tuple[Tensor, ...],
        max_characters: int,
        characters: Tensor,
        *filters: Tensor,
    ) -> Tensor:
        dim = characters.shape[1]
        sizes = [len(weight) // dim for weight in filters]
        longest = max(bucket.shape[1] for bucket in buckets)
        room = longest + max(sizes)  # a window of padding alone fits after every word
        padded, maxima, windows = [], [], []
        for bucket in buckets:
            types, length = bucket.shape
            ids = F.pad(bucket, (0, room - length), value=PAD)  # (types, room)
            x = F.embedding(ids, characters).view(types, room * dim)
            of_bucket = [
                # The last of the windows sees only padding, if the word leaves room for one.
                _strongest(x, weight, dim, min(length, max_characters - size) + 1)
                for size, weight in zip(sizes, filters, strict=True)
            ]
            padded.append(ids)
            maxima.append(torch.cat([value for value, _ in of_bucket], 1))
            windows.append(torch.cat([place for _, place in of_bucket], 1))
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
            of_filter = gradient[:, first : first + number]  # (types, number)
            window = windows[:, first : first + number]
            first += number
            d_weight = torch.empty_like(weight)
            for place in range(len(weight) // dim):
                rows = slice(place * dim, (place + 1) * dim)
                seen = ids.gather(1, window + place)  # (types, number)
                by_character = weight.new_zeros(CHARACTERS, number).scatter_add_(0, seen, of_filter)
                d_weight[rows] = characters.T @ by_character
                d_characters += by_character @ weight[rows].T
            d_filters.append(d_weight)
        return None, None, d_characters, *d_filters


def _strongest(x: Tensor, weight: Tensor, dim: int, windows: int) -> tuple[Tensor, Tensor]:
    """The maximum over the first windows, and the window where it is: (types, number) both.

    x: (types, room * dim); weight: (size * dim, number).
    """
    seen = x.unfold(1, len(weight), dim)[:, :windows]  # (types, windows, size * dim)
    y = times_transposed(seen.reshape(-1, len(weight)), weight.T).view(len(x), windows, 1, -1)
    # Channels last: many times faster than max(1), which is not vectorised where it tells the place.
    value, place = F.max_pool2d(y.permute(0, 3, 1, 2), (windows, 1), return_indices=True)
    return value.flatten(1), place.flatten(1)
