"""A random sample of the uses of words, or of the texts, of a vector cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from preprocess.vectors.cache import VectorCache
from preprocess.vectors.search.exact import Progress, joined, not_finite, solid
from preprocess.vectors.search.layer import CacheLayer
from preprocess.vectors.search.marked_text import QueryError
from preprocess.vectors.word_sample import (
    Floats,
    Snippet,
    find_words,
    joined_text,
    shown,
    snippet,
    word_key,
)

AROUND = 90
"""Characters to show on each side of a word."""

SHOWN = 400
"""Characters of a text to show."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Sampled:
    """A use of a word, or a text.

    Attributes:
        group: the word that was asked for; "" for a text.
        text: the whole text, as `solid` gives it, by which its label is found.
        snippet: what to show; a text is in ``before``.
        vector: its vector, shape (dim,).
    """

    group: str
    text: str
    snippet: Snippet
    vector: Floats


@dataclass(frozen=True)
class Sample:
    """A sample, in the order of the cache.

    Attributes:
        items: the uses or texts.
        of: for each group, the number of uses or texts in the cache.
    """

    items: tuple[Sampled, ...]
    of: dict[str, int]


class Reservoir(Generic[Item]):
    """A uniform sample of a stream of unknown length (Vitter 1985, algorithm R).

    Args:
        most: size of the sample.
        seed: seed of the random numbers.
    """

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._random = most, np.random.default_rng(seed)
        self.seen = 0
        self.kept: dict[int, tuple[int, Item]] = {}

    def add(self, make: Callable[[], Item]) -> None:
        """Consider the next item; ``make`` makes it if it is kept."""
        at = self.seen
        self.seen += 1
        if at >= self._most:
            at = int(self._random.integers(self.seen))
        if at < self._most:
            self.kept[at] = self.seen, make()


def sample_uses(
    cache: VectorCache,
    words: Sequence[str],
    layer: CacheLayer,
    most: int,
    seed: int,
    progress: Progress = lambda _: None,
) -> Sample:
    """Sample the uses of words, up to ``most`` in all and the same number for each word.

    Args:
        cache: a cache of token or word vectors that keeps its texts.
        words: the words, in any letter case.
        layer: the layer whose vectors are returned.
        most: maximum number of uses.
        seed: seed of the sample.
        progress: called with the number of texts read so far.

    Raises:
        QueryError: a word does not occur, or the cache has one vector for each text.
        CacheError: the cache is damaged, does not keep its texts, or holds NaN or infinity.
    """
    if cache.unit == "sentence":
        raise QueryError(
            f"{cache.path}: this cache has one vector for each text, so it has no uses of words; show "
            "its texts with --texts, or embed with embed.unit=token"
        )
    keys = {word_key(word): word for word in words}
    drawn: dict[str, Reservoir[Sampled]] = {
        key: Reservoir(max(1, most // len(keys)), seed) for key in keys
    }
    for number, (raw, labels, vectors) in enumerate(cache.entries(), 1):
        progress(number)
        text, starts = joined_text(labels)
        found = find_words(text, starts, list(keys))
        for word in found:
            key = word_key(text[word.start : word.end])
            if key in drawn:
                drawn[key].add(
                    lambda w=word, k=key, t=text, v=vectors, r=raw: Sampled(  # type: ignore[misc]
                        keys[k],
                        solid(r),
                        snippet(t, w.start, w.end, AROUND),
                        _finite(layer.words(v, [w])[0], cache.path),
                    )
                )
    for key, one in drawn.items():
        if not one.seen:
            raise QueryError(
                f"{cache.path}: '{shown(keys[key])[:40]}' does not occur in the texts of this cache; "
                "name a word as it stands in them"
            )
    return _sample({keys[key]: one for key, one in drawn.items()})


def sample_texts(
    cache: VectorCache,
    layer: CacheLayer,
    most: int,
    seed: int,
    progress: Progress = lambda _: None,
) -> Sample:
    """Sample the texts that have a vector; arguments and errors as in `sample_uses`."""
    drawn: Reservoir[Sampled] = Reservoir(most, seed)
    for number, (raw, _, vectors) in enumerate(cache.entries(), 1):
        progress(number)
        if vectors.shape[1]:
            drawn.add(
                lambda r=raw, v=vectors: Sampled(  # type: ignore[misc]
                    "", solid(r), _start_of(joined(r)), _finite(layer.text(v), cache.path)
                )
            )
    return _sample({"": drawn})


def _sample(drawn: dict[str, Reservoir[Sampled]]) -> Sample:
    kept = [
        one for group in drawn.values() for one in sorted(group.kept.values(), key=lambda o: o[0])
    ]
    return Sample(
        tuple(item for _, item in kept), {group: one.seen for group, one in drawn.items()}
    )


def _start_of(text: str) -> Snippet:
    line = shown(text).strip()
    return Snippet(line[:SHOWN] + "…" * (len(line) > SHOWN), "", "")


def _finite(vector: Floats, path: str) -> Floats:
    if not np.isfinite(vector).all():
        raise not_finite(path)
    return vector
