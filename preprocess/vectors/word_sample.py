"""The words of a vector cache with their vectors and their places, for whoever compares them.

A word is what stands between spaces, or a token where there are none: no script is assumed.
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

from preprocess.vectors.cache import VectorCache

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

SAMPLE = 60_000
"""Occurrences read, from the cache's first texts; what bounds time and memory."""

STRETCH_CHARACTERS, STRETCH_TOKENS = 15, 4
"""Means over a text up to which its stretches between spaces are taken for words."""

AROUND = 32
"""Characters of text shown on each side of a word."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Controls, line ends, halves of surrogate pairs, and what turns the direction of the text after.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\\s]+")


@dataclass(frozen=True)
class Snippet:
    """An occurrence with a little text on both sides, fit to be shown on one line."""

    before: str
    word: str
    after: str


@dataclass(frozen=True)
class WordSample:
    """Occurrences in the order read. A type is a spelling; types that differ in case share a key."""

    texts: list[str]
    places: NDArray[np.int64]
    """(occurrences, 3): number of the text, first character, last + 1."""
    types: Numbers  # (occurrences,)
    spellings: list[str]
    keys: Numbers  # (types,)
    counts: Numbers  # (types,)
    contextual: Floats  # (occurrences, dim), directions
    static: Floats  # (types, dim / 2), directions

    def find(self, word: str) -> int | None:
        """The type spelled so, else the most frequent one that differs in letter case."""
        same = [n for n, other in enumerate(self.spellings) if _key(other) == _key(word)]
        exact = [n for n in same if self.spellings[n] == unicodedata.normalize("NFC", word)]
        return max(exact or same, key=lambda n: int(self.counts[n]), default=None)

    def contexts(self, number: int) -> Numbers:
        """Occurrences of a type, one for each pair of words around it.

        A phrase that is often repeated would else be a use. At either end of its text a word is
        read by one of the two LMs only; such occurrences are taken only where there are no others.
        """
        found = np.flatnonzero(self.types == number)
        text = np.pad(self.places[:, 0], 1, constant_values=-1)  # occurrence n at n + 1
        inner = found[(text[found] == text[found + 1]) & (text[found + 2] == text[found + 1])]
        if len(inner) < 2:
            return found
        around = np.stack([self.types[inner - 1], self.types[inner + 1]])
        one_each: Numbers = np.sort(np.unique(around, axis=1, return_index=True)[1])
        return np.asarray(inner[one_each], np.int64)

    def snippet(self, occurrence: int) -> Snippet:
        number, start, end = map(int, self.places[occurrence])
        text = self.texts[number]
        before, after = text[max(0, start - AROUND) : start], text[end : end + AROUND]
        # A word cut in two is left out, but not where there are no spaces, or hardly any.
        if start > AROUND and (match := re.search(r"\s", before[: AROUND // 2])):
            before = before[match.end() :]
        if end + AROUND < len(text) and (match := re.search(r"\s\S*$", after[AROUND // 2 :])):
            after = after[: AROUND // 2 + match.start()]
        return Snippet(
            ("…" if start > len(before) else "") + shown(before).lstrip(),
            shown(text[start:end])[:AROUND],
            shown(after).rstrip() + ("…" if end + len(after) < len(text) else ""),
        )


def _key(word: str) -> str:
    return unicodedata.normalize("NFC", word.casefold())


def shown(text: str) -> str:
    """The text without what has no place on one line."""
    return _UNSHOWN.sub(" ", text)


def read_sample(cache: VectorCache, asked: Sequence[str]) -> WordSample:
    """The words of the cache's first texts; those of ``asked`` also where there are no spaces."""
    half = cache.dim // 2
    texts: list[str] = []
    places: list[tuple[int, int, int]] = []
    types: list[int] = []
    numbers: dict[str, int] = {}
    contextual, static = [np.empty((0, cache.dim), np.float32)], [np.empty((0, half), np.float32)]
    for text, words, vectors in _words(cache, [_key(word) for word in asked]):
        # The forward LM has read a word at its last token, the backward LM at its first.
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
        np.array([keys.setdefault(_key(word), len(keys)) for word in numbers], np.int64),
        np.bincount(np.array(types, np.int64), minlength=len(numbers)),
        _directions(np.concatenate(contextual)),
        _directions(np.concatenate(static)),
    )


def _directions(vectors: Floats) -> Floats:
    """The rows less their mean, which says nothing of any word, and of length 1."""
    if len(vectors) > 1:
        vectors -= vectors.mean(0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


@dataclass(frozen=True)
class Word:
    """Characters [start, end) of a text, and the first and the last token they lie in."""

    start: int
    end: int
    first: int
    last: int


def _words(
    cache: VectorCache, asked: Sequence[str]
) -> Iterator[tuple[str, list[Word], NDArray[np.floating[Any]]]]:
    """The cache's first texts, as they were tokenised, with `SAMPLE` words at most."""
    left = SAMPLE
    for _, tokens, vectors in cache.entries():
        text, starts = joined_text(tokens)
        words = find_words(text, starts, asked)[:left]
        if words:
            yield text, words, vectors
        left -= len(words)
        if not left:
            return


def joined_text(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """The text that ``tokens`` joined_text, and the character at which each begins.

    SentencePiece spells a space as U+2581 and rare characters in bytes; a run of byte tokens is
    kept together. Where the first token does not begin with U+2581, each is a word.
    """
    if tokens and not tokens[0].startswith("▁"):
        tokens = [f"▁{token}" for token in tokens]
    surfaces = [token.replace("▁", " ") for token in tokens]
    run = b""
    for number, token in enumerate(tokens):
        if not (match := _BYTE.fullmatch(token)):
            run = b""
            continue
        run += bytes.fromhex(match[1])
        if number + 1 < len(tokens) and _BYTE.fullmatch(tokens[number + 1]):
            surfaces[number] = ""
        else:
            surfaces[number] = run.decode(errors="replace")
    return "".join(surfaces), list(accumulate(map(len, surfaces), initial=0))[:-1]


def find_words(text: str, starts: Sequence[int], asked: Sequence[str] = ()) -> list[Word]:
    """The words of a text whose tokens begin at ``starts``, in their order.

    Where the stretches between spaces are short, these are the words; else the tokens are, and what
    ``asked`` (folded) names wherever it is written. Punctuation at their ends is left out.
    """
    stretches = [match.span() for match in re.finditer(r"\S+", text)]
    characters = sum(end - start for start, end in stretches)
    short = characters <= STRETCH_CHARACTERS * len(stretches)
    if short and len(starts) <= STRETCH_TOKENS * len(stretches):
        found = {_bare(text, *stretch) for stretch in stretches}
    else:
        found = {_bare(text, *token) for token in pairwise([*starts, len(text)])}
        folded = text.casefold()
        # Folding may lengthen a text, and then its places are others.
        for word in asked if len(folded) == len(text) else ():
            found |= {match.span() for match in re.finditer(re.escape(word), folded)}
    words = []
    for start, end in sorted(found):
        if start < end:
            begins = starts[bisect_right(starts, start) - 1]
            first, last = bisect_left(starts, begins), bisect_right(starts, end - 1) - 1
            words.append(Word(start, end, first, last))
    return words


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Less what is neither letter, mark nor number at both ends."""
    while start < end and unicodedata.category(text[start])[0] not in "LMN":
        start += 1
    while start < end and unicodedata.category(text[end - 1])[0] not in "LMN":
        end -= 1
    return start, end
