"""A sample of the word occurrences in a vector cache, with their vectors and positions.

A word is what stands between spaces, or a token in text without spaces, so any script works.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.tokenizers.segmentation.segmenters import mostly_unspaced
from preprocess.vectors.cache import VectorCache

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

SAMPLE = 60_000
"""Maximum number of occurrences in a sample, which bounds time and memory."""

STRETCH_CHARACTERS, STRETCH_TOKENS = 15, 4
"""A text has spaces between words if the parts between spaces have at most this many characters and
tokens on average, and most letters are of a script with spaces."""

AROUND = 32
"""Characters to show on each side of a word."""

SPACED_TOKENS = 8
"""Of subwords, at least one in this many contains a space."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_HIGH_BYTE = re.compile(r"<0x[89A-F][0-9A-F]>")
# Control characters, line ends, lone surrogates, and marks that change the text direction.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\\s]+")


@dataclass(frozen=True)
class Snippet:
    """A word occurrence with some text on both sides, to be shown on one line."""

    before: str
    word: str
    after: str


@dataclass(frozen=True)
class WordSample:
    """Word occurrences in reading order.

    A type is a distinct spelling, identified by its index in ``spellings``. Types that differ only in
    case have the same key.

    Attributes:
        texts: the texts.
        places: index of the text, first character, and last character + 1 of each occurrence, shape
            (occurrences, 3).
        types: type of each occurrence, shape (occurrences,).
        spellings: spelling of each type.
        keys: key of each type, shape (types,).
        counts: occurrences of each type, shape (types,).
        contextual: vector of each occurrence in the top layer, shape (occurrences, dim).
        static: vector of each type in layer 0, shape (types, dim / 2). Both kinds of vector are
            centred and have length 1.
    """

    texts: list[str]
    places: NDArray[np.int64]
    types: Numbers
    spellings: list[str]
    keys: Numbers
    counts: Numbers
    contextual: Floats
    static: Floats

    def find(self, word: str) -> int | None:
        """Return the type with this spelling, or the most frequent one that differs only in case."""
        key = word_key(word)
        same = [n for n, other in enumerate(self.spellings) if word_key(other) == key]
        exact = [n for n in same if self.spellings[n] == unicodedata.normalize("NFC", word)]
        return max(exact or same, key=lambda n: int(self.counts[n]), default=None)

    def contexts(self, number: int) -> Numbers:
        """Return the indices of occurrences of a type, one for each distinct pair of adjacent words.

        If all occurrences were returned, a phrase that is often repeated would look like a use of its
        own. At the ends of a text only one of the two LMs has context. So if fewer than two
        occurrences lie inside a text, all occurrences are returned, otherwise none at the ends.
        """
        found = np.flatnonzero(self.types == number)
        before, after = self._beside(found, -1), self._beside(found, 1)
        is_inner = (before >= 0) & (after >= 0)
        inner = found[is_inner]
        if len(inner) < 2:
            return found
        around = np.stack([self.types[before[is_inner]], self.types[after[is_inner]]])
        one_each: Numbers = np.sort(np.unique(around, axis=1, return_index=True)[1])
        return np.asarray(inner[one_each], np.int64)

    def _beside(self, found: Numbers, step: int) -> Numbers:
        """Return the next occurrence (step 1) or the one before (step -1), or -1 at the end of the text.

        Occurrences that overlap, such as the characters of a word, are passed over.
        """
        text, start, end = self.places.T
        beside = found + step
        while True:
            at = beside.clip(0, len(text) - 1)
            same = (at == beside) & (text[at] == text[found])
            overlaps = same & (start[at] < end[found]) & (start[found] < end[at])
            if not overlaps.any():
                return np.where(same, beside, -1)
            beside = beside + step * overlaps

    def snippet(self, occurrence: int) -> Snippet:
        """Return an occurrence with the text around it."""
        number, start, end = map(int, self.places[occurrence])
        return snippet(self.texts[number], start, end)

    def parts(self, number: int) -> Numbers:
        """Return the types that overlap an occurrence of a type, such as the characters of a word.

        In text without spaces, every token is a word, and a requested word may have several tokens.
        """
        if not len(self.places):
            return np.empty(0, np.int64)
        text, start, end = self.places.T
        found: set[int] = set()
        for one in np.flatnonzero(self.types == number).tolist():
            # Occurrences are in reading order, so those of a text are neighbours in the array.
            first, last = text.searchsorted([text[one], text[one] + 1])
            near = slice(int(first), int(last))
            overlap = (start[near] < end[one]) & (end[near] > start[one])
            found.update(self.types[near][overlap].tolist())
        return np.array(sorted(found - {number}), np.int64)


def snippet(text: str, start: int, end: int, around: int = AROUND) -> Snippet:
    """Return characters [start, end) of a text with up to ``around`` characters on each side."""
    before, after = text[max(0, start - around) : start], text[end : end + around]
    # Leave out words that are cut in two, unless there are hardly any spaces.
    if start > around and (match := re.search(r"\s", before[: around // 2])):
        before = before[match.end() :]
    if end + around < len(text) and (match := re.search(r"\s\S*$", after[around // 2 :])):
        after = after[: around // 2 + match.start()]
    return Snippet(
        ("…" if start > len(before) else "") + shown(before).lstrip(),
        shown(text[start:end])[:around],
        shown(after).rstrip() + ("…" if end + len(after) < len(text) else ""),
    )


def word_key(word: str) -> str:
    """Return the form of a word that all its letter cases share."""
    return unicodedata.normalize("NFC", word.casefold())


def shown(text: str) -> str:
    """Replace characters that cannot be shown on one line by spaces."""
    return _UNSHOWN.sub(" ", text)


def read_sample(cache: VectorCache, requested: Sequence[str]) -> WordSample:
    """Read a sample of word occurrences from the first texts of a cache.

    Args:
        cache: a cache of token vectors.
        requested: words to find also in texts without spaces, where every other word is one token.
    """
    half = cache.dim // 2
    texts: list[str] = []
    places: list[tuple[int, int, int]] = []
    types: list[int] = []
    numbers: dict[str, int] = {}
    contextual, static = [np.empty((0, cache.dim), np.float32)], [np.empty((0, half), np.float32)]
    for text, words, vectors in _words(cache, [word_key(word) for word in requested]):
        # The forward LM has read the whole word at its last token, the backward LM at its first.
        first, last = [w.first for w in words], [w.last for w in words]
        top = vectors[-1]  # (tokens, dim)
        contextual.append(np.concatenate([top[last, :half], top[first, half:]], 1, dtype="f4"))
        for word in words:
            spelling = text[word.start : word.end]
            types.append(numbers.setdefault(spelling, len(numbers)))
            if types[-1] == len(static) - 1:
                tokens = vectors[0, word.first : word.last + 1, :half]
                static.append(tokens.mean(0, dtype="f4", keepdims=True))
            places.append((len(texts), word.start, word.end))
        texts.append(text)
    keys: dict[str, int] = {}
    return WordSample(
        texts,
        np.array(places, np.int64).reshape(-1, 3),
        np.array(types, np.int64),
        list(numbers),
        np.array([keys.setdefault(word_key(word), len(keys)) for word in numbers], np.int64),
        np.bincount(np.array(types, np.int64), minlength=len(numbers)),
        _centred(np.concatenate(contextual)),
        _centred(np.concatenate(static)),
    )


def _centred(vectors: Floats) -> Floats:
    """Subtract the mean, which is common to all words, and scale each row to length 1, in place."""
    if len(vectors) > 1:
        vectors -= vectors.mean(0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


@dataclass(frozen=True)
class Word:
    """Characters [start, end) of a text, and the indices of the first and last token they overlap."""

    start: int
    end: int
    first: int
    last: int


def _words(
    cache: VectorCache, requested: Sequence[str]
) -> Iterator[tuple[str, list[Word], NDArray[np.floating[Any]]]]:
    """Yield (text, words, vectors) of the first texts of the cache, with at most `SAMPLE` words."""
    left = SAMPLE
    for _, tokens, vectors in cache.entries():
        text, starts = joined_text(tokens)
        words = find_words(text, starts, requested)[:left]
        if words:
            yield text, words, vectors
        left -= len(words)
        if not left:
            return


def joined_text(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """Join the spellings of tokens to a text.

    A subword spells a space as U+2581 and a byte of a character as <0xE7>; consecutive tokens with such
    bytes are decoded together. If the tokens are no subwords, each of them is a word.

    Returns:
        The text, and the index of the first character of each token.
    """
    if not _are_subwords(tokens):
        surfaces = [f" {token}".replace("▁", " ") for token in tokens]
        return "".join(surfaces), list(accumulate(map(len, surfaces), initial=0))[:-1]
    surfaces = [token.replace("▁", " ") for token in tokens]
    run = b""
    has_bytes = [*(bool(_BYTE.search(token)) for token in tokens), False]
    for number in np.flatnonzero(has_bytes).tolist():
        run += _bytes_of(surfaces[number])
        surfaces[number] = ""
        if not has_bytes[number + 1]:
            surfaces[number], run = run.decode(errors="replace"), b""
    return "".join(surfaces), list(accumulate(map(len, surfaces), initial=0))[:-1]


def _are_subwords(tokens: Sequence[str]) -> bool:
    """Return True if the spellings are those of subwords, and not of words.

    Some tokenizers put no space before a text. A word may contain U+2581, too, but few words of a text do.
    """
    if tokens and tokens[0].startswith("▁"):
        return True
    spaced = sum("▁" in token for token in tokens)
    return SPACED_TOKENS * spaced >= len(tokens) or any(map(_HIGH_BYTE.search, tokens))


def _bytes_of(surface: str) -> bytes:
    """Return the UTF-8 bytes of a token's text, in which some bytes are spelt as <0xE7>."""
    parts = enumerate(_BYTE.split(surface))
    return b"".join(bytes.fromhex(part) if n % 2 else part.encode() for n, part in parts)


def find_words(text: str, starts: Sequence[int], requested: Sequence[str] = ()) -> list[Word]:
    """Find the words of a text, in order, without punctuation at their ends.

    If the parts between spaces are short and most letters are of a script with spaces between words,
    the parts are the words. Otherwise each token is a word, and so is every occurrence of a requested
    word.

    Args:
        text: the text.
        starts: index of the first character of each token.
        requested: words in casefolded form.
    """
    if has_spaces(text, starts):
        found = {bare(text, *part) for part in _parts(text)}
    else:
        found = {bare(text, *token) for token in pairwise([*starts, len(text)])}
        folded = text.casefold()
        # Case folding may change the length of a text, and then the indices do not match.
        for word in requested if len(folded) == len(text) else ():
            found |= {match.span() for match in re.finditer(re.escape(word), folded)}
    words = []
    for start, end in sorted(found):
        if start < end:
            begins = starts[bisect_right(starts, start) - 1]
            first, last = bisect_left(starts, begins), bisect_right(starts, end - 1) - 1
            words.append(Word(start, end, first, last))
    return words


def has_spaces(text: str, starts: Sequence[int]) -> bool:
    """Return True if the words of a text are what stands between spaces, as for `find_words`."""
    parts = _parts(text)
    characters = sum(end - start for start, end in parts)
    is_short = characters <= STRETCH_CHARACTERS * len(parts)
    return is_short and len(starts) <= STRETCH_TOKENS * len(parts) and not mostly_unspaced(text)


def _parts(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", text)]


def bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Remove characters that are not letters, marks or numbers from both ends of a span."""
    while start < end and unicodedata.category(text[start])[0] not in "LMN":
        start += 1
    while start < end and unicodedata.category(text[end - 1])[0] not in "LMN":
        end -= 1
    return start, end
