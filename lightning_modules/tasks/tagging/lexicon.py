"""The words and characters of a training file, by which a tagger knows words by itself."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

PADDING, UNKNOWN = 0, 1
FIRST = 2
"""The id of the first word and of the first character."""
LONGEST = 24
"""Characters of a word that are read: the first half and the last half of a longer word."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lexicon:
    """The words and characters that a tagger has vectors of.

    Words are in lower case, with each digit as 0, because their characters tell the rest.

    Attributes:
        words: the words, the most frequent first.
        characters: the characters, the most frequent first.
        repeated: number of words that occur more than once; the others are at the end of ``words``.
    """

    words: tuple[str, ...]
    characters: tuple[str, ...]
    repeated: int

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]]) -> Self:
        """Collect the words and characters of sentences; a character must occur twice."""
        words, characters = Counter[str](), Counter[str]()
        for tokens in sentences:
            words.update(map(normal_form, tokens))
            characters.update("".join(tokens))
        ordered = sorted(words, key=lambda word: (-words[word], word))
        return cls(
            tuple(ordered),
            tuple(
                sorted(
                    (one for one, count in characters.items() if count > 1),
                    key=lambda one: (-characters[one], one),
                )
            ),
            sum(count > 1 for count in words.values()),
        )

    @cached_property
    def _word_ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, FIRST)}

    @cached_property
    def _character_ids(self) -> dict[str, int]:
        return {one: number for number, one in enumerate(self.characters, FIRST)}

    def word_ids(self, tokens: Sequence[str]) -> Ids:
        """Return the id of each word, int64 (words,)."""
        known = self._word_ids
        return np.array([known.get(normal_form(one), UNKNOWN) for one in tokens], np.int64)

    def character_ids(self, tokens: Sequence[str]) -> Ids:
        """Return the ids of each word's characters, int64 (words, `LONGEST`), padded at the end."""
        found = np.zeros((len(tokens), LONGEST), np.int64)
        known, half = self._character_ids, LONGEST // 2
        for row, token in enumerate(tokens):
            read = token if len(token) <= LONGEST else token[:half] + token[-half:]
            found[row, : len(read)] = [known.get(one, UNKNOWN) for one in read]
        return found

    def is_known(self, token: str) -> bool:
        """Return whether a word is in the training file, apart from case and digits."""
        return normal_form(token) in self._word_ids


def normal_form(token: str) -> str:
    """Return a word in lower case, with each digit as 0 (Lample et al. 2016)."""
    return "".join("0" if one.isdigit() else one for one in token.lower())
