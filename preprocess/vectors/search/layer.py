"""The layer of a cache that is searched, and the vectors of words and texts in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from preprocess.errors import UserError
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.codec import Vectors
from preprocess.vectors.word_sample import Floats, Word

SAMPLED_TEXTS = 4096
"""Maximum number of texts, spread evenly over a cache, that its mean vector is computed from."""


class LayerError(UserError):
    """A layer that a cache does not have."""


@dataclass(frozen=True)
class CacheLayer:
    """A layer of the vectors in a cache.

    Attributes:
        number: index of the layer in the cache.
        pooling: how the vectors of the tokens of a word become the vector of the word. "direction":
            the forward half at the last token and the backward half at the first, because there each
            direction has read the whole word. "last": the vector at the last token, for a model with
            a forward direction only. "mean": their mean, if a vector holds several layers, or the model
            has layer 0 only.
        static: index of layer 0 in the cache, where a word has one vector for all its uses, or None
            if the cache does not have it.
    """

    number: int
    pooling: Literal["direction", "last", "mean"]
    static: int | None

    @classmethod
    def of(cls, cache: VectorCache, layer: int = -1) -> "CacheLayer":
        """Return a layer of a cache by its index among the cache's layers; -1 is the last.

        Raises:
            LayerError: the cache has no such layer.
            CacheError: the cache is damaged.
        """
        if not -cache.layers <= layer < cache.layers:
            raise LayerError(
                f"{cache.path}: no layer {layer}; the cache has {cache.layers} layers, 0 to "
                f"{cache.layers - 1}, and -1 is the last"
            )
        settings = cache.manifest.details.get("vectors", {})
        kept = settings.get("layers", "all")
        if settings.get("kind", "vector") != "vector":
            # Gradients at layer 0 depend on the context.
            return cls(layer % cache.layers, "mean" if kept == "concat" else "direction", None)
        static = 0 if kept == "all" else None
        if isinstance(kept, list) and 0 in kept:
            static = kept.index(0)
        pooling: Literal["direction", "last", "mean"] = "direction"
        if kept == "concat" or (kept == "all" and cache.layers == 1):
            pooling = "mean"
        elif cache.dim % 2 or (static is not None and not _has_two_directions(cache, static)):
            pooling = "last"
        return cls(layer % cache.layers, pooling, static)

    def words(self, vectors: Vectors, words: Sequence[Word]) -> Floats:
        """Return the vector of each word, shape (words, dim).

        Args:
            vectors: vectors of a text, shape (layers, units, dim).
            words: words of the text.
        """
        return _pooled(vectors[self.number], words, self.pooling)

    def text(self, vectors: Vectors) -> Floats:
        """Return the mean of the vectors of a text's units, shape (dim,)."""
        return np.asarray(vectors[self.number].mean(0, dtype=np.float64), np.float32)

    def static_word(self, vectors: Vectors, word: Word) -> Floats:
        """Return the vector of a word in layer 0, shape (dim,) or (dim / 2,).

        Layer 0 of a model with two directions holds each vector twice, once for each direction.
        """
        assert self.static is not None
        rows = vectors[self.static, word.first : word.last + 1]
        size = rows.shape[1] // 2 if self.pooling == "direction" else rows.shape[1]
        return np.asarray(rows[:, :size].mean(0, dtype=np.float64), np.float32)

    def mean(self, cache: VectorCache, texts: bool = False) -> Floats:
        """Return the mean vector of a cache, which all vectors have in common, shape (dim,).

        It is computed from up to `SAMPLED_TEXTS` texts, spread evenly over the cache.

        Args:
            cache: the cache.
            texts: return the mean of the texts' vectors instead of that of the units' vectors.

        Raises:
            CacheError: an entry is damaged.
        """
        total, count = np.zeros(cache.dim), 0
        for vectors in _sampled(cache):
            units = vectors.shape[1]
            if units:
                one = vectors[self.number].mean(0, dtype=np.float64)
                weight = 1 if texts else units
                total += weight * one
                count += weight
        return np.asarray(total / max(count, 1), np.float32)


def _sampled(cache: VectorCache) -> Any:
    ends = np.cumsum(cache.sizes)
    entries = int(ends[-1]) if len(ends) else 0
    for entry in np.unique(np.linspace(0, entries - 1, min(entries, SAMPLED_TEXTS)).astype(int)):
        shard = int(ends.searchsorted(entry, "right"))
        first = int(ends[shard]) - cache.sizes[shard]
        yield cache.at(cache.shards[shard], int(entry) - first)[1]


def _has_two_directions(cache: VectorCache, static: int) -> bool:
    """Return whether layer 0 holds each vector twice, once for each direction."""
    for vectors in _sampled(cache):
        if vectors.shape[1]:
            first, second = np.split(vectors[static], 2, axis=1)
            return bool(np.array_equal(first, second))
    return True


def _pooled(layer: NDArray[Any], words: Sequence[Word], pooling: str) -> Floats:
    first = np.fromiter((word.first for word in words), np.int64, len(words))
    last = np.fromiter((word.last for word in words), np.int64, len(words))
    if pooling == "direction":
        half = layer.shape[1] // 2
        return np.concatenate([layer[last, :half], layer[first, half:]], 1, dtype=np.float32)
    found = layer[last].astype(np.float32)
    if pooling == "mean":
        for n in np.flatnonzero(first < last).tolist():
            found[n] = layer[first[n] : last[n] + 1].mean(0, dtype=np.float64)
    return found


def unit_length(vectors: Floats) -> Floats:
    """Return vectors scaled to length 1, shape (..., dim); zero vectors stay zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)
