"""Words with several uses in a vector cache: what is near each use, and near the word in itself.

Asked for the neighbours of a word, word2vec has one answer; contextual vectors have one for each
use (Peters et al. 2018, section 5.3). Words and their uses are read off the cache alone: there is
no word list and no assumption of a script or of spaces.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.vectors.cache import VectorCache
from preprocess.vectors.word_sample import (
    AROUND,
    Floats,
    Numbers,
    Snippet,
    WordSample,
    read_sample,
    shown,
)

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

STARTS = 8
"""Random starts of 2-means."""


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
    """One a word, of another text, each with the use that it is nearer to; the nearest first."""


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
    sample = read_sample(cache, words or ())
    if words is None:
        return [_describe(sample, sample.spellings[n], n, neighbours) for n in _choose(sample)]
    return [_describe(sample, word, sample.find(word), neighbours) for word in words]


def _choose(sample: WordSample) -> list[int]:
    """The types whose contextual vectors fall most clearly into two groups.

    All are judged by equally many occurrences, since few vectors are split better than many.
    """
    # In a small sample that share would leave no word with contexts enough.
    most = max(COMMON * len(sample.types), 4 * SEEN)
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


def _describe(sample: WordSample, word: str, number: int | None, neighbours: int) -> WordUses:
    occurrences = int(sample.counts[number]) if number is not None else 0
    if number is None or occurrences < 2:
        return WordUses(shown(word), occurrences)
    contexts = sample.contexts(number)
    first, _ = two_means(sample.contextual[contexts])
    groups = [group for group in (contexts[first], contexts[~first]) if len(group)]
    groups.sort(key=len, reverse=True)
    typical = [_typical(sample.contextual, group) for group in groups]
    near = sample.contextual[typical] @ sample.contextual.T  # (uses, occurrences)
    again = [_again(sample, group, near[n], typical[n]) for n, group in enumerate(groups)]
    # What stands in the same text is near for that alone.
    near[sample.places[typical, 0][:, None] == sample.places[:, 0]] = -np.inf
    found = _nearest(sample, near, sample.types, number, neighbours)
    uses = tuple(
        Use(
            sample.snippet(one),
            again[n],
            tuple(Neighbour(float(near[n, o]), sample.snippet(o)) for o in found[n]),
        )
        for n, one in enumerate(typical)
    )
    similar = (sample.static @ sample.static[number])[None]  # (1, types)
    static = _nearest(sample, similar, np.arange(len(sample.spellings)), number, neighbours)[0]
    return WordUses(
        shown(word), occurrences, uses, tuple(shown(sample.spellings[n])[:AROUND] for n in static)
    )


def _typical(vectors: Floats, group: Numbers) -> int:
    """The member nearest to the group's mean."""
    rows = vectors[group]
    return int(group[((rows - rows.mean(0)) ** 2).sum(1).argmin()])


def _again(sample: WordSample, group: Numbers, near: Floats, typical: int) -> Snippet | None:
    elsewhere = group[sample.places[group, 0] != sample.places[typical, 0]]
    return sample.snippet(int(elsewhere[near[elsewhere].argmax()])) if len(elsewhere) else None


def _nearest(
    sample: WordSample, near: Floats, types: Numbers, number: int, neighbours: int
) -> list[list[int]]:
    """Columns of the words nearest to each row; a word stands with the row it is nearest to.

    Args:
        near: (rows, columns), cosines; -inf is never taken.
        types: (columns,)
        number: the type whose neighbours are looked for.
    """
    known = sample.counts >= min(KNOWN, 1 + len(sample.types) // 5000)  # (types,)
    keys = sample.keys[types]
    allowed = np.flatnonzero(known[types] & (keys != sample.keys[number]))
    best = np.full((len(near), int(sample.keys.max()) + 1), -np.inf)
    for row, cosines in zip(best, near, strict=True):
        np.maximum.at(row, keys[allowed], cosines[allowed])
    owner = best.argmax(0)
    found: list[list[int]] = []
    for n, cosines in enumerate(near):
        own = allowed[(owner[keys[allowed]] == n) & (cosines[allowed] > -np.inf)]
        ordered = own[np.argsort(-cosines[own], kind="stable")]
        _, firsts = np.unique(keys[ordered], return_index=True)
        found.append([int(c) for c in ordered[np.sort(firsts)][:neighbours]])
    return found
