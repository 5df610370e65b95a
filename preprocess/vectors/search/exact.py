"""Exact search of a vector cache by a use of a word or by a text.

The cache is read once, text by text, so that a cache of any size can be searched in bounded memory. All
cosine similarities are those of centred vectors: the mean vector, which all vectors have in common, is
subtracted first.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.vectors.cache import VectorCache
from preprocess.vectors.codec import CacheError, Vectors
from preprocess.vectors.neighbours import Neighbour, least_count
from preprocess.vectors.search.layer import CacheLayer, unit_length
from preprocess.vectors.search.marked_text import MarkedText, QueryError
from preprocess.vectors.search.nearest import NearestByKey
from preprocess.vectors.search.static_words import StaticWords
from preprocess.vectors.word_sample import (
    Floats,
    Snippet,
    Word,
    find_words,
    has_spaces,
    joined_text,
    shown,
    snippet,
    word_key,
)

KEPT = 2000
"""Minimum number of words whose nearest use is remembered while a cache is read. Afterwards, words that
are too rare are left out."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class WordQuery:
    """A use of a word to search for.

    Attributes:
        text: the text, as `solid` gives it; uses in this text are left out.
        word: the key of the word.
        vector: vector of the word in this text, shape (dim,).
        static: vector of the word in layer 0, shape (dim,) or (dim / 2,); None if the cache has no
            layer 0.
        spelling: the word as the text spells it.
    """

    text: str
    word: str
    vector: Floats
    static: Floats | None
    spelling: str

    @classmethod
    def of(
        cls, marked: MarkedText, spellings: Sequence[str], vectors: Vectors, layer: CacheLayer
    ) -> "WordQuery":
        """Return the query of a marked word.

        Args:
            marked: the text with the word.
            spellings: spellings of its units.
            vectors: vectors of its units in the layers of the cache, shape (layers, units, dim).
            layer: the layer to search.

        Raises:
            QueryError: the units do not spell the word, or several words are marked.
        """
        word, spelling = marked.word_in(spellings)
        static = layer.static_word(vectors, word) if layer.static is not None else None
        [vector] = layer.words(vectors, [word])
        return cls(solid(marked.text), word_key(spelling), vector, static, spelling)


@dataclass(frozen=True)
class WordNeighbours:
    """What is nearest to a use of a word.

    Attributes:
        occurrences: how often the word occurs in the cache; an exact search does not count the query's
            own text.
        searched: number of occurrences of all words that were compared.
        same: uses of the same word, one for each pair of adjacent words, the nearest first.
        others: uses of other words, one for each word, the nearest first.
        static: the nearest words in layer 0, where a word has one vector for all its uses, with their
            cosine similarity; without layer 0, the words with the nearest mean vector.
        static_is_mean: True if ``static`` compares mean vectors.
    """

    occurrences: int
    searched: int
    same: tuple[Neighbour, ...]
    others: tuple[Neighbour, ...]
    static: tuple[tuple[str, float], ...]
    static_is_mean: bool


@dataclass(frozen=True)
class NearText:
    """A text near to a query, on one line, with the cosine similarity of the centred vectors."""

    cosine: float
    text: str


@dataclass(frozen=True)
class ExactSearch:
    """Search of a layer of a cache by reading all of it.

    Attributes:
        cache: a cache that keeps its texts.
        layer: the layer to search.
        progress: called with the number of texts read so far.
    """

    cache: VectorCache
    layer: CacheLayer
    progress: Progress = lambda _: None

    def nearest_uses(self, query: WordQuery, neighbours: int) -> WordNeighbours:
        """Find the uses of words that are nearest to a use of a word.

        The characters and pieces of the word itself are left out, and so are other words that occur too
        rarely in the cache.

        Args:
            query: the use to search for.
            neighbours: maximum number of uses or words in each list.

        Raises:
            CacheError: the cache is damaged, does not keep its texts, or holds NaN or infinity.
            QueryError: the cache has one vector for each text.
        """
        if self.cache.unit == "sentence":
            raise QueryError(
                f"{self.cache.path}: this cache has one vector for each text, so no word can be searched for; "
                "leave out the brackets to search by the text, or embed with embed.unit=token"
            )
        mean = self.layer.mean(self.cache)
        wanted = unit_length(query.vector - mean)
        same: NearestByKey[Snippet] = NearestByKey(max(KEPT, 20 * neighbours))
        others: NearestByKey[Snippet] = NearestByKey(max(KEPT, 20 * neighbours))
        static = StaticWords(is_mean=query.static is None)
        counts: Counter[str] = Counter()
        pieces = {query.word}
        for number, (raw, labels, vectors) in enumerate(self.cache.entries(), 1):
            self.progress(number)
            text, starts = joined_text(labels)
            words = find_words(text, starts, [query.word])
            if not words or solid(raw) == query.text:
                continue
            keys = [static.key(text[word.start : word.end]) for word in words]
            counts.update(keys)
            pieces |= own_pieces(query.word, keys, words, has_spaces(text, starts))
            rows = self.layer.words(vectors, words)
            static.add(keys, words, vectors, rows, self.layer)
            cosines = cosines_to(wanted, rows - mean, self.cache.path)
            for n in np.flatnonzero(cosines > min(same.least, others.least)).tolist():
                word = words[n]
                key: Hashable = keys[n]
                found = others
                if keys[n] == query.word:
                    found = same
                    key = around(keys, words, n)
                found.add(key, float(cosines[n]), lambda w=word, t=text: snippet(t, w.start, w.end))  # type: ignore[misc]
        total = counts.total()
        least = least_count(total)
        known = {key for key, count in counts.items() if count >= least} - pieces
        return WordNeighbours(
            counts[query.word],
            total,
            tuple(Neighbour(one.cosine, one.item) for one in same.ordered()[:neighbours]),
            tuple(
                [Neighbour(one.cosine, one.item) for one in others.ordered() if one.key in known][
                    :neighbours
                ]
            ),
            static.table().nearest(query.word, query.static, known, neighbours),
            query.static is None,
        )

    def nearest_texts(self, text: str, vector: Floats, neighbours: int) -> list[NearText]:
        """Find the texts that are nearest to a text.

        Args:
            text: the text to search for; the same text in the cache is left out.
            vector: its vector, as `CacheLayer.text` gives it, shape (dim,).
            neighbours: maximum number of texts.

        Raises:
            CacheError: the cache is damaged, does not keep its texts, or holds NaN or infinity.
        """
        mean = self.layer.mean(self.cache, texts=True)
        wanted = unit_length(vector - mean)
        found: NearestByKey[str] = NearestByKey(neighbours)
        own = solid(text)
        for number, (raw, _, vectors) in enumerate(self.cache.entries(), 1):
            self.progress(number)
            if vectors.shape[1]:
                cosine = float(
                    cosines_to(wanted, self.layer.text(vectors)[None] - mean, self.cache.path)[0]
                )
                key = solid(raw) if cosine > found.least else ""
                if key and key != own:
                    found.add(key, cosine, lambda raw=raw: shown(joined(raw)))  # type: ignore[misc]
        return [NearText(one.cosine, one.item) for one in found.ordered()[:neighbours]]


def around(keys: Sequence[str], words: Sequence[Word], number: int) -> tuple[str, str]:
    """Return the keys of the words before and after a word of a text; "" at an end of the text.

    Words that overlap, such as the characters of the word, are passed over.
    """
    one = words[number]
    before = (n for n in range(number - 1, -1, -1) if words[n].end <= one.start)
    after = (n for n in range(number + 1, len(words)) if words[n].start >= one.end)
    return tuple(keys[n] if n >= 0 else "" for n in (next(before, -1), next(after, -1)))  # type: ignore[return-value]


def own_pieces(word: str, keys: Sequence[str], words: Sequence[Word], spaced: bool) -> set[str]:
    """Return the keys of a text that are characters or pieces of a word, or tokens that overlap it.

    Args:
        word: key of the word.
        keys: key of each word of the text.
        words: the words of the text, in reading order.
        spaced: True if words stand between spaces; then no word is a piece of another.
    """
    if spaced:
        return set()
    found = {key for key in keys if key in word}
    own = [one for one, key in zip(words, keys, strict=True) if key == word]
    for one, key in zip(words, keys, strict=True) if own else ():
        if any(one.start < other.end and other.start < one.end for other in own):
            found.add(key)
    return found


def cosines_to(wanted: Floats, centred: Floats, path: str) -> Floats:
    """Return the cosine similarity of each row with a vector of length 1, shape (rows,).

    Raises:
        CacheError: a row holds NaN or infinity.
    """
    norms = np.linalg.norm(centred, axis=1)
    if not np.isfinite(norms).all():
        raise not_finite(path)
    return np.asarray(centred @ wanted / np.maximum(norms, 1e-12), np.float32)


def not_finite(path: str) -> CacheError:
    """Return the error for a cache whose vectors hold NaN or infinity."""
    return CacheError(
        f"{path}: a vector holds NaN or infinity; make the cache again with `biloom embed --overwrite`"
    )


def joined(text: str | Sequence[str]) -> str:
    """Return a text of a cache as a string."""
    return text if isinstance(text, str) else " ".join(text)


def solid(text: str | Sequence[str]) -> str:
    """Return a text without spaces and letter case, to tell whether two texts are the same."""
    return word_key("".join(joined(text).split()))
