"""Words as a character CNN reads them: the bytes of UTF-8 between two marks, cut where too many."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.tokenizers.base import BOS, EOS

# The numbers that words are spelled with: a byte of UTF-8 is its value, the others are marks. They
# are those of ELMo (bilm-tf, `UnicodeCharsVocabulary`) in training; its weight files count from 1.
TEXT_BEGIN, TEXT_END = 256, 257
"""In place of the bytes of <s> and </s>."""

WORD_BEGIN, WORD_END = 258, 259
PAD = 260
"""After a word's end."""

CHARACTERS = 261
"""Different numbers."""

MARKS = 2
"""Positions of a word that its marks take."""

KEPT_BYTES = 1 << 24
"""Characters kept in memory, in bytes: with 50 positions, those of the first 160,000 ids."""

Characters = npt.NDArray[np.uint16]

Spelling = Callable[[int], str]
"""How an id is written: `Tokenizer.spelling`."""


def spell(words: Sequence[str], max_characters: int) -> Characters:
    """(words, max_characters) the characters of each word, PAD after its end."""
    limit = max_characters - MARKS
    # What is no Unicode (a lone surrogate) is left out, as bilm-tf does.
    spelt = [word.encode("utf-8", "ignore")[:limit] for word in words]
    lengths = np.fromiter(map(len, spelt), np.int64, len(spelt))  # (words,)
    rows = np.full((len(spelt), max_characters), PAD, np.uint16)
    rows[:, 0] = WORD_BEGIN
    inside = np.arange(limit) < lengths[:, None]  # (words, limit)
    rows[:, 1:-1][inside] = np.frombuffer(b"".join(spelt), np.uint8)
    rows[np.arange(len(spelt)), lengths + 1] = WORD_END
    return rows


class Spellings:
    """Characters of the ids of a vocabulary; those of frequent ids are kept once they were asked for.

    Ids are taken to be roughly by falling count, as tokenizers give them; memory is bounded by
    KEPT_BYTES whatever the vocabulary.

    Attributes: max_characters, positions of a word.
    """

    def __init__(self, spelling: Spelling, vocabulary: int, max_characters: int) -> None:
        self._spelling, self.max_characters = spelling, max_characters
        kept = min(vocabulary, KEPT_BYTES // (2 * max_characters))
        self._rows = np.empty((kept, max_characters), np.uint16)
        self._known = np.zeros(kept, bool)

    def of_ids(self, ids: npt.NDArray[np.int64]) -> Characters:
        """(ids, max_characters) the characters of different ids, PAD after a word's end."""
        kept = ids < len(self._rows)
        frequent = ids[kept]
        new = frequent[~self._known[frequent]]
        self._rows[new] = self._spell(new)
        self._known[new] = True
        rows = np.empty((len(ids), self.max_characters), np.uint16)
        rows[kept] = self._rows[frequent]
        rows[~kept] = self._spell(ids[~kept])
        return rows

    def _spell(self, ids: npt.NDArray[np.int64]) -> Characters:
        rows = spell([self._spelling(token) for token in ids.tolist()], self.max_characters)
        for control, character in ((BOS, TEXT_BEGIN), (EOS, TEXT_END)):
            # By its id: a text may well hold a word that is written like it.
            rows[ids == control] = PAD
            rows[ids == control, :3] = WORD_BEGIN, character, WORD_END
        return rows


class Truncated(NamedTuple):
    """What of a vocabulary and its text is too long for a character CNN."""

    types: int
    tokens: int


def truncated(spelling: Spelling, counts: npt.NDArray[np.uint64], max_characters: int) -> Truncated:
    """How many ids that occur are cut, and how many tokens of the text those are.

    counts: (vocabulary,), of each id.
    """
    types = tokens = 0
    for token in np.flatnonzero(counts).tolist():
        if (
            token not in (BOS, EOS)
            and len(spelling(token).encode("utf-8", "ignore")) > max_characters - MARKS
        ):
            types += 1
            tokens += int(counts[token])
    return Truncated(types, tokens)
