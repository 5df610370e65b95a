"""The limit of the length of a served text, before and after it is tokenised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from lightning_modules.vectors.selection import Text
from preprocess.errors import UserError
from preprocess.tokenizers.aligned_text import Tokenised

CHARACTERS = 64
"""Characters for each allowed token; a text that has more of them is too long."""
WORDS = 2
"""The same for white-space separated words. A word has at least one token, unless cleaning removes it."""


class LongTextError(UserError):
    """Raised for a text of more tokens, or cached vectors of more numbers, than allowed."""


@dataclass(frozen=True)
class Limit:
    """Limit of the length of a text.

    Attributes:
        tokens: largest number of tokens.
        truncate: whether to cut a longer text, instead of refusing it.
        values: largest number of values that are read from the cache.
    """

    tokens: int
    truncate: bool = False
    values: float = math.inf

    def beginning(self, text: Text, number: int) -> Text:
        """Return the part of a text that is tokenised: all of it, or the beginning of one that is far too long.

        Tokenising a huge text only to refuse or cut it would hold up other requests.

        Args:
            text: the text.
            number: its number in the request.

        Raises:
            LongTextError: the text surely has too many tokens, and is not to be cut.
        """
        short = self._first_words(text) if isinstance(text, str) else self._first(text)
        if short != text and not self.truncate:
            raise LongTextError(
                f"`inputs[{number}]` has too many words or characters for {self.tokens:,} tokens, the limit; "
                "shorten it, or set `truncate`"
            )
        return short

    def _first_words(self, text: str) -> str:
        text = text[: CHARACTERS * self.tokens]
        words = text.split(None, WORDS * self.tokens)
        rest = words[-1] if len(words) > WORDS * self.tokens else ""
        return text[: len(text) - len(rest)]

    def _first(self, words: Sequence[str]) -> Sequence[str]:
        most = CHARACTERS * self.tokens
        ends = accumulate(map(len, words[: WORDS * self.tokens]))
        return words[: sum(end <= most for end in ends)] or [words[0][:most]]

    def cut(self, text: Tokenised, number: int) -> Tokenised:
        """Return a text with its first tokens, if it has too many.

        Args:
            text: the text.
            number: its number in the request.

        Raises:
            LongTextError: the text has too many tokens, and is not to be cut.
        """
        if len(text.tokens) <= self.tokens:
            return text
        if not self.truncate:
            raise LongTextError(
                f"`inputs[{number}]` has {len(text.tokens):,} tokens, but at most "
                f"{self.tokens:,} are allowed; shorten it, or set `truncate`"
            )
        return truncated(text, self.tokens)


def truncated(text: Tokenised, tokens: int) -> Tokenised:
    """Return the first tokens of a text, and the words that they are part of."""
    kept = text.tokens[:tokens]
    end = kept[-1].end
    words = tuple(word for word in text.words if word.start < end)
    return replace(text, text=text.text[:end], tokens=kept, words=words)
