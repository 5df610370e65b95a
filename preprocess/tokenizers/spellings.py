"""Words as sequences of character ids, the input of a character CNN.

A word is represented by its UTF-8 bytes between a begin mark and an end mark. Bytes that do not fit
into the fixed length are cut off.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.tokenizers.base import BOS, EOS

# Character ids are byte values and marks, as in ELMo's training code (bilm-tf,
# `UnicodeCharsVocabulary`); in ELMo's weight files each is one higher.
TEXT_BEGIN, TEXT_END = 256, 257
"""The only character of <s> and of </s>, between the marks of a word."""

WORD_BEGIN, WORD_END = 258, 259
"""The first and the last character of every word."""

PAD = 260
"""Id of the positions after the end mark of a word."""

CHARACTERS = 261
"""Number of character ids."""

MARKS = 2
"""Positions taken by the marks of a word."""

KEPT_BYTES = 1 << 24
"""Size of the table of spellings kept in memory: with 50 positions, the first 160,000 ids."""

Characters = npt.NDArray[np.uint16]

Spelling = Callable[[int], str]
"""Returns the spelling of an id: `Tokenizer.spelling`."""


def spell(words: Sequence[str], max_characters: int) -> Characters:
    """Return the character ids of words, uint16, shape (words, max_characters), padded with PAD."""
    limit = max_characters - MARKS
    # Lone surrogates have no UTF-8 form and are left out, as in bilm-tf.
    spelt = [word.encode("utf-8", "ignore")[:limit] for word in words]
    lengths = np.fromiter(map(len, spelt), np.int64, len(spelt))  # (words,)
    rows = np.full((len(spelt), max_characters), PAD, np.uint16)
    rows[:, 0] = WORD_BEGIN
    inside = np.arange(limit) < lengths[:, None]  # (words, limit)
    rows[:, 1:-1][inside] = np.frombuffer(b"".join(spelt), np.uint8)
    rows[np.arange(len(spelt)), lengths + 1] = WORD_END
    return rows


class Spellings:
    """Character ids of the tokens of a vocabulary, cached for the lowest ids.

    Low ids are assumed to be the frequent ones. The cache takes at most `KEPT_BYTES` of memory.

    Args:
        spelling: returns the spelling of an id.
        vocabulary: number of ids.
        max_characters: positions of a word, marks included.

    Attributes:
        spelling, max_characters: the arguments.
    """

    def __init__(self, spelling: Spelling, vocabulary: int, max_characters: int) -> None:
        self.spelling, self.max_characters = spelling, max_characters
        kept = min(vocabulary, KEPT_BYTES // (2 * max_characters))
        self._rows = np.empty((kept, max_characters), np.uint16)
        self._known = np.zeros(kept, bool)

    def of_ids(self, ids: npt.NDArray[np.int64]) -> Characters:
        """Return the character ids of tokens, uint16, shape (ids, max_characters).

        Args:
            ids: distinct token ids, shape (ids,).
        """
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
        rows = spell([self.spelling(token) for token in ids.tolist()], self.max_characters)
        for control, character in ((BOS, TEXT_BEGIN), (EOS, TEXT_END)):
            # By id, because a text may contain a word that is spelt like a control token.
            rows[ids == control] = PAD
            rows[ids == control, :3] = WORD_BEGIN, character, WORD_END
        return rows


class Truncated(NamedTuple):
    """How many types, and how many tokens of a corpus, are too long for a character CNN."""

    types: int
    tokens: int


def truncated(spelling: Spelling, counts: npt.NDArray[np.uint64], max_characters: int) -> Truncated:
    """Count the types and tokens of a corpus that `spell` truncates.

    Args:
        spelling: returns the spelling of an id.
        counts: occurrences of each id in the corpus, shape (vocabulary,).
        max_characters: positions of a word, marks included.
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
