"""A text as a model reads it: cleaned, its tokens, its words, and which tokens each word has."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from preprocess.text.cleaning import Cleaner
from preprocess.tokenizers.base import UNKNOWN, Token
from preprocess.tokenizers.load import Tokenizer

NO_ID = -1
"""Of a word or a sentence where it stands in the place of a token."""


Spans = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Tokenised:
    """``words``: those that were given, or what whitespace separates; their places are in ``text``.

    Every word has a token.
    """

    text: str
    tokens: tuple[Token, ...]
    words: tuple[Token, ...]

    def word_spans(self) -> Spans:
        """The first and the last token of each word, int64 (words,) both.

        A token that reaches into two words belongs to both.
        """
        return _spans(self.tokens, self.words)


def _spans(tokens: Sequence[Token], words: Sequence[Token]) -> Spans:
    """As `Tokenised.word_spans`; a word without token has a first beyond its last."""
    starts, ends = _places(tokens)
    word_starts, word_ends = _places(words)
    # A word has the tokens that end after its start and start before its end; those without extent
    # (bytes of a character, a word of which nothing is left) stand at an edge.
    begun, over = np.searchsorted(starts, word_starts), np.searchsorted(ends, word_starts, "right")
    inside = np.searchsorted(starts, word_ends), np.searchsorted(ends, word_ends, "right")
    return np.minimum(begun, over), np.maximum(*inside) - 1


def _places(tokens: Sequence[Token]) -> Spans:
    count = len(tokens)
    return (
        np.fromiter((token.start for token in tokens), np.int64, count),
        np.fromiter((token.end for token in tokens), np.int64, count),
    )


class TextAligner:
    """Texts, or lists of words, to their tokens; cleaned as training text was."""

    def __init__(self, cleaner: Cleaner, tokenizer: Tokenizer) -> None:
        self._cleaner, self._tokenizer = cleaner, tokenizer

    def read(self, texts: Iterable[str | Sequence[str]]) -> list[Tokenised]:
        """Each text in order.

        A list of words is read as its words joined by spaces, but every word keeps a token: one of
        which cleaning leaves nothing counts as unknown. With a `word` tokenizer a given word is one
        token, whatever whitespace is in it.

        Raises:
            TypeError: a text is neither a string nor a list of strings.
        """
        texts = list(texts)
        for text in texts:
            if not (isinstance(text, str) or _is_words(text)):
                raise TypeError("a text is a string or a list of strings, its words")
        strings = [text for text in texts if isinstance(text, str)]
        cleaned = iter(self._cleaner.clean_batch(strings))
        return [
            self._of_text(next(cleaned)) if isinstance(text, str) else self._of_words(text)
            for text in texts
        ]

    def _of_text(self, text: str) -> Tokenised:
        words, place = [], 0
        for word in text.split():
            start = text.index(word, place)
            place = start + len(word)
            words.append(Token(NO_ID, word, start, place))
        tokens = self._tokenizer.tokens(text)
        bare = {*_without_token(tokens, words)}
        return Tokenised(text, tuple(tokens), tuple(word for word in words if word not in bare))

    def _of_words(self, given: Sequence[str]) -> Tokenised:
        cleaned = self._cleaner.clean_batch(list(given))
        text = " ".join(cleaned)
        words, place = [], 0
        for word in cleaned:
            words.append(Token(NO_ID, word, place, place + len(word)))
            place += len(word) + 1
        tokens = self._tokenizer.tokens(text)
        if self._tokenizer.kind == "word":
            tokens = self._one_a_word(words, tokens)
        elif bare := _without_token(tokens, words):
            unknown = [replace(word, id=UNKNOWN) for word in bare]
            tokens = sorted([*tokens, *unknown], key=lambda token: (token.start, token.end))
        return Tokenised(text, tuple(tokens), tuple(words))

    @staticmethod
    def _one_a_word(words: Sequence[Token], tokens: Sequence[Token]) -> list[Token]:
        by_start = {token.start: token for token in tokens}
        found = []
        for word in words:
            token = by_start.get(word.start)
            if token is None or token.spelling != word.spelling:
                token = Token(UNKNOWN, word.spelling, word.start, word.end)
            found.append(token)
        return found


def _is_words(text: object) -> bool:
    return isinstance(text, Sequence) and all(isinstance(word, str) for word in text)


def _without_token(tokens: Sequence[Token], words: Sequence[Token]) -> list[Token]:
    first, last = _spans(tokens, words)
    return [words[number] for number in np.flatnonzero(first > last).tolist()]
