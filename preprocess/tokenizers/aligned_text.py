"""Preparation of texts for a model: cleaning, tokenising, and finding the tokens of each word."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import isnan

import numpy as np
import numpy.typing as npt

from preprocess.text.cleaning import Cleaner
from preprocess.tokenizers.base import UNKNOWN, Token
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.segmentation.joined_words import SPACE, JoinedWords
from preprocess.tokenizers.segmentation.segmenters import SEGMENTERS, lacks_spaces, word_spans
from preprocess.tokenizers.segmentation.spanned_text import SpannedText, cleaned_places

NO_ID = -1
"""Id of a `Token` that is a word or a sentence instead of a token of the vocabulary."""

Spans = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Tokenised:
    """A cleaned text with its tokens and words.

    Attributes:
        text: the cleaned text; positions below are character offsets in it.
        tokens: the tokens in order.
        words: the words of a text that was passed as a list, cleaned; for a string, its words as
            separated by whitespace or by a segmenter. Their id is `NO_ID`, and each overlaps at least
            one token.
        lacks_spaces: whether the words are separated by whitespace, in a text that has none between
            its words (`segmenters.lacks_spaces`).
        numbers: for a `SpannedText`, the index of each of ``words`` among the given ones, of which those
            without a token are left out; empty for other texts.
    """

    text: str
    tokens: tuple[Token, ...]
    words: tuple[Token, ...]
    lacks_spaces: bool = False
    numbers: tuple[int, ...] = ()

    def word_spans(self) -> Spans:
        """Return the indices of the first and the last token of each word, int64, shape (words,).

        A token that overlaps two words belongs to both.
        """
        return _spans(self.tokens, self.words)


def _spans(tokens: Sequence[Token], words: Sequence[Token]) -> Spans:
    """Return `Tokenised.word_spans`; for a word without tokens, first > last."""
    starts, ends = _rising(*_offsets(tokens))
    word_starts, word_ends = _offsets(words)
    # A word has the tokens that end after its start and start before its end. Tokens and words of
    # length 0 (bytes of one character, a word that cleaning emptied) touch only an edge.
    begun, over = np.searchsorted(starts, word_starts), np.searchsorted(ends, word_starts, "right")
    before = np.searchsorted(starts, word_ends)
    inside = np.maximum(before, np.searchsorted(ends, word_ends, "right"))
    # Where two words touch, the tokens of length 0 between them begin the second word: all bytes of a
    # character but the last one have length 0 at its start.
    touches = np.append(word_ends[:-1] == word_starts[1:], False) & (word_ends > word_starts)
    return np.minimum(begun, over), np.where(touches, before, inside) - 1


def _rising(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> Spans:
    """Return the offsets of tokens, each moved so far that neither starts nor ends fall.

    A tokenizer.json with ``trim_offsets`` gives a space that is a token of its own the offsets [n, n)
    behind itself, although the next token may begin before n.
    """
    return np.minimum.accumulate(starts[::-1])[::-1], np.maximum.accumulate(ends)


def _offsets(tokens: Sequence[Token]) -> Spans:
    count = len(tokens)
    return (
        np.fromiter((token.start for token in tokens), np.int64, count),
        np.fromiter((token.end for token in tokens), np.int64, count),
    )


class TextAligner:
    """Cleans and tokenises texts as in training, and aligns their tokens with their words."""

    def __init__(self, cleaner: Cleaner, tokenizer: Tokenizer) -> None:
        self._cleaner, self._tokenizer = cleaner, tokenizer
        self._has_warned = False

    def warn_of_no_spaces(self, lacking: Sequence[bool]) -> None:
        """Warn that words were separated by whitespace in texts that have none between their words.

        Warns once for this object.

        Args:
            lacking: `Tokenised.lacks_spaces` of each text whose words are used.
        """
        if self._has_warned or not any(lacking):
            return
        self._has_warned = True
        warnings.warn(
            f"unit='word': {sum(lacking):,} of {len(lacking):,} texts have no spaces between words, so "
            f"a word is a whole sentence; name a segmenter ({', '.join(SEGMENTERS)}), or pass each text "
            "as a list of words",
            stacklevel=3,
        )

    def read(
        self, texts: Iterable[str | Sequence[str]], segmenter: str | None = None
    ) -> list[Tokenised]:
        """Clean and tokenise texts, and return the results in the same order.

        A list of words is tokenised as its words joined by single spaces, `JoinedWords` by their own
        separators. Every word keeps at least one token: a word that cleaning leaves empty becomes the
        unknown token. With a `word` tokenizer each word of a list is one token, even if it contains
        whitespace. A segmenter, or the places of a `SpannedText`, change the words of a string and not
        its tokens, except with a `word` tokenizer, which has been trained on segmented text: each word
        is then one token.

        Args:
            texts: each a string, a `SpannedText`, or a list of its words.
            segmenter: finds the words of other strings, one of `segmenters.SEGMENTERS`; None means
                whitespace.

        Raises:
            SegmenterError: the segmenter is unknown, or cannot be loaded.
            TypeError: a text is neither a string nor a list of strings, or ``texts`` are not a
                collection of texts.
        """
        texts = list(checked_texts(texts))
        strings = [text for text in texts if isinstance(text, str)]
        cleaned = iter(self._cleaner.clean_batch(strings))
        return [
            self._of_text(text, next(cleaned), segmenter)
            if isinstance(text, str)
            else self._of_words(text)
            for text in texts
        ]

    def _of_text(self, raw: str, text: str, segmenter: str | None) -> Tokenised:
        is_spanned = isinstance(raw, SpannedText)
        places = (
            cleaned_places(raw, text, self._cleaner.clean_batch)
            if isinstance(raw, SpannedText)
            else word_spans(text, segmenter)
        )
        words = [Token(NO_ID, text[start:end], start, end) for start, end in places]
        numbers = [number for number, word in enumerate(words) if word.spelling.strip()]
        if (is_spanned or segmenter) and self._tokenizer.kind == "word":
            kept = [words[number] for number in numbers]
            spaced = self._of_words([word.spelling for word in kept]).tokens
            placed = zip(spaced, kept, strict=True)
            tokens = [replace(token, start=word.start, end=word.end) for token, word in placed]
        else:
            tokens = self._tokenizer.tokens(text)
            first, last = _spans(tokens, words)
            numbers = [number for number in numbers if first[number] <= last[number]]
        found = tuple(words[number] for number in numbers)
        lacks = not is_spanned and not segmenter and lacks_spaces(text)
        return Tokenised(text, tuple(tokens), found, lacks, tuple(numbers) if is_spanned else ())

    def _of_words(self, raw_words: Sequence[str]) -> Tokenised:
        cleaned = self._cleaner.clean_batch(list(raw_words))
        is_word_by_word = self._tokenizer.kind == "word"
        separators = [SPACE] * (len(cleaned) - 1)
        if isinstance(raw_words, JoinedWords) and not is_word_by_word:
            separators = [*raw_words.separators]
        text = "".join(JoinedWords(cleaned, separators).pieces())
        words, start = [], 0
        for separator, word in zip(["", *separators], cleaned, strict=False):
            start += len(separator)
            words.append(Token(NO_ID, word, start, start := start + len(word)))
        tokens = self._tokenizer.tokens(text)
        if is_word_by_word:
            tokens = self._one_per_word(words, tokens)
        elif bare := _without_token(tokens, words):
            tokens = _inserted(tokens, [replace(word, id=UNKNOWN) for word in bare])
        return Tokenised(text, tuple(tokens), tuple(words))

    @staticmethod
    def _one_per_word(words: Sequence[Token], tokens: Sequence[Token]) -> list[Token]:
        by_start = {token.start: token for token in tokens}
        chosen = []
        for word in words:
            token = by_start.get(word.start)
            if token is None or token.spelling != word.spelling:
                token = replace(word, id=UNKNOWN)
            chosen.append(token)
        return chosen


def checked_texts(texts: object) -> Iterator[str | Sequence[str]]:
    """Yield texts one after the other.

    A string would be read character by character, bytes number by number, and a dictionary or a data
    frame by its keys, so they are refused.

    Raises:
        TypeError: ``texts`` are no collection of texts, or one of them is neither a string nor a
            sequence of words.
    """
    if isinstance(texts, str | bytes | bytearray):
        raise TypeError(
            f"texts must be a list of texts, not {type(texts).__name__}; write [text] for a single text"
        )
    # A pandas or polars DataFrame is iterated over by its columns.
    if hasattr(texts, "columns"):
        raise TypeError(
            f"texts must be a list of texts, not {type(texts).__name__}; pass the column of the texts, as "
            "in frame['text'], and in a ColumnTransformer 'text' instead of ['text']"
        )
    if isinstance(texts, Mapping | Set):
        raise TypeError(
            f"texts must be a list of texts, not {type(texts).__name__}, which is not a sequence of "
            "texts; pass a list, a column or a generator of strings"
        )
    if not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) == 0:
        raise TypeError(f"texts must be a list of texts, not {type(texts).__name__}")
    for number, text in enumerate(texts):
        if isinstance(text, str):
            yield text
            continue
        found = type(text).__name__
        if isinstance(text, Sequence) and not isinstance(text, bytes | bytearray | memoryview):
            strange = next((word for word in text if not isinstance(word, str)), None)
            if strange is None:
                yield text
                continue
            found = f"a {found} that holds {type(strange).__name__}"
        is_missing = text is None or found == "NAType" or (isinstance(text, float) and isnan(text))
        advice = "; drop missing texts, or write '' for them" if is_missing else ""
        raise TypeError(
            "a text must be a string or a list of strings (its words), but the one with the index "
            f"{number} is {found}{advice}"
        )


def _inserted(tokens: Sequence[Token], others: Sequence[Token]) -> list[Token]:
    """Return tokens with others at their places; the order of ``tokens`` is not changed."""
    spans = zip(*(ends.tolist() for ends in _rising(*_offsets(tokens))), strict=True)
    placed = [*zip(spans, tokens, strict=True), *(((one.start, one.end), one) for one in others)]
    return [token for _, token in sorted(placed, key=lambda one: one[0])]


def _without_token(tokens: Sequence[Token], words: Sequence[Token]) -> list[Token]:
    first, last = _spans(tokens, words)
    return [words[number] for number in np.flatnonzero(first > last).tolist()]
