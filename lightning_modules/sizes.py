"""Parameters of a model, and FLOPs of its training, by arithmetic on the config. Imports no torch."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.config import (
    AdaptiveInputConfig,
    AdaptiveSoftmaxConfig,
    CharCNNInputConfig,
    LSTMConfig,
    ModelConfig,
    RecurrentConfig,
    SampledSoftmaxConfig,
)
from lightning_modules.nn.heads.cutoffs import tail_widths
from preprocess.tokenizers.spellings import CHARACTERS


def parameter_count(config: ModelConfig, vocabulary: int, cutoffs: tuple[int, ...] = ()) -> int:
    """Trainable numbers of the network that this config, vocabulary and these cutoffs build."""
    width = config.recurrent.direction_width
    predicted = min(config.output_vocabulary or vocabulary, vocabulary)
    return (
        _input_parameters(config, vocabulary, width, cutoffs)
        + config.direction_count * config.recurrent.layers * _layer_parameters(config.recurrent)
        + _head_parameters(config, predicted, width, cutoffs)
    )


def _input_parameters(
    config: ModelConfig, vocabulary: int, width: int, cutoffs: tuple[int, ...]
) -> int:
    if isinstance(config.input, CharCNNInputConfig):
        return _char_cnn_parameters(config.input, width)
    if isinstance(config.input, AdaptiveInputConfig):
        # What is tied is counted in the output layer.
        assert isinstance(config.head, AdaptiveSoftmaxConfig)
        return 0 if config.tied else _clusters(vocabulary, width, cutoffs, config.head.div)
    dim = config.input.dim or width
    return vocabulary * dim + _linear(dim, width)


def _linear(found: int, width: int) -> int:
    """A map with a bias, where there is something to map."""
    return 0 if found == width else (found + 1) * width


def _char_cnn_parameters(config: CharCNNInputConfig, width: int) -> int:
    filters = sum(number * (1 + size * config.dim) for size, number in config.filters)
    found = sum(number for _, number in config.filters)
    highway = config.highway * 2 * found * (found + 1)
    return CHARACTERS * config.dim + filters + highway + _linear(found, width)


def _layer_parameters(config: RecurrentConfig) -> int:
    width, hidden = config.direction_width, config.hidden
    if not isinstance(config, LSTMConfig):
        return 3 * hidden * (2 * width + 1) + hidden
    projection = 0 if config.projection is None else hidden * width
    return 4 * hidden * (2 * width + 1) + projection


def _head_parameters(
    config: ModelConfig, vocabulary: int, width: int, cutoffs: tuple[int, ...]
) -> int:
    if isinstance(config.head, AdaptiveSoftmaxConfig):
        clusters = _clusters(vocabulary, width, cutoffs, config.head.div)
        return clusters + width * len(cutoffs)  # a logit for each tail
    return vocabulary if config.tied else vocabulary * (width + 1)


def _clusters(vocabulary: int, width: int, cutoffs: tuple[int, ...], div: float) -> int:
    """A vector for each id, of its cluster's width, and the tails' maps to the full width."""
    bounds = (*cutoffs, vocabulary)
    inner = tail_widths(width, div, len(cutoffs))
    sizes = [end - start for start, end in pairwise(bounds)]
    return width * bounds[0] + sum(
        dim * (width + size) for dim, size in zip(inner, sizes, strict=True)
    )


class SpelledTypes(NamedTuple):
    """What a character CNN reads: distinct words for each token read, and their mean length.

    a_token: types of a step / tokens of a step (a token is a position of a row, whatever the
    directions); length: bytes of a word, its begin and end marks included.
    """

    a_token: float
    length: float


def flops_per_token(
    config: ModelConfig,
    counts: npt.NDArray[np.uint64],
    cutoffs: tuple[int, ...] = (),
    types: SpelledTypes | None = None,
) -> float:
    """FLOP that training needs for a token, a position of a row that every direction reads.

    It is 2 * 3 * the multiplications of the matmuls going forward (a multiplication has its
    addition; going backward takes one such matmul for the input's gradient and one for the
    weight's), as Chowdhery et al. 2022 (PaLM, appendix B) count; pointwise work, the optimiser and
    what an implementation computes beyond need are not counted. With W the width of a direction, H
    the hidden size, V the ids that can be predicted, D directions, the multiplications are

        input      embedding of dim E     D E W where E is not W, else 0
                   adaptive               D sum_k p_k d_k W
                   character CNN          T (sum_i n_i w_i E (c_i + 2) / 3 + h 2 F F + F W)
        recurrent  LSTM                   D layers (4 H 2 W + H W), without projection 4 H 2 W
                   GRU                    D layers 3 H 2 W
        output     softmax                D W V
                   adaptive softmax       D (W (J + tails) + sum_k p_k (W d_k + d_k V_k))
                   sampled softmax        D W (samples + 1)

    d_k: inner dimensions of tail k, V_k its ids, p_k its share of what is predicted; J: ids of the
    shortlist; T: types for each token, since a type is needed once wherever it stands; w_i, n_i:
    width and number of a filter; c_i = min(length + 1, max_characters - w_i + 1): the windows that
    begin in the word and one of padding alone, of which the maximum lets only one have a gradient;
    E: dimensions of a character; F = sum_i n_i; h: highway layers. F W is missing where F = W.

    Args:
        counts: (ids that can be predicted,) how often each is, and so is read, in the order of ids.
        cutoffs: ranks where the tails begin.
        types: for a character CNN, and only then.
    """
    width, directions = config.recurrent.direction_width, config.direction_count
    if isinstance(config.input, CharCNNInputConfig):
        assert types is not None
        encoder = types.a_token * _char_cnn_products(config.input, width, types.length)
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
        held = _tail_shares(counts, cutoffs)
        return sum(share * dim * width for share, dim in zip(held, inner, strict=True))
    assert not isinstance(config.input, CharCNNInputConfig)
    dim = config.input.dim or width
    return 0.0 if dim == width else dim * width


def _char_cnn_products(config: CharCNNInputConfig, width: int, length: float) -> float:
    convolutions = sum(
        n * w * config.dim * (min(length + 1, config.max_characters - w + 1) + 2) / 3
        for w, n in config.filters
    )
    found = sum(n for _, n in config.filters)
    projection = 0 if found == width else found * width
    return convolutions + config.highway * 2 * found * found + projection


def _layer_products(config: RecurrentConfig) -> float:
    width = config.direction_width
    if not isinstance(config, LSTMConfig):
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
    """The share of the text that each tail holds."""
    falling = np.sort(counts.astype(np.float64))[::-1]
    ends = (*cutoffs, len(counts))
    return [float(falling[a:b].sum() / max(falling.sum(), 1.0)) for a, b in pairwise(ends)]
