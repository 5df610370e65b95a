"""Words as sequences of Unicode characters of a dictionary, as ELMoForManyLangs reads them.

The ids of a word are its begin mark, its characters, its end mark, then padding. If the model also has a
vector for each word of a vocabulary, the number of the word stands in place of the begin mark, which is
the same for all words.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from preprocess.tokenizers.base import BOS, EOS, Ids
from preprocess.tokenizers.spellings import MARKS, Characters

UNKNOWN_CHARACTER, TEXT_BEGIN, TEXT_END, WORD_BEGIN, WORD_END, PAD = range(6)
"""The first character ids. Those of the characters of the dictionary follow."""

SPECIAL = 6
"""Number of character ids that are not a character of the dictionary."""

BOUNDARIES = {"<bos>": BOS, "<eos>": EOS}
"""Words that ELMoForManyLangs reads as the begin and the end of a text, wherever they are."""


class DictionarySpeller:
    """The `Speller` of Unicode characters; a character outside the dictionary is `UNKNOWN_CHARACTER`.

    Args:
        code_points: the characters of the dictionary, increasing, at least one; int64 (characters,).
        max_characters: positions of a word, marks included.
        find: returns the ids of words in the vocabulary. A longer word is first cut to the characters
            that are read. None means that the model has no word vectors.
    """

    pad, dtype = PAD, np.uint32

    def __init__(
        self,
        code_points: npt.NDArray[np.int64],
        max_characters: int,
        find: Callable[[Sequence[str]], Ids] | None,
    ) -> None:
        self._code_points, self._max_characters, self._find = code_points, max_characters, find

    def spell(self, words: Sequence[str]) -> Characters:
        limit = self._max_characters - MARKS
        cut = [word[:limit] for word in words]
        lengths = np.fromiter(map(len, cut), np.int64, len(cut))  # (words,)
        # A lone surrogate is a character as any other.
        text = "".join(cut).encode("utf-32-le", "surrogatepass")
        found = np.frombuffer(text, "<u4").astype(np.int64)  # (characters of all words,)
        places = np.searchsorted(self._code_points, found).clip(max=len(self._code_points) - 1)
        known = self._code_points[places] == found
        rows = np.full((len(cut), self._max_characters), PAD, np.uint32)
        inside = np.arange(limit) < lengths[:, None]  # (words, limit)
        rows[:, 1:-1][inside] = np.where(known, SPECIAL + places, UNKNOWN_CHARACTER)
        rows[np.arange(len(cut)), lengths + 1] = WORD_END
        rows[:, 0] = WORD_BEGIN if self._find is None else self._number(self._find(cut))
        for row, word in zip(rows, cut, strict=True):
            if word in BOUNDARIES:
                row[:] = self.boundary(BOUNDARIES[word])
        return rows

    def boundary(self, token: int) -> Characters:
        row = np.full(self._max_characters, PAD, np.uint32)
        row[:3] = WORD_BEGIN, TEXT_BEGIN if token == BOS else TEXT_END, WORD_END
        if self._find is not None:
            row[0] = self._number(token)
        return row

    def truncates(self, word: str) -> bool:
        return len(word) > self._max_characters - MARKS

    def _number(self, ids: Ids | int) -> Ids | int:
        """Return the character ids that stand for the words of a vocabulary."""
        return SPECIAL + len(self._code_points) + ids
