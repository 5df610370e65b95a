"""One vector for each text and layer: the vectors of its tokens, pooled.

Legend of shapes: n is the number of texts, depth the number of layers, input included, dim the size of a
token's vector in one layer. width is the size of a pooled vector: dim, or 2 dim for "mean_max". For pairs
of texts it is four times that.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.features import Features, features_of
from lightning_modules.tasks.pooled_units import Pooling, pooled_units
from lightning_modules.vectors.batches import text_windows, window_characters
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Pooling as TextPooling
from lightning_modules.vectors.selection import Text, Unit
from preprocess.vectors.cache import VectorCache

Floats = npt.NDArray[np.float32]

TOGETHER, ALONE = 8192, 1
"""Tokens of texts that are computed together, for speed; or each text by itself, so that its vectors do not
depend on the other texts, to the bit."""


class Pooled(NamedTuple):
    """The pooled vectors of texts.

    Attributes:
        vectors: float32 (n, depth, width); zeros for an empty text.
        lengths: units of each text, of both texts of a pair together, int64 (n,).
    """

    vectors: Floats
    lengths: npt.NDArray[np.int64]


class Source(NamedTuple):
    """Where vectors come from.

    Attributes:
        model: the language model, or None if the cache has all texts.
        cache: a vector cache, or None.
        unit: what has a vector: each token, each word, or the whole text.
        pooling: how the vectors of a text become one.
        text_pooling: how the cache pooled the tokens of a text, if ``unit`` is the whole text.
    """

    model: BiLM | None
    cache: VectorCache | None
    unit: Unit
    pooling: Pooling
    text_pooling: TextPooling = "mean"

    @property
    def depth(self) -> int:
        """Number of layers."""
        if self.model is not None:
            return self.model.depth
        assert self.cache is not None, "a model or a cache"
        return self.cache.layers

    @property
    def dim(self) -> int:
        """Size of a vector in one layer."""
        if self.model is not None:
            return self.model.dim
        assert self.cache is not None, "a model or a cache"
        return self.cache.dim


def pool(vectors: Floats, pooling: Pooling) -> Floats:
    """Return one vector for each layer, (depth, width), from the vectors of a text, (depth, units, dim).

    "mean_max" is the mean and the largest value of each dimension. A text without units gives zeros.
    """
    depth, units, dim = vectors.shape
    if not units:
        return np.zeros((depth, 2 * dim if pooling == "mean_max" else dim), np.float32)
    found = []
    if pooling in ("mean", "mean_max"):
        found.append(vectors.mean(1, dtype=np.float64).astype(np.float32))
    if pooling in ("max", "mean_max"):
        found.append(vectors.max(1))
    return np.concatenate(found, 1)


def pair_features(one: Floats, other: Floats) -> Floats:
    """Return (..., 4 width) features of pairs: u, v, |u - v| and u * v, from two (..., width) arrays.

    Source: Conneau et al. 2017, https://arxiv.org/abs/1705.02364, section 3.1, with u and v as they are.
    """
    return np.concatenate([one, other, np.abs(one - other), one * other], -1)


def pooled_texts(
    source: Source,
    texts: Sequence[str],
    batch_tokens: int = TOGETHER,
    advance: Callable[[int, int], None] = lambda texts, units: None,
) -> Pooled:
    """Return the pooled vectors of texts.

    Args:
        source: where vectors come from.
        texts: the texts.
        batch_tokens: tokens of texts that are computed together; `ALONE` computes each text by itself.
        advance: called with the number of texts and units that were computed.

    Raises:
        FeatureError, CacheError, ScratchError, VectorError: as `features_of`.
    """
    found: list[Floats] = []
    lengths: list[int] = []
    for window in text_windows(texts, window_characters(source.depth, source.dim)):
        for vectors, units in _pooled(source, window, batch_tokens):
            found.append(vectors)
            lengths.append(units)
        advance(len(window), sum(lengths[len(lengths) - len(window) :]))
    return Pooled(np.stack(found), np.array(lengths, np.int64))


def pooled_sides(source: Source, sides: Sequence[Pooled | Features]) -> Pooled:
    """Return the pooled vectors of texts, or of pairs of texts.

    Args:
        source: where vectors come from.
        sides: the vectors of the texts, and of the second texts of pairs.
    """
    one, *others = [
        side
        if isinstance(side, Pooled)
        else Pooled(np.stack([pool(vectors, source.pooling) for vectors in side]), side.lengths)
        for side in sides
    ]
    for other in others:
        vectors = pair_features(one.vectors, other.vectors)
        return Pooled(vectors, one.lengths + other.lengths)
    return one


def _pooled(
    source: Source, texts: Sequence[Text], batch_tokens: int
) -> Iterator[tuple[Floats, int]]:
    """Yield the pooled vectors of each text, (depth, width), and its number of units."""
    model, cache = source.model, source.cache
    own: dict[Text, tuple[Floats, int] | None] = {}
    if model is not None:
        own = dict.fromkeys(text for text in texts if cache is None or text not in cache)
    stored: Iterator[Floats] = iter(())
    if cache is not None or model is None:
        # It also checks that the cache fits the model.
        known = [text for text in texts if text not in own]
        stored = iter(features_of(model, cache, known, source.unit))
    if model is not None and own:
        new = [*own]
        if source.unit == "sentence":
            # `features_of` does not know how a cache of whole texts was pooled.
            embedded = model.embed(new, batch_tokens, unit="sentence", pooling=source.text_pooling)
            pairs = [(pool(one.vectors, source.pooling), one.vectors.shape[1]) for one in embedded]
        else:
            pairs = pooled_units(model, new, source.unit, source.pooling, batch_tokens)
        own.update(zip(new, pairs, strict=True))
    for text in texts:
        if (made := own.get(text)) is None:
            vectors = next(stored)
            made = pool(vectors, source.pooling), vectors.shape[1]
        yield made
