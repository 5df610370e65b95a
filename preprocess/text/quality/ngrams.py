"""N-grams of words that occur more than once in a text.

An n-gram can only be repeated if both (n-1)-grams in it are. So all 2-grams are compared, and of each
larger size only the few that can be repeated.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.text.quality.hashing import Hashes, equal_pairs, ngram_factor, scrambled, text_keys
from preprocess.text.quality.layout import Positions, Spans

Numbers = npt.NDArray[np.int64]


class RepeatedNgrams(NamedTuple):
    """The n-grams of one size that occur more than once in a text.

    An occurrence is given by the index of its first word. The occurrences of an n-gram follow one
    another, in the order of the text.

    Attributes:
        size: number of words n.
        later: each occurrence but the first one of its n-gram, shape (pairs,).
        earlier: the last occurrence before it, shape (pairs,).
    """

    size: int
    later: Positions
    earlier: Positions

    def different(self) -> tuple[Positions, Numbers]:
        """Return the first occurrence of each n-gram, and its number of occurrences, shape (n-grams,)."""
        if not len(self.later):
            return self.later, self.later
        begins = np.flatnonzero(np.append(True, self.later[:-1] != self.earlier[1:]))
        return self.earlier[begins], np.diff(begins, append=len(self.later)) + 1


def repeated_ngrams(hashes: Hashes, words: Spans, largest: int) -> Iterator[RepeatedNgrams]:
    """Yield the repeated n-grams of each size from 2 to ``largest``; it ends where none is left.

    Args:
        hashes: hash of each word, shape (words,).
        words: the words.
        largest: the largest size in words.
    """
    places = np.arange(max(len(hashes) - 1, 0))
    # With the key of the text in the sum, equal n-grams of two texts have different hashes.
    sums = hashes[:-1] + np.repeat(text_keys(len(words.numbers)), words.numbers)[:-1]
    sums += hashes[1:] * ngram_factor(1)
    last = words.bounds[1:-1] - 1
    last = last[(last >= 0) & (last < len(sums))]
    sums[last] = scrambled(last.astype(np.uint64))  # These n-grams reach into the next text.
    for size in range(2, largest + 1):
        later, earlier = equal_pairs(sums)
        yield RepeatedNgrams(size, places[later], places[earlier])
        repeated = np.zeros(len(sums), bool)
        repeated[later] = repeated[earlier] = True
        chosen = np.flatnonzero(repeated)
        chosen = chosen[:-1][np.diff(places[chosen]) == 1]
        if not len(chosen):
            return
        places = places[chosen]
        sums = sums[chosen] + hashes[places + size] * ngram_factor(size)
