"""One vector for each word, whatever its uses: its vector in layer 0, or the mean of its uses."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from preprocess.vectors.codec import Vectors
from preprocess.vectors.search.layer import CacheLayer, unit_length
from preprocess.vectors.word_sample import AROUND, Floats, Word, shown, word_key

MOST_BYTES = 1 << 28
"""Maximum size of the vectors that are kept; words that occur first after it is reached have none."""


class StaticWords:
    """A vector for each word of a cache, collected while the cache is read.

    Args:
        is_mean: collect the mean vector of each word in the layer that is searched, instead of its
            vector in layer 0.
    """

    def __init__(self, is_mean: bool) -> None:
        self._is_mean = is_mean
        self._keys: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._spellings: dict[str, str] = {}
        self._vectors = np.empty((0, 0), np.float32)
        self._counts = np.empty(0, np.int64)

    def key(self, spelling: str) -> str:
        """Return `word_key` of a spelling; it is computed once for each spelling."""
        key = self._keys.get(spelling)
        if key is None:
            key = self._keys[spelling] = word_key(spelling)
            self._spellings.setdefault(key, spelling)
        return key

    def spelling(self, key: str) -> str:
        """Return the first spelling of a word."""
        return self._spellings[key]

    def add(
        self,
        keys: Sequence[str],
        words: Sequence[Word],
        vectors: Vectors,
        rows: Floats,
        layer: CacheLayer,
    ) -> None:
        """Consider the words of a text.

        Args:
            keys: key of each word.
            words: the words.
            vectors: vectors of the text, shape (layers, units, dim).
            rows: vector of each word in the layer that is searched, shape (words, dim).
            layer: that layer.
        """
        for n, key in enumerate(keys):
            number = self._numbers.get(key)
            if number is None:
                row = rows[n] if self._is_mean else layer.static_word(vectors, words[n])
                if 4 * len(self._numbers) * len(row) >= MOST_BYTES:
                    continue
                number = self._numbers[key] = len(self._numbers)
                self._grow(len(row))
                self._vectors[number] = row
                self._counts[number] = 1
            elif self._is_mean:
                self._vectors[number] += rows[n]
                self._counts[number] += 1

    def _grow(self, dim: int) -> None:
        if len(self._numbers) > len(self._vectors):
            size = max(1024, 2 * len(self._vectors))
            larger, counts = np.zeros((size, dim), np.float32), np.zeros(size, np.int64)
            larger[: len(self._vectors)] = self._vectors.reshape(-1, dim)
            counts[: len(self._counts)] = self._counts
            self._vectors, self._counts = larger, counts

    def table(self) -> "WordTable":
        """Return the words that have a vector, in the order of their first occurrence."""
        size = len(self._numbers)
        counts = np.maximum(self._counts[:size, None], 1)
        return WordTable(
            list(self._numbers),
            [self._spellings[key] for key in self._numbers],
            np.asarray(self._vectors[:size] / counts, np.float32),
        )


@dataclass(frozen=True)
class WordTable:
    """Words with one vector each.

    Attributes:
        keys: key of each word.
        spellings: its first spelling.
        vectors: its vector, shape (words, size).
    """

    keys: Sequence[str]
    spellings: Sequence[str]
    vectors: Floats

    def nearest(
        self, word: str, query: Floats | None, known: Container[str], neighbours: int
    ) -> tuple[tuple[str, float], ...]:
        """Return the words nearest to a word, as first spelt, with the cosine of centred vectors.

        Args:
            word: key of the word, which is left out.
            query: vector of the word, shape (size,); None for its vector in the table.
            known: keys of the words that may be returned.
            neighbours: maximum number of words.
        """
        if query is None and word in self.keys:
            query = self.vectors[self.keys.index(word)]
        if query is None or not len(self.vectors):
            return ()
        mean = self.vectors.mean(0) if len(self.vectors) > 1 else np.zeros_like(query)
        cosines = unit_length(self.vectors - mean) @ unit_length(query - mean)
        found: list[tuple[str, float]] = []
        for n in np.argsort(-cosines, kind="stable").tolist():
            if len(found) == neighbours:
                break
            if self.keys[n] in known and self.keys[n] != word:
                found.append((shown(self.spellings[n])[:AROUND], float(cosines[n])))
        return tuple(found)
