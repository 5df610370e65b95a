"""Words as sequences of character ids, the input of a character CNN.

A word is represented by its characters between a begin mark and an end mark. Characters that do not fit
into the fixed length are cut off. For our own models and ELMo archives a character is a UTF-8 byte.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from preprocess.tokenizers.base import BOS, EOS, Token

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
"""Size of the table of spellings kept in memory: with 50 bytes, the first 160,000 ids."""

Characters = npt.NDArray[np.unsignedinteger[Any]]

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


class Speller(Protocol):
    """A way to convert words to character ids.

    Attributes:
        pad: id of the positions after the end mark of a word.
        dtype: dtype of character ids.
    """

    pad: int
    dtype: type[np.unsignedinteger[Any]]

    def spell(self, words: Sequence[str]) -> Characters:
        """Return the character ids of words, shape (words, max_characters)."""

    def boundary(self, token: int) -> Characters:
        """Return the character ids of the control token `BOS` or `EOS`, shape (max_characters,)."""

    def truncates(self, word: str) -> bool:
        """Return True if a word is longer than the model reads."""


class ByteSpeller:
    """The `Speller` of UTF-8 bytes."""

    pad, dtype = PAD, np.uint16

    def __init__(self, max_characters: int) -> None:
        self._max_characters = max_characters

    def spell(self, words: Sequence[str]) -> Characters:
        return spell(words, self._max_characters)

    def boundary(self, token: int) -> Characters:
        row = np.full(self._max_characters, PAD, np.uint16)
        row[:3] = WORD_BEGIN, TEXT_BEGIN if token == BOS else TEXT_END, WORD_END
        return row

    def truncates(self, word: str) -> bool:
        return len(word.encode("utf-8", "ignore")) > self._max_characters - MARKS


class Spellings:
    """Character ids of the tokens of a vocabulary, cached for the lowest ids.

    Low ids are assumed to be the frequent ones. The cache takes at most `KEPT_BYTES` of memory.

    Args:
        spelling: returns the spelling of an id.
        vocabulary: number of ids.
        max_characters: positions of a word, marks included.
        speller: converts words to character ids; None means `ByteSpeller`.

    Attributes:
        spelling, max_characters, speller: the arguments.
    """

    def __init__(
        self,
        spelling: Spelling,
        vocabulary: int,
        max_characters: int,
        speller: Speller | None = None,
    ) -> None:
        self.spelling, self.max_characters = spelling, max_characters
        self.speller = speller or ByteSpeller(max_characters)
        dtype = np.dtype(self.speller.dtype)
        kept = min(vocabulary, KEPT_BYTES // (dtype.itemsize * max_characters))
        self._rows = np.empty((kept, max_characters), dtype)
        self._known = np.zeros(kept, bool)

    def of_ids(self, ids: npt.NDArray[np.int64]) -> Characters:
        """Return the character ids of tokens, shape (ids, max_characters).

        Args:
            ids: distinct token ids, shape (ids,).
        """
        kept = ids < len(self._rows)
        frequent = ids[kept]
        new = frequent[~self._known[frequent]]
        self._rows[new] = self._spell(new)
        self._known[new] = True
        rows = np.empty((len(ids), self.max_characters), self._rows.dtype)
        rows[kept] = self._rows[frequent]
        rows[~kept] = self._spell(ids[~kept])
        return rows

    def truncated(self, tokens: Iterable[Token]) -> int:
        """Return the number of tokens that are longer than the model reads."""
        return sum(self.speller.truncates(token.spelling) for token in tokens)

    def _spell(self, ids: npt.NDArray[np.int64]) -> Characters:
        rows = self.speller.spell([self.spelling(token) for token in ids.tolist()])
        for control in (BOS, EOS):
            # By id, because a text may contain a word that is spelt like a control token.
            rows[ids == control] = self.speller.boundary(control)
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
