"""Uses of words in a vector cache, and the nearest neighbours of each use.

Static vectors give a word one list of neighbours; contextual vectors give one list for each use
(Peters et al. 2018, section 5.3). Words and uses are found from the cache alone, in any script and
without a word list.
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
"""Maximum number of words that `word_uses` chooses if no words are requested."""

COMMON = 0.004
"""Words with a larger share of all occurrences are taken to be function words and are not chosen."""

CANDIDATES = 400
"""Number of words to choose from: the most frequent ones below `COMMON`."""

SEEN = 24
"""Contexts used to rate a candidate; a word with fewer contexts is not chosen."""

SMALLER = 0.2
"""Minimum share of a word's occurrences in its less frequent use, for the word to be chosen."""

KNOWN = 3
"""Minimum occurrences of a neighbour, because vectors of rarer words are unreliable."""

STARTS = 8
"""Random initialisations of 2-means."""


@dataclass(frozen=True)
class Neighbour:
    """The nearest occurrence of another word, with the cosine similarity of the centred vectors."""

    cosine: float
    snippet: Snippet


@dataclass(frozen=True)
class Use:
    """A use of a word: a group of its occurrences.

    Attributes:
        typical: the occurrence nearest to the mean of the group.
        again: the occurrence of the same group in another text that is nearest to the typical one, or
            None if the whole group is in one text.
        neighbours: occurrences of other words in other texts, one per word, the nearest first. A word
            is a neighbour only of the use it is nearest to.
    """

    typical: Snippet
    again: Snippet | None
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class WordUses:
    """A word and its uses.

    Attributes:
        word: the word.
        occurrences: its occurrences in the sample.
        uses: its uses, the most frequent first; empty if it occurs less than twice.
        static: the nearest words in layer 0, where a word has one vector for all its uses.
    """

    word: str
    occurrences: int
    uses: tuple[Use, ...] = ()
    static: tuple[str, ...] = ()


def word_uses(cache: VectorCache, words: Sequence[str] | None, neighbours: int) -> list[WordUses]:
    """Find up to two uses of words, and the nearest neighbours of each use.

    Args:
        cache: cache of token vectors with all layers; layer 0 must hold the token vector twice, once
            per direction.
        words: the words, or None to choose up to `CHOSEN` words whose uses are the most distinct.
        neighbours: maximum number of neighbours per use.

    Returns:
        The uses of each word, in the order of ``words`` or of distinctness.
    """
    sample = read_sample(cache, words or ())
    if words is None:
        return [_describe(sample, sample.spellings[n], n, neighbours) for n in _choose(sample)]
    return [_describe(sample, word, sample.find(word), neighbours) for word in words]


def _choose(sample: WordSample) -> list[int]:
    """Return the types whose contextual vectors form the most distinct two groups.

    All are rated by the same number of occurrences, because fewer vectors are easier to split.
    """
    # In a small sample, COMMON would leave no word with enough contexts.
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
    """Divide vectors into two groups by k-means with a fixed seed.

    Of all initialisations, those whose smaller group has at least a share of `SMALLER` are preferred,
    then the one with the largest share of variance. Equal vectors are one group.

    Args:
        rows: vectors, shape (n, dim).

    Returns:
        Which vectors are in the first group, bool (n,), and the share of the variance that lies
        between the groups.
    """
    rows = rows - rows.mean(0)
    total = float((rows**2).sum())
    best, rank = np.ones(len(rows), bool), (False, 0.0)
    if total < 1e-6 * len(rows):
        return best, 0.0
    random = np.random.default_rng(0)
    for _ in range(STARTS):
        mean = rows[random.integers(len(rows))]
        far = ((rows - mean) ** 2).sum(1, dtype=np.float64)
        other = rows[random.choice(len(rows), p=far / far.sum())]
        first, former = rows @ (mean - other) > ((mean + other) @ (mean - other)) / 2, None
        while former is None or (first != former).any():
            if first.all() or not first.any():
                break
            mean, other, former = rows[first].mean(0), rows[~first].mean(0), first
            first = rows @ (mean - other) > ((mean + other) @ (mean - other)) / 2
        size = int(first.sum())
        if 0 < size < len(rows):
            # Variance between groups: group sizes times squared lengths of the group means.
            share = (size * float(mean @ mean) + (len(rows) - size) * float(other @ other)) / total
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
    # Occurrences in the same text are near only because they share its context.
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
    """Return the occurrence nearest to the mean of its group."""
    rows = vectors[group]
    return int(group[((rows - rows.mean(0)) ** 2).sum(1).argmin()])


def _again(sample: WordSample, group: Numbers, near: Floats, typical: int) -> Snippet | None:
    """Return the occurrence of the group nearest to the typical one in another text, if any."""
    elsewhere = group[sample.places[group, 0] != sample.places[typical, 0]]
    return sample.snippet(int(elsewhere[near[elsewhere].argmax()])) if len(elsewhere) else None


def least_count(occurrences: int) -> int:
    """Return how often a word must occur in a sample of this size to be shown as a neighbour."""
    return min(KNOWN, 1 + occurrences // 5000)


def _nearest(
    sample: WordSample, near: Floats, types: Numbers, number: int, neighbours: int
) -> list[list[int]]:
    """Return the columns nearest to each row, one per word; a word is given to its nearest row only.

    Args:
        sample: the sample.
        near: cosine similarities, shape (rows, columns); columns with -inf are excluded.
        types: type of each column, shape (columns,).
        number: the type whose neighbours are searched.
        neighbours: maximum number of columns per row.
    """
    known = sample.counts >= least_count(len(sample.types))  # (types,)
    # The characters or pieces of a word have its context, so they would always be its neighbours.
    known[sample.parts(number)] = False
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
