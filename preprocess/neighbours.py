"""Words with several uses in a vector cache: what is near each use, and near the word in itself.

The same question asked of word2vec has one answer a word; of contextual vectors it has one a use
(Peters et al. 2018, section 5.3). Words and their senses are read off the cache alone: there is no
word list and no assumption of a script, of letter case or of spaces.
"""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.vector_cache import VectorCache

Floats = NDArray[np.float32]

SAMPLE = 60_000
"""Occurrences read, from the cache's first texts; what bounds time and memory."""

LONGEST_STRETCH = 15
"""Characters between spaces, on average, up to which these are taken for words."""

CHOSEN = 3
"""Words chosen where none is asked for."""

SEEN = 24
"""Different contexts that a word is judged by; one with fewer is not chosen."""

COMMON = 0.004
"""Share of all occurrences from which a word is taken for grammar and not chosen."""

CANDIDATES = 400
"""Words judged, the most frequent ones below that share."""

SMALLER_USE = 0.25
"""Share of a word's occurrences that its second use must have for the word to be chosen."""

KNOWN = 3
"""Occurrences from which a word is shown as a neighbour; a rarer one has hardly a vector."""

AROUND = 32
"""Characters of text shown on each side of a word."""

STARTS = 8
"""Random starts of 2-means, of which the best is taken."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Line ends, control characters, halves of surrogate pairs, and what turns the direction of text.
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


@dataclass(frozen=True)
class Snippet:
    """An occurrence with a little text on both sides, fit to be shown on one line."""

    before: str
    word: str
    after: str


@dataclass(frozen=True)
class Neighbour:
    """The nearest occurrence of another word. ``cosine`` is of the centred vectors."""

    word: str
    cosine: float
    snippet: Snippet


@dataclass(frozen=True)
class Use:
    """A group of a word's occurrences by its most typical one."""

    occurrences: int
    typical: Snippet
    again: Snippet | None
    """The occurrence of the same word, in another text, that is nearest to the typical one."""
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class WordUses:
    """A word, its uses (none where it occurs less than twice), the larger first.

    ``static`` are the words nearest in layer 0, which are the same whatever the use.
    """

    word: str
    occurrences: int
    uses: tuple[Use, ...] = ()
    static: tuple[str, ...] = ()


def word_uses(cache: VectorCache, words: Sequence[str] | None, neighbours: int) -> list[WordUses]:
    """Two uses of each of ``words`` and the ``neighbours`` words nearest to them.

    Args:
        cache: of token vectors, layer 0 the token vector twice.
        words: none: those with the clearest two uses, no more than three, perhaps none.
        neighbours: at most so many of each are found.
    """
    sample = _read(cache, [word_key(word) for word in words or ()])
    if words is None:
        words = [sample.spellings[kind] for kind in _choose(sample)]
    return [_describe(sample, word, neighbours) for word in words]


def word_key(word: str) -> str:
    """What two spellings of one word have in common: they may differ in letter case."""
    return unicodedata.normalize("NFC", word.strip().casefold())


# Reading: the cache's first texts to words.


@dataclass
class _Sample:
    """Occurrences in the order read; ``kind`` numbers the different words."""

    texts: list[str] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    """Of an occurrence: number of its text, first and last character + 1."""
    kinds: Any = field(default_factory=list)  # int64 (occurrences,)
    numbers: dict[str, int] = field(default_factory=dict)
    spellings: list[str] = field(default_factory=list)
    contextual: Any = field(default_factory=list)  # unit rows (occurrences, dim)
    static: Any = field(default_factory=list)  # unit rows (kinds, dim / 2)

    def of(self, kind: int) -> NDArray[np.int64]:
        """Numbers of the occurrences of a word."""
        return np.flatnonzero(self.kinds == kind)

    def neighbour_keys(self, occurrence: int) -> tuple[int, int] | None:
        """The words before and after an occurrence; none at either end of its text."""
        text = self.places[occurrence][0]
        for other in (occurrence - 1, occurrence + 1):
            if not 0 <= other < len(self.places) or self.places[other][0] != text:
                return None
        return int(self.kinds[occurrence - 1]), int(self.kinds[occurrence + 1])


def _read(cache: VectorCache, asked: Sequence[str]) -> _Sample:
    sample = _Sample()
    half = cache.dim // 2
    for text, spans, vectors in _spans(cache, asked):
        # The forward LM has read a word at its last token, the backward LM at its first.
        first, last = [s.first for s in spans], [s.last for s in spans]
        upper = vectors[1:] if cache.layers > 1 else vectors
        top = np.asarray(upper, np.float32).mean(0)
        sample.contextual.append(np.concatenate([top[last, :half], top[first, half:]], 1))
        for span in spans:
            word = text[span.start : span.end]
            kind = sample.numbers.setdefault(word_key(word), len(sample.spellings))
            if kind == len(sample.spellings):
                sample.spellings.append(word)
                tokens = vectors[0, span.first : span.last + 1, :half]
                sample.static.append(tokens.astype(np.float32).mean(0))
            sample.kinds.append(kind)
            sample.places.append((len(sample.texts), span.start, span.end))
        sample.texts.append(text)
    sample.kinds = np.array(sample.kinds, np.int64)
    empty = np.empty((0, cache.dim), np.float32)
    sample.contextual = _directions(np.concatenate([empty, *sample.contextual]))
    sample.static = _directions(np.array([*sample.static], np.float32).reshape(-1, half))
    return sample


def _directions(vectors: Floats) -> Floats:
    """Rows less their mean, which all vectors of a language model share, and of length 1."""
    if len(vectors) > 1:
        vectors = vectors - vectors.mean(0)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


@dataclass(frozen=True)
class _Span:
    """A word: characters [start, end) of the text and its first and last token."""

    start: int
    end: int
    first: int
    last: int


def _spans(
    cache: VectorCache, asked: Sequence[str]
) -> Iterator[tuple[str, list[_Span], NDArray[np.floating[Any]]]]:
    """The cache's first texts as the model read them, with at most `SAMPLE` words."""
    left = SAMPLE
    for _, tokens, vectors in cache.entries():
        text, starts = spell(tokens)
        spans = [
            _Span(a, b, bisect_left(starts, _piece(starts, a)), bisect_right(starts, b - 1) - 1)
            for a, b in find_words(text, starts, asked)
        ][:left]
        if spans:
            yield text, spans, vectors
        left -= len(spans)
        if not left:
            return


def _piece(starts: Sequence[int], character: int) -> int:
    return starts[bisect_right(starts, character) - 1]


def spell(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """The text that ``tokens`` spell, and where in it each begins.

    Pieces carry their spaces as U+2581 and spell rare characters in bytes; a run of byte tokens
    begins where its first does. Tokens of which the first has no U+2581 are words.
    """
    if tokens and not tokens[0].startswith("▁"):
        tokens = [f"▁{token}" for token in tokens]
    surfaces = [token.replace("▁", " ") for token in tokens]
    run: list[int] = []
    for number, token in enumerate([*tokens, ""]):
        if _BYTE.fullmatch(token):
            run.append(number)
            continue
        if run:
            data = bytes(int(tokens[one][3:5], 16) for one in run)
            # All characters to the last token, so that the run is one word's worth.
            for one in run:
                surfaces[one] = ""
            surfaces[run[-1]] = data.decode(errors="replace")
            run = []
    return "".join(surfaces), list(accumulate(map(len, surfaces), initial=0))[:-1]


def find_words(text: str, starts: Sequence[int], asked: Sequence[str]) -> list[tuple[int, int]]:
    """First and last character + 1 of the words of a text whose tokens begin at ``starts``.

    Where the stretches between spaces are as short as words, these are the words; else the tokens
    are, and of the words in ``asked`` (keys) every place they are written at. Punctuation at the
    ends of either is left out.
    """
    stretches = [match.span() for match in re.finditer(r"\S+", text)]
    if not stretches:
        return []
    mean = sum(end - start for start, end in stretches) / len(stretches)
    if mean <= LONGEST_STRETCH:
        found = {_bare(text, *stretch) for stretch in stretches}
    else:
        found = {_bare(text, *place) for place in pairwise([*starts, len(text)])}
        # Only where folding keeps the length do places in the folded text hold for the text.
        folded = text.casefold()
        for word in filter(None, asked if len(folded) == len(text) else ()):
            found |= {match.span() for match in re.finditer(re.escape(word), folded)}
    return sorted((start, end) for start, end in found if start < end)


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Less what is neither letter, mark nor number at both ends."""
    while start < end and unicodedata.category(text[start])[0] not in "LMN":
        start += 1
    while start < end and unicodedata.category(text[end - 1])[0] not in "LMN":
        end -= 1
    return start, end


# Uses: the occurrences of a word in two groups.


def _choose(sample: _Sample) -> list[int]:
    """The words whose contextual vectors fall most clearly into two groups.

    All are judged by equally many occurrences, since few vectors are split better than many. The
    same words before and after count once, or a phrase often repeated would be a use.
    """
    counts = np.bincount(sample.kinds, minlength=len(sample.spellings))
    order = np.argsort(-counts, kind="stable")
    most = max(COMMON * len(sample.kinds), SEEN)
    frequent = [kind for kind in order if SEEN <= counts[kind] <= most]
    scores: dict[int, float] = {}
    for kind in map(int, frequent[:CANDIDATES]):
        if not all(unicodedata.category(c)[0] in "LM" for c in sample.spellings[kind]):
            continue
        by_context = {sample.neighbour_keys(one): one for one in reversed(sample.of(kind).tolist())}
        by_context.pop(None, None)
        different = sorted(by_context.values())
        if len(different) >= SEEN:
            even = np.linspace(0, len(different) - 1, SEEN).astype(int)
            rows = sample.contextual[np.array(different)[even]]
            first, explained = two_means(rows)
            if min(first.sum(), SEEN - first.sum()) >= SMALLER_USE * SEEN:
                scores[kind] = explained
    return sorted(scores, key=lambda kind: (-scores[kind], kind))[:CHOSEN]


def two_means(rows: Floats) -> tuple[NDArray[np.bool_], float]:
    """Which rows belong to the first of two groups, and the share of the variance that explains.

    k-means with two centres; the seed is fixed. All rows alike are one group, the first.
    """
    centred = rows - rows.mean(0)
    total = float((centred**2).sum())
    best, explained = np.ones(len(rows), bool), 0.0
    random = np.random.default_rng(0)
    for _ in range(STARTS if total > 1e-9 else 0):
        one = centred[random.integers(len(rows))]
        far = ((centred - one) ** 2).sum(1).astype(np.float64)
        centres = np.stack([one, centred[random.choice(len(rows), p=far / far.sum())]])
        groups = np.zeros(len(rows), np.int64)
        for _ in range(50):
            distance = ((centred[:, None] - centres) ** 2).sum(2)  # (rows, 2)
            former, groups = groups, distance.argmin(1)
            if len(set(groups.tolist())) < 2 or (groups == former).all():
                break
            centres = np.stack([centred[groups == g].mean(0) for g in (0, 1)])
        share = 1 - float(sum((r - centres[g]) @ (r - centres[g]) for r, g in zip(centred, groups, strict=True))) / total
        if share > explained:
            best, explained = groups == 0, share
    return best, explained


def _describe(sample: _Sample, word: str, neighbours: int) -> WordUses:
    kind = sample.numbers.get(word_key(word), -1)
    occurrences = sample.of(kind)
    if len(occurrences) < 2:
        return WordUses(word, len(occurrences))
    rows = sample.contextual[occurrences]
    first, _ = two_means(rows)
    groups = sorted((occurrences[first], occurrences[~first]), key=len, reverse=True)
    uses = tuple(_use(sample, group, kind, neighbours) for group in groups if len(group))
    near = sample.static @ sample.static[kind]
    return WordUses(word, len(occurrences), uses, tuple(
        sample.spellings[k] for k in _nearest(sample, near, np.arange(len(near)), kind, neighbours)
    ))


def _use(sample: _Sample, group: NDArray[np.int64], kind: int, neighbours: int) -> Use:
    rows = sample.contextual[group]
    typical = int(group[(rows @ rows.mean(0)).argmax()])
    near = sample.contextual @ sample.contextual[typical]
    found = {}
    again = None
    text = sample.places[typical][0]
    known = np.bincount(sample.kinds)
    for one in np.argsort(-near, kind="stable"):
        k = int(sample.kinds[one])
        if k == kind:
            if again is None and sample.places[one][0] != text:
                again = int(one)
        elif k not in found and known[k] >= KNOWN and len(found) < neighbours:
            found[k] = int(one)
        if len(found) >= neighbours and again is not None:
            break
    return Use(len(group), snippet(sample, typical), snippet(sample, again) if again is not None else None,
      tuple(Neighbour(sample.spellings[k], float(near[one]), snippet(sample, one)) for k, one in found.items()))


def _nearest(sample, near, kinds, kind, neighbours):
    known = np.bincount(sample.kinds)
    order = [int(k) for k in np.argsort(-near, kind="stable") if k != kind and known[k] >= KNOWN]
    return order[:neighbours]


def snippet(sample, one):
    n, a, b = sample.places[one]
    t = sample.texts[n]
    return Snippet(t[max(0, a-AROUND):a], t[a:b], t[b:b+AROUND])
