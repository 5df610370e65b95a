"""Pairs of near-duplicates among documents that share the key of a MinHash band.

The documents with an equal key are a group. In a group, the sketches of documents are compared
(`preprocess.text.minhash`), so that a shared key alone makes no pair. A template with thousands of
variants must not cost quadratic time, so a document is not compared with all earlier ones of its
group, but with its references: the first of several documents with equal sketches may become one,
and does if fewer than `ENOUGH` earlier references are similar to it. A group has at most
`MOST_REFERENCES`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ENOUGH = 4
"""A document that is similar to this many references becomes none. It is more than one, because a
reference may be dropped itself for a document that is not in the group."""

MOST_REFERENCES = 512
"""Maximum number of references of a group."""

MOST_PAIRS = 8
"""Maximum number of pairs of a document in a group; the most similar references count."""

SMALL_GROUP = 16
"""Maximum number of documents of a group that are all compared with each other."""

_CHUNK = 1024
# Documents of a large group that are compared with all references at once.


class Pairs(NamedTuple):
    """Pairs of similar documents.

    Attributes:
        later: index of the later document of each pair, shape (pairs,).
        earlier: index of the earlier document, shape (pairs,).
        differing: number of bits in which their sketches differ, uint16, shape (pairs,).
    """

    later: npt.NDArray[np.intp]
    earlier: npt.NDArray[np.intp]
    differing: npt.NDArray[np.uint16]


def find_pairs(
    keys: npt.NDArray[np.uint32], sketches: npt.NDArray[np.uint64], most_differing: int
) -> Pairs:
    """Return the pairs of similar documents that share a key.

    A document whose sketch equals that of an earlier document of the group has one pair, with the
    first such document. So the number of pairs is at most `MOST_PAIRS` times the number of rows
    (`SMALL_GROUP` times in small groups), and memory is proportional to it.

    Args:
        keys: key of each row, shape (rows,). Of two rows with equal keys, the first is the earlier
            document.
        sketches: sketch of each row, shape (rows, words).
        most_differing: number of bits in which the sketches of similar documents may differ.
    """
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    shared = np.zeros(len(order), bool)
    shared[1:] = same
    shared[:-1] |= same
    rows = order[shared]
    first, copies = _copies(keys[rows], sketches[rows])
    found = [Pairs(rows[copies], rows[first[copies]], np.zeros(len(copies), np.uint16))]
    distinct = rows[first == np.arange(len(rows))]
    found += _distinct_pairs(keys[distinct], sketches[distinct], distinct, most_differing)
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def count_differing(
    one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint16]:
    """Return the number of bits in which sketches differ; shapes (..., words) that broadcast."""
    bits: npt.NDArray[np.uint16] = np.bitwise_count(one ^ other).sum(axis=-1, dtype=np.uint16)
    return bits


def _copies(
    keys: npt.NDArray[np.uint32], sketches: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the first row with the key and sketch of each row, and the rows that are not the first."""
    order = np.lexsort((*sketches.T, keys))
    ordered = sketches[order]
    same = np.zeros(len(order), bool)
    same[1:] = (keys[order][1:] == keys[order][:-1]) & (ordered[1:] == ordered[:-1]).all(axis=1)
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    first = np.empty(len(order), np.intp)
    # The sort is stable, so the first row of a run is the first document.
    first[order] = order[starts]
    return first, np.flatnonzero(first != np.arange(len(order)))


def _distinct_pairs(
    keys: npt.NDArray[np.uint32],
    sketches: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.intp],
    most: int,
) -> list[Pairs]:
    """Return the pairs of rows with equal keys and different sketches; ``keys`` are sorted."""
    found = []
    starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1])) if len(keys) else np.empty(0, np.intp)
    sizes = np.diff(starts, append=len(keys))
    small = np.repeat(sizes <= SMALL_GROUP, sizes)
    for step in range(1, min(SMALL_GROUP, int(sizes.max(initial=0)))):
        earlier = np.flatnonzero((keys[step:] == keys[:-step]) & small[step:])
        differing = count_differing(sketches[earlier], sketches[earlier + step])
        near = differing <= most
        found.append(Pairs(rows[earlier[near] + step], rows[earlier[near]], differing[near]))
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if size > SMALL_GROUP:
            group = _Group(sketches[start : start + size], most).pairs()
            found.append(Pairs(rows[start + group.later], rows[start + group.earlier], group[2]))
    return found


class _Group:
    """The rows of a large group, which have different sketches."""

    def __init__(self, sketches: npt.NDArray[np.uint64], most: int) -> None:
        self._sketches, self._most = sketches, most
        self._references: list[int] = []

    def pairs(self) -> Pairs:
        found = [self._chunk(start) for start in range(0, len(self._sketches), _CHUNK)]
        return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _chunk(self, start: int) -> Pairs:
        rows = np.arange(start, min(start + _CHUNK, len(self._sketches)))
        before = np.array(self._references, np.intp)
        table = count_differing(self._sketches[rows, None], self._sketches[before])
        columns = [table]
        similar = (table <= self._most).sum(axis=1)
        pending = np.flatnonzero(similar < ENOUGH)
        while len(pending) and len(self._references) < MOST_REFERENCES:
            chosen, pending = int(pending[0]), pending[1:]
            self._references.append(start + chosen)
            differing = np.full(len(rows), np.iinfo(np.uint16).max, np.uint16)
            # Earlier rows are no later documents of a pair with this one.
            differing[chosen + 1 :] = count_differing(
                self._sketches[rows[chosen + 1 :]], self._sketches[start + chosen]
            )
            columns.append(differing[:, None])
            similar += differing <= self._most
            pending = pending[similar[pending] < ENOUGH]
        return self._best(rows, np.concatenate(columns, axis=1))

    def _best(self, rows: npt.NDArray[np.intp], table: npt.NDArray[np.uint16]) -> Pairs:
        """Return up to `MOST_PAIRS` pairs of each row, given its differing bits from each reference."""
        references = np.array(self._references, np.intp)
        best = np.argsort(table, axis=1, kind="stable")[:, :MOST_PAIRS]
        differing = np.take_along_axis(table, best, axis=1)
        row, column = np.nonzero(differing <= self._most)
        return Pairs(rows[row], references[best[row, column]], differing[row, column])
