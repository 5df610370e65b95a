"""64-bit hashes of many pieces of one text at once.

The hash of the characters c0, c1, ... is the sum of (ci + 1) p^i modulo 2^64, scrambled, where p is odd.
Sums from the start of the text give the hash of any piece, because an odd p has an inverse. Equal
pieces have equal hashes in every text and every process.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

_PRIME = 0x9E3779B97F4A7C15
_FACTOR = 0xD6E8FEB86659FD93
_WRAP = (1 << 64) - 1
_BLOCK = 1 << 20
"""Characters for which the powers of p are held in memory."""


def scrambled(numbers: Hashes) -> Hashes:
    """Return a pseudo-random number for each number (the finaliser of splitmix64)."""
    mixed = numbers + np.uint64(_PRIME)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@cache
def _powers(base: int) -> Hashes:
    """Return base^0 to base^(_BLOCK - 1) modulo 2^64."""
    powers = np.full(_BLOCK, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def text_keys(number: int) -> Hashes:
    """Return a number for each of some texts, to be part of the hashes of its pieces, shape (texts,).

    The hashes of single characters are `scrambled` small numbers, so large ones are used here.
    """
    return scrambled(~np.arange(number, dtype=np.uint64))


def by_text(hashes: Hashes, texts: npt.NDArray[np.intp]) -> Hashes:
    """Return hashes that are equal only for equal pieces of the same text, shape (pieces,).

    Args:
        hashes: hash of each piece, shape (pieces,).
        texts: index of the text of each piece, in rising order, shape (pieces,).
    """
    return hashes ^ text_keys(int(texts[-1]) + 1 if len(texts) else 0)[texts]


def equal_pairs(hashes: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the indexes of each hash that occurs earlier too, and of its last copy before it.

    Pairs of equal hashes follow one another, in the order of their indexes.
    """
    bits = np.uint64(max(len(hashes).bit_length(), 1))
    low = (np.uint64(1) << bits) - np.uint64(1)
    # The index in the low bits of the sort key makes the sort stable, and five times as fast as argsort.
    keys = (hashes & ~low) | np.arange(len(hashes), dtype=np.uint64)
    keys.sort()
    pairs = np.flatnonzero((keys[1:] ^ keys[:-1]) <= low)
    earlier, later = ((keys[pairs + at] & low).astype(np.intp) for at in (0, 1))
    # The other bits of the key are equal; the bits below the index may not be.
    same = hashes[earlier] == hashes[later]
    return later[same], earlier[same]


class PieceHashes:
    """Hashes of pieces of a text.

    Args:
        codes: code points of the text, shape (characters,).
    """

    def __init__(self, codes: npt.NDArray[np.integer]) -> None:
        self._sums = np.empty(len(codes) + 1, np.uint64)
        self._sums[0] = 0
        powers = _powers(_PRIME)
        for begin in range(0, len(codes), _BLOCK):
            block = (codes[begin : begin + _BLOCK] + 1).astype(np.uint64)
            block *= powers[: len(block)]
            if begin:
                block *= np.uint64(pow(_PRIME, begin, _WRAP + 1))
            np.cumsum(block, out=self._sums[begin + 1 : begin + 1 + len(block)])
            if begin:
                self._sums[begin + 1 : begin + 1 + len(block)] += self._sums[begin]

    def of(self, starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]) -> Hashes:
        """Return the hash of each piece [start, end), shape (pieces,)."""
        inverse = pow(_PRIME, -1, _WRAP + 1)
        hashes = self._sums[ends] - self._sums[starts]
        hashes *= _powers(inverse)[starts & (_BLOCK - 1)]
        if len(starts) and starts[-1] >= _BLOCK:
            hashes *= _powers(pow(inverse, _BLOCK, _WRAP + 1))[starts // _BLOCK]
        return scrambled(hashes)


@cache
def ngram_factor(place: int) -> np.uint64:
    """Return the factor of the hash of the word at a place, from 0 on, in the hash of an n-gram."""
    return np.uint64(pow(_FACTOR, place, _WRAP + 1))


def ngram_hashes(words: Hashes, sizes: Sequence[int]) -> Iterator[tuple[int, Hashes]]:
    """Yield each size n, and the hash of each n-gram of consecutive words, shape (words - n + 1,).

    Args:
        words: hash of each word, shape (words,).
        sizes: the sizes, in rising order.
    """
    sums = words.copy()
    for size in range(1, max(sizes, default=0) + 1):
        if size > 1:
            sums = sums[: max(len(words) - size + 1, 0)]
            sums += words[size - 1 : size - 1 + len(sums)] * ngram_factor(size - 1)
        if size in sizes:
            yield size, sums.copy()
