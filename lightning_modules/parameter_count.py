"""How many parameters a model has, by arithmetic: a dry run must not import torch (seconds)."""

from itertools import pairwise

from lightning_modules.config import AdaptiveSoftmaxConfig, ModelConfig


def tail_widths(dim: int, div: float, tails: int) -> tuple[int, ...]:
    """Inner dimensions of each tail: dim // div^(k + 1), at least 1 (Grave et al. 2017, 4.4)."""
    return tuple(max(1, int(dim // div ** (k + 1))) for k in range(tails))


def parameter_count(config: ModelConfig, vocabulary: int, cutoffs: tuple[int, ...] = ()) -> int:
    """Trainable numbers of the network that this config, vocabulary and these cutoffs build."""
    width = config.recurrent.direction_width
    return (
        _input(config, vocabulary, width)
        + _recurrent(config, width)
        + _head(config, vocabulary, width, cutoffs)
    )


def _input(config: ModelConfig, vocabulary: int, width: int) -> int:
    dim = config.input.dim or width
    return vocabulary * dim + (0 if dim == width else (dim + 1) * width)


def _recurrent(config: ModelConfig, width: int) -> int:
    hidden = config.recurrent.hidden
    gates = 4 * hidden * (2 * width + 1)
    projection = 0 if config.recurrent.projection is None else hidden * width
    return config.recurrent.layers * 2 * (gates + projection)


def _head(config: ModelConfig, vocabulary: int, width: int, cutoffs: tuple[int, ...]) -> int:
    if not isinstance(config.head, AdaptiveSoftmaxConfig):
        return vocabulary * (width + 1)
    bounds = (*cutoffs, vocabulary)
    inner = tail_widths(width, config.head.div, len(cutoffs))
    sizes = [end - start for start, end in pairwise(bounds)]
    return width * (bounds[0] + len(cutoffs)) + sum(
        dim * (width + size) for dim, size in zip(inner, sizes, strict=True)
    )
