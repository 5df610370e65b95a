"""One vector for each text and layer: the vectors of its tokens, pooled.

Legend of shapes: n is the number of texts, depth the number of layers, input included, dim the size of a
token's vector in one layer. width is the size of a pooled vector: dim, or 2 dim for "mean_max". For pairs
of texts it is four times that.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.features import Features, features_of
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Pooling as TextPooling
from lightning_modules.vectors.selection import Unit
from preprocess.vectors.cache import VectorCache

Floats = npt.NDArray[np.float32]
Pooling = Literal["mean", "max", "mean_max"]

BLOCK = 1024
"""Texts whose token vectors are in memory, or in temporary files, at once."""
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
    lengths: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    block = BLOCK if batch_tokens == TOGETHER else BLOCK // 16
    for start in range(0, len(texts), block):
        vectors = _vectors(source, texts[start : start + block], batch_tokens)
        found += [pool(one, source.pooling) for one in vectors]
        lengths.append(np.array([one.shape[1] for one in vectors], np.int64))
        advance(len(vectors), int(lengths[-1].sum()))
    return Pooled(np.stack(found), np.concatenate(lengths))


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


def _vectors(source: Source, texts: Sequence[str], batch_tokens: int) -> Sequence[Floats]:
    """Return the vectors of texts, each (depth, units, dim)."""
    model, cache = source.model, source.cache
    # `features_of` does not know how a cache of whole texts was pooled.
    own = [n for n, text in enumerate(texts) if cache is None or text not in cache]
    if source.unit != "sentence" or not model or not own:
        return [*features_of(model, cache, texts, source.unit, batch_tokens=batch_tokens)]
    embedded = model.embed(
        [texts[n] for n in own], batch_tokens, unit="sentence", pooling=source.text_pooling
    )
    computed = dict(zip(own, (one.vectors for one in embedded), strict=True))
    stored = [n for n in range(len(texts)) if n not in computed]
    if stored:
        read = features_of(model, cache, [texts[n] for n in stored], "sentence")
        computed |= dict(zip(stored, read, strict=True))
    return [computed[n] for n in range(len(texts))]
