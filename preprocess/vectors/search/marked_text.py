"""A text in which one word may be marked by brackets, as in "the [bank] of the river"."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from preprocess.errors import UserError, one_line
from preprocess.vectors.word_sample import (
    Word,
    bare,
    find_words,
    has_spaces,
    joined_text,
    word_key,
)

_BRACKET = re.compile(r"\\([\[\]\\])|([\[\]])")


class QueryError(UserError):
    """A search that names no word or text that can be searched for."""


@dataclass(frozen=True)
class MarkedText:
    """A text, and the word in it that is searched for.

    Attributes:
        text: the text without the brackets.
        start: index of the first character of the word.
        end: index after the last character of the word; equal to ``start`` if no word is marked.
    """

    text: str
    start: int = 0
    end: int = 0

    @property
    def word(self) -> str:
        """The marked word, or "" if no word is marked."""
        return self.text[self.start : self.end]

    @classmethod
    def parse(cls, written: str) -> "MarkedText":
        r"""Read a text as a user writes it. ``\[`` and ``\]`` are brackets of the text itself.

        Raises:
            QueryError: the text is empty, or its brackets do not enclose exactly one word.
        """
        text, marks, place = "", [], 0
        for match in _BRACKET.finditer(written):
            text += written[place : match.start()] + (match[1] or "")
            place = match.end()
            if match[2]:
                marks.append((match[2], len(text)))
        text += written[place:]
        if not text.strip():
            raise QueryError(
                "the text to search for is empty; write a text, or mark a word: the [bank]"
            )
        if not marks:
            return cls(text)
        if [sign for sign, _ in marks] != ["[", "]"]:
            raise QueryError(
                f"'{one_line(written)[:80]}' must mark one word, as in the [bank] of the river; write "
                "\\[ and \\] for brackets that belong to the text"
            )
        start, end = (at for _, at in marks)
        word = text[start:end]
        start += len(word) - len(word.lstrip())
        end -= len(word) - len(word.rstrip())
        if start >= end:
            raise QueryError(
                f"'{one_line(written)[:80]}': the brackets are empty; put the word to search for in them"
            )
        return cls(text, start, end)

    def word_in(self, spellings: Sequence[str]) -> tuple[Word, str]:
        """Return the word that is searched for among the units of this text, and its spelling.

        Punctuation at its ends is left out. If spaces separate the words of the text, a marked part of
        a word stands for the whole word.

        Args:
            spellings: as in `find_in`.

        Raises:
            QueryError: as in `find_in`; or no letter or digit is marked, or several words are.
        """
        found = self.find_in(spellings)
        text, starts = joined_text(spellings)
        start, end = bare(text, found.start, found.end)
        marked = one_line(self.word)[:40]
        if start == end:
            raise QueryError(
                f"'{marked}' has no letter or digit, and is no word of a cache; mark a word"
            )
        if not has_spaces(text, starts):
            return _word(starts, start, end), text[start:end]
        words = [one for one in find_words(text, starts) if one.start < end and start < one.end]
        if len(words) > 1:
            raise QueryError(f"'{marked}' is {len(words)} words; mark one of them")
        return words[0], text[words[0].start : words[0].end]

    def find_in(self, spellings: Sequence[str]) -> Word:
        """Return the place of the marked word among the units of this text.

        A tokenizer may change spaces and normalise characters, so the word is searched for in the text
        that the units spell, and the occurrence with the most similar position is returned.

        Args:
            spellings: spellings of the tokens or words, as a cache or an `Embedding` has them.

        Raises:
            QueryError: the units do not spell the word.
        """
        text, starts = joined_text(spellings)
        wanted = _solid(self.word)
        solid, places = _solid_places(text)
        share = len(_solid(self.text[: self.start]))
        found = [match.start() for match in re.finditer(f"(?={re.escape(wanted)})", solid)]
        if not found or not wanted:
            raise QueryError(
                f"the word '{one_line(self.word)[:40]}' is not in the text after its cleaning; mark a "
                "word that the model reads"
            )
        first = min(found, key=lambda at: abs(at - share))
        start, end = places[first], places[first + len(wanted) - 1] + 1
        return _word(starts, start, end)


def _word(starts: Sequence[int], start: int, end: int) -> Word:
    begins = starts[bisect_right(starts, start) - 1]
    return Word(start, end, bisect_left(starts, begins), bisect_right(starts, end - 1) - 1)


def _solid(text: str) -> str:
    return _solid_places(unicodedata.normalize("NFC", text))[0]


def _solid_places(text: str) -> tuple[str, list[int]]:
    """Return the casefolded characters that are not spaces, and the place of each in the text."""
    folded, places = [], []
    for at, character in enumerate(text):
        if not character.isspace():
            one = word_key(character)
            folded.append(one)
            places += [at] * len(one)
    return "".join(folded), places
