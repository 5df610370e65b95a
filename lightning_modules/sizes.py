"""Number of parameters and training FLOPs of a model, from its config alone. Imports no torch."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.config import (
    AdaptiveInputConfig,
    AdaptiveSoftmaxConfig,
    CharCNNInputConfig,
    ModelConfig,
    SampledSoftmaxConfig,
    WordCharCNNInputConfig,
)
from lightning_modules.nn.heads.cutoffs import tail_widths
from lightning_modules.recurrent_config import (
    GRUConfig,
    HGRN2Config,
    NoRecurrenceConfig,
    RecurrentConfig,
    SRUConfig,
)
from preprocess.tokenizers.spellings import CHARACTERS


def parameter_count(
    config: ModelConfig, vocabulary: int, cutoffs: tuple[int, ...] = (), head: bool = True
) -> int:
    """Return the number of trainable parameters of a `BiLMNetwork`.

    Args:
        config: the network.
        vocabulary: number of ids.
        cutoffs: first rank of each tail of an adaptive softmax; ``config.head.cutoffs`` is not read.
        head: whether the network has an output layer.
    """
    width = config.recurrent.direction_width
    predictable = config.predictable_ids(vocabulary)
    return (
        _input_parameters(config, vocabulary, width, cutoffs)
        + config.direction_count * _stack_parameters(config.recurrent)
        + (_head_parameters(config, predictable, width, cutoffs) if head else 0)
    )


def _input_parameters(
    config: ModelConfig, vocabulary: int, width: int, cutoffs: tuple[int, ...]
) -> int:
    if isinstance(config.input, CharCNNInputConfig):
        return _char_cnn_parameters(config.input, vocabulary, width)
    if isinstance(config.input, AdaptiveInputConfig):
        # Tied vectors are counted in the output layer.
        assert isinstance(config.head, AdaptiveSoftmaxConfig)
        return 0 if config.tied else _clusters(vocabulary, width, cutoffs, config.head.div)
    dim = config.input.dim or width
    return vocabulary * dim + _linear(dim, width)


def _linear(columns: int, width: int) -> int:
    """Parameters of a linear map with bias, which is left out if the widths are equal."""
    return 0 if columns == width else (columns + 1) * width


def _char_cnn_parameters(config: CharCNNInputConfig, vocabulary: int, width: int) -> int:
    convolutions = sum(number * (1 + size * config.dim) for size, number in config.filters)
    filters = sum(number for _, number in config.filters)
    highway = config.highway * 2 * filters * (filters + 1)
    shared = convolutions + highway
    if isinstance(config, WordCharCNNInputConfig):
        vectors = config.characters * config.dim + vocabulary * config.word_dim
        return vectors + shared + (filters + config.word_dim + 1) * width
    return CHARACTERS * config.dim + shared + _linear(filters, width)


def _stack_parameters(config: RecurrentConfig) -> int:
    # Each layer of HGRN2 except the first has lower bounds.
    bounds = (config.layers - 1) * config.hidden if isinstance(config, HGRN2Config) else 0
    return config.layers * _layer_parameters(config) + bounds


def _layer_parameters(config: RecurrentConfig) -> int:
    width, hidden = config.direction_width, config.hidden
    if isinstance(config, NoRecurrenceConfig):
        return 0
    if isinstance(config, SRUConfig):
        return hidden * (3 * hidden + 2)
    if isinstance(config, HGRN2Config):
        return hidden * (4 * width + 2)
    if isinstance(config, GRUConfig):
        return 3 * hidden * (2 * width + 1) + hidden
    projection = 0 if config.projection is None else hidden * width
    return 4 * hidden * (2 * width + 1) + projection


def _head_parameters(
    config: ModelConfig, vocabulary: int, width: int, cutoffs: tuple[int, ...]
) -> int:
    if isinstance(config.head, AdaptiveSoftmaxConfig):
        clusters = _clusters(vocabulary, width, cutoffs, config.head.div)
        return clusters + width * len(cutoffs)  # the head has a logit for each tail
    return vocabulary if config.tied else vocabulary * (width + 1)


def _clusters(vocabulary: int, width: int, cutoffs: tuple[int, ...], div: float) -> int:
    """Parameters of the head's and the tails' vectors and of the tails' projections."""
    bounds = (*cutoffs, vocabulary)
    inner = tail_widths(width, div, len(cutoffs))
    sizes = [end - start for start, end in pairwise(bounds)]
    return width * bounds[0] + sum(
        dim * (width + size) for dim, size in zip(inner, sizes, strict=True)
    )


class SpelledTypes(NamedTuple):
    """Input of a character CNN, which convolves each distinct word (type) of a step once.

    Attributes:
        per_token: number of types of a step, divided by its number of tokens. A token is a position
            of a row; all directions together count it once.
        length: mean length of a type in bytes, including its begin and end marks.
    """

    per_token: float
    length: float


def flops_per_token(
    config: ModelConfig,
    counts: npt.NDArray[np.uint64],
    cutoffs: tuple[int, ...] = (),
    types: SpelledTypes | None = None,
) -> float:
    """Return the FLOPs of training per token; all directions of a position count as one token.

    They are 2 * 3 * the multiplications of the forward matmuls, counted as in Chowdhery et al. 2022
    (PaLM, appendix B): each multiplication has an addition, and the backward pass has one matmul of
    the same size for the gradient of the input and one for that of the weight. Not counted:
    pointwise operations, the optimiser, and work beyond these products, such as recomputed logits
    and padding. The multiplications per token are

        input      embedding of width E   D E W if E is not W, else 0
                   adaptive               D sum_k p_k d_k W
                   character CNN          T (sum_i n_i w_i E (c_i + 2) / 3 + h 2 F F + F W)
        recurrent  LSTM                   D layers (4 H 2 W + H W); without projection D layers 4 H 2 W
                   GRU                    D layers 3 H 2 W
                   SRU                    D layers 3 H W
                   HGRN2                  D layers (4 H W + 2 H N)
        output     softmax                D W V
                   adaptive softmax       D (W (J + tails) + sum_k p_k (W d_k + d_k V_k))
                   sampled softmax        D W (samples + 1)

    with D directions, width W of a direction, hidden size H, V ids that can be predicted, and N numbers
    of the state per value, each of which a token changes and reads.
    Adaptive: d_k is the width of tail k, V_k its number of ids, p_k its share of the tokens; J is
    the number of ids in the head. Character CNN: T is types per token; w_i and n_i are the width
    and the number of the filters of convolution i; E is the width of a character; h is the number
    of highway layers; F = sum_i n_i, and F W is absent if F = W; c_i = min(length + 1,
    max_characters - w_i + 1) is the number of windows: those that begin in the word, and one of
    padding only. Max-pooling passes the gradient of one window, so the three matmuls together
    multiply c_i + 2 windows instead of 3 c_i.

    Args:
        config: the network.
        counts: number of tokens of each id that can be predicted, in the order of ids, (V,).
        cutoffs: first rank of each tail of an adaptive softmax.
        types: required for a character CNN, ignored otherwise.
    """
    width, directions = config.recurrent.direction_width, config.direction_count
    if isinstance(config.input, CharCNNInputConfig):
        assert types is not None
        encoder = types.per_token * _char_cnn_products(config.input, width, types.length)
    else:
        encoder = directions * _input_products(config, counts, cutoffs)
    stack = directions * config.recurrent.layers * _layer_products(config.recurrent)
    return 6.0 * (encoder + stack + directions * _head_products(config, counts, cutoffs))


def _input_products(
    config: ModelConfig, counts: npt.NDArray[np.uint64], cutoffs: tuple[int, ...]
) -> float:
    width = config.recurrent.direction_width
    if isinstance(config.input, AdaptiveInputConfig):
        assert isinstance(config.head, AdaptiveSoftmaxConfig)
        inner = tail_widths(width, config.head.div, len(cutoffs))
        shares = _tail_shares(counts, cutoffs)
        return sum(share * dim * width for share, dim in zip(shares, inner, strict=True))
    assert not isinstance(config.input, CharCNNInputConfig)
    dim = config.input.dim or width
    return 0.0 if dim == width else dim * width


def _char_cnn_products(config: CharCNNInputConfig, width: int, length: float) -> float:
    convolutions = sum(
        n * w * config.dim * (min(length + 1, config.max_characters - w + 1) + 2) / 3
        for w, n in config.filters
    )
    filters = sum(n for _, n in config.filters)
    projection = 0 if filters == width else filters * width
    return convolutions + config.highway * 2 * filters * filters + projection


def _layer_products(config: RecurrentConfig) -> float:
    width = config.direction_width
    if isinstance(config, NoRecurrenceConfig):
        return 0
    if isinstance(config, SRUConfig):
        return 3 * config.hidden * width
    if isinstance(config, HGRN2Config):
        return 4 * config.hidden * width + 2 * config.hidden * config.expansion
    if isinstance(config, GRUConfig):
        return 3 * config.hidden * 2 * width
    projection = 0 if config.projection is None else config.hidden * width
    return 4 * config.hidden * 2 * width + projection


def _head_products(
    config: ModelConfig, counts: npt.NDArray[np.uint64], cutoffs: tuple[int, ...]
) -> float:
    width, vocabulary = config.recurrent.direction_width, len(counts)
    if isinstance(config.head, SampledSoftmaxConfig):
        return width * (config.head.samples + 1)
    if not isinstance(config.head, AdaptiveSoftmaxConfig):
        return width * vocabulary
    ends = (*cutoffs, vocabulary)
    inner = tail_widths(width, config.head.div, len(cutoffs))
    sizes = [end - start for start, end in pairwise(ends)]
    tails = zip(_tail_shares(counts, cutoffs), inner, sizes, strict=True)
    return width * (ends[0] + len(cutoffs)) + sum(
        share * dim * (width + size) for share, dim, size in tails
    )


def _tail_shares(counts: npt.NDArray[np.uint64], cutoffs: tuple[int, ...]) -> list[float]:
    """Return each tail's share of all tokens."""
    falling = np.sort(counts.astype(np.float64))[::-1]
    ends = (*cutoffs, len(counts))
    return [float(falling[a:b].sum() / max(falling.sum(), 1.0)) for a, b in pairwise(ends)]
