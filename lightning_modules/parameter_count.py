"""How many parameters a model has, by arithmetic: a dry run must not import torch (seconds)."""

from itertools import pairwise

from lightning_modules.config import (
    AdaptiveInputConfig,
    AdaptiveSoftmaxConfig,
    CharCNNInputConfig,
    LSTMConfig,
    ModelConfig,
    RecurrentConfig,
)
from preprocess.tokenizers.spellings import CHARACTERS


def tail_widths(dim: int, div: float, tails: int) -> tuple[int, ...]:
    """Inner dimensions of each tail: dim // div^(k + 1), at least 1 (Grave et al. 2017, 4.4)."""
    return tuple(max(1, int(dim // div ** (k + 1))) for k in range(tails))


def parameter_count(config: ModelConfig, vocabulary: int, cutoffs: tuple[int, ...] = ()) -> int:
    """Trainable numbers of the network that this config, vocabulary and these cutoffs build."""
    width = config.recurrent.direction_width
    predicted = min(config.output_vocabulary or vocabulary, vocabulary)
    return (
        _input(config, vocabulary, width, cutoffs)
        + config.direction_count * config.recurrent.layers * _layer(config.recurrent)
        + _head(config, predicted, width, cutoffs)
    )


def _input(config: ModelConfig, vocabulary: int, width: int, cutoffs: tuple[int, ...]) -> int:
    if isinstance(config.input, CharCNNInputConfig):
        return _char_cnn(config.input, width)
    if isinstance(config.input, AdaptiveInputConfig):
        # What is tied is counted in the output layer.
        assert isinstance(config.head, AdaptiveSoftmaxConfig)
        return 0 if config.tied else _clusters(vocabulary, width, cutoffs, config.head.div)
    dim = config.input.dim or width
    return vocabulary * dim + _linear(dim, width)


def _linear(found: int, width: int) -> int:
    """A map with a bias, where there is something to map."""
    return 0 if found == width else (found + 1) * width


def _char_cnn(config: CharCNNInputConfig, width: int) -> int:
    filters = sum(number * (1 + size * config.dim) for size, number in config.filters)
    found = sum(number for _, number in config.filters)
    highway = config.highway * 2 * found * (found + 1)
    return CHARACTERS * config.dim + filters + highway + _linear(found, width)


def _layer(config: RecurrentConfig) -> int:
    width, hidden = config.direction_width, config.hidden
    if not isinstance(config, LSTMConfig):
        return 3 * hidden * (2 * width + 1) + hidden
    projection = 0 if config.projection is None else hidden * width
    return 4 * hidden * (2 * width + 1) + projection


def _head(config: ModelConfig, vocabulary: int, width: int, cutoffs: tuple[int, ...]) -> int:
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
