"""Words with several uses in a vector cache: what is near each use, and near the word in itself.

Asked for the neighbours of a word, word2vec has one answer; contextual vectors have one for each
use (Peters et al. 2018, section 5.3). Words and their uses are read off the cache alone: there is
no word list and no assumption of a script or of spaces.
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

from preprocess.vector_cache import VectorCache

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]

SAMPLE = 60_000
"""Occurrences read, from the cache's first texts; what bounds time and memory."""

STRETCH_CHARACTERS, STRETCH_TOKENS = 15, 4
"""Means over a text up to which its stretches between spaces are taken for words."""

CHOSEN = 3
"""Words chosen where none is asked for."""

COMMON = 0.004
"""Share of all occurrences from which a word is taken for grammar and not chosen."""

CANDIDATES = 400
"""Words judged, the most frequent ones below that share."""

SEEN = 24
"""Contexts that each of them is judged by; a word with fewer is not chosen."""

SMALLER = 0.2
"""Share of a word's occurrences that the smaller of two groups has, where there are such groups."""

KNOWN = 3
"""Occurrences from which a word is shown as a neighbour; a rarer one has hardly a vector."""

AROUND = 32
"""Characters of text shown on each side of a word."""

STARTS = 8
"""Random starts of 2-means."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Controls, line ends, halves of surrogate pairs, and what turns the direction of the text after.
_UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\\s]+"
)


@dataclass(frozen=True)
class Snippet:
    """An occurrence with a little text on both sides, fit to be shown on one line."""

    before: str
    word: str
    after: str


@dataclass(frozen=True)
class Neighbour:
    """The nearest occurrence of another word; ``cosine`` is that of the vectors less their mean."""

    cosine: float
    snippet: Snippet


@dataclass(frozen=True)
class Use:
    """A group of a word's occurrences, by its most typical one."""

    typical: Snippet
    again: Snippet | None
    """The occurrence of the group that is nearest to it in another text."""
    neighbours: tuple[Neighbour, ...]
    """One a word, each with the use that it is nearer to; the nearest first."""


@dataclass(frozen=True)
class WordUses:
    """A word and its uses, the more frequent first; none where it occurs less than twice.

    ``static`` are the words nearest in layer 0, where a word has one vector whatever its use.
    """

    word: str
    occurrences: int
    uses: tuple[Use, ...] = ()
    static: tuple[str, ...] = ()


def word_uses(cache: VectorCache, words: Sequence[str] | None, neighbours: int) -> list[WordUses]:
    """Two uses of each of ``words``, and the words nearest to them.

    Args:
        cache: of token vectors (layers, tokens, dim), layer 0 the token vector twice.
        words: none: at most three, those whose uses are the clearest.
        neighbours: words shown of each use, at most.
    """
    sample = _read(cache, words or ())
    if words is None:
        return [_describe(sample, sample.spellings[n], n, neighbours) for n in _choose(sample)]
    return [_describe(sample, word, sample.find(word), neighbours) for word in words]


# Reading: the cache's first texts to words and their vectors.


@dataclass(frozen=True)
class _Sample:
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
        return inner[np.sort(np.unique(around, axis=1, return_index=True)[1])]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(types,): the types that are frequent enough to be shown as neighbours."""
        return np.asarray(self.counts >= min(KNOWN, 1 + len(self.types) // 5000))

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
            ("…" if start > len(before) else "") + _shown(before).lstrip(),
            _shown(text[start:end])[:AROUND],
            _shown(after).rstrip() + ("…" if end + len(after) < len(text) else ""),
        )


def _key(word: str) -> str:
    return unicodedata.normalize("NFC", word.casefold())


def _shown(text: str) -> str:
    return _UNSHOWN.sub(" ", text)


def _read(cache: VectorCache, asked: Sequence[str]) -> _Sample:
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
    return _Sample(
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
        text, starts = spell(tokens)
        words = find_words(text, starts, asked)[:left]
        if words:
            yield text, words, vectors
        left -= len(words)
        if not left:
            return


def spell(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """The text that ``tokens`` spell, and the character at which each begins.

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


# Uses: the occurrences of a word in two groups.


def _choose(sample: _Sample) -> list[int]:
    """The types whose contextual vectors fall most clearly into two groups.

    All are judged by equally many occurrences, since few vectors are split better than many.
    """
    most = max(COMMON * len(sample.types), SEEN)
    frequent = np.argsort(-sample.counts, kind="stable")
    frequent = frequent[(sample.counts[frequent] >= SEEN) & (sample.counts[frequent] <= most)]
    scores: dict[int, float] = {}
    for number in map(int, frequent[:CANDIDATES]):
        contexts = sample.contexts(number)
        letters = all(unicodedata.category(c)[0] in "LM" for c in sample.spellings[number])
        if letters and len(contexts) >= SEEN:
            even = np.linspace(0, len(contexts) - 1, SEEN).astype(int)
            first, share = two_means(sample.contextual[contexts[even]])
            if SMALLER * SEEN <= first.sum() <= (1 - SMALLER) * SEEN:
                scores[number] = share
    chosen: dict[int, int] = {}
    for number in sorted(scores, key=lambda n: (-scores[n], n)):
        chosen.setdefault(int(sample.keys[number]), number)
    return list(chosen.values())[:CHOSEN]


def two_means(rows: Floats) -> tuple[NDArray[np.bool_], float]:
    """The first of two groups of ``rows`` (n, dim), and the share of the variance between the two.

    k-means with a fixed seed: of all starts the largest share, but before that one whose smaller
    group is no handful. Rows that are all alike are one group.
    """
    rows = rows - rows.mean(0)
    total = float((rows**2).sum())
    best, rank = np.ones(len(rows), bool), (False, 0.0)
    if total < 1e-6 * len(rows):
        return best, 0.0
    random = np.random.default_rng(0)
    for _ in range(STARTS):
        one = rows[random.integers(len(rows))]
        far = ((rows - one) ** 2).sum(1, dtype=np.float64)
        other = rows[random.choice(len(rows), p=far / far.sum())]
        first, former = rows @ (one - other) > ((one + other) @ (one - other)) / 2, None
        while former is None or (first != former).any():
            if first.all() or not first.any():
                break
            one, other, former = rows[first].mean(0), rows[~first].mean(0), first
            first = rows @ (one - other) > ((one + other) @ (one - other)) / 2
        size = int(first.sum())
        if 0 < size < len(rows):
            # Between groups: the sizes times the squared lengths of their means.
            share = (size * float(one @ one) + (len(rows) - size) * float(other @ other)) / total
            balanced = SMALLER * len(rows) <= size <= (1 - SMALLER) * len(rows)
            if (balanced, share) > rank:
                best, rank = first, (balanced, share)
    return best, rank[1]


def _describe(sample: _Sample, word: str, number: int | None, neighbours: int) -> WordUses:
    occurrences = int(sample.counts[number]) if number is not None else 0
    if number is None or occurrences < 2:
        return WordUses(_shown(word), occurrences)
    contexts = sample.contexts(number)
    first, _ = two_means(sample.contextual[contexts])
    groups = [group for group in (contexts[first], contexts[~first]) if len(group)]
    groups.sort(key=len, reverse=True)
    typical = [_typical(sample.contextual, group) for group in groups]
    near = sample.contextual[typical] @ sample.contextual.T  # (uses, occurrences)
    found = _nearest(sample, near, sample.types, number, neighbours)
    uses = tuple(
        Use(
            sample.snippet(one),
            _again(sample, group, near[n], one),
            tuple(Neighbour(float(near[n, o]), sample.snippet(o)) for o in found[n]),
        )
        for n, (one, group) in enumerate(zip(typical, groups, strict=True))
    )
    similar = (sample.static @ sample.static[number])[None]  # (1, types)
    static = _nearest(sample, similar, np.arange(len(sample.spellings)), number, neighbours)[0]
    return WordUses(
        _shown(word), occurrences, uses, tuple(_shown(sample.spellings[n])[:AROUND] for n in static)
    )


def _typical(vectors: Floats, group: Numbers) -> int:
    """The member nearest to the group's mean."""
    rows = vectors[group]
    return int(group[((rows - rows.mean(0)) ** 2).sum(1).argmin()])


def _again(sample: _Sample, group: Numbers, near: Floats, typical: int) -> Snippet | None:
    elsewhere = group[sample.places[group, 0] != sample.places[typical, 0]]
    return sample.snippet(int(elsewhere[near[elsewhere].argmax()])) if len(elsewhere) else None


def _nearest(
    sample: _Sample, near: Floats, types: Numbers, number: int, neighbours: int
) -> list[list[int]]:
    """Columns of the words nearest to each row; a word stands with the row it is nearest to.

    Args:
        near: (rows, columns), cosines.
        types: (columns,)
        number: the type whose neighbours are looked for.
    """
    keys = sample.keys[types]
    allowed = np.flatnonzero(sample.known[types] & (keys != sample.keys[number]))
    best = np.full((len(near), int(sample.keys.max()) + 1), -np.inf)
    for row, cosines in zip(best, near, strict=True):
        np.maximum.at(row, keys[allowed], cosines[allowed])
    owner = best.argmax(0)
    found: list[list[int]] = []
    for n, cosines in enumerate(near):
        own = allowed[owner[keys[allowed]] == n]
        ordered = own[np.argsort(-cosines[own], kind="stable")]
        _, firsts = np.unique(keys[ordered], return_index=True)
        found.append([int(c) for c in ordered[np.sort(firsts)][:neighbours]])
    return found
