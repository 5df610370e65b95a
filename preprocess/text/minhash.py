"""Near-duplicates by MinHash LSH: texts that are almost equal share a key.

A text is the set of its character 5-grams, so no language, script or word boundary is assumed. Its
MinHash signature is cut into bands, a key each; two texts that agree in a whole band are taken for
near-duplicates. That is a guess by design: there is no look at the texts themselves, so a pair of
Jaccard similarity s is found with probability ``1 - (1 - s**rows)**bands``, which rises steeply at
the similarity asked for and is neither 0 below it nor 1 above.

Sources: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", sections 3.3 and 3.4; one hash a 5-gram instead of one for
each entry of the signature: Li, Owen and Zhang, "One permutation hashing" (2012), with the empty
entries filled as in Shrivastava, "Optimal densification for fast and accurate minwise hashing" (2017).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

SHINGLE = 5
"""Characters of an n-gram."""
ENTRIES = 256
"""Length of a signature, at most: bands x rows is near it."""
LEAST_FILLED = 64
"""Entries with a 5-gram of the text's own below which its signature says too little."""
FOUND_AT_SIMILARITY = 0.75
"""Least probability with which a pair of exactly the similarity asked for is found."""

_BATCH_CHARACTERS = 1 << 20
# Intermediate arrays then stay in the processor's cache.
_SLICE = 1 << 16
_EMPTY = np.uint32(0xFFFFFFFF)


class Bands:
    """Keys of texts, of which near-duplicates share at least one at the same band.

    The keys depend on the text, the similarity and the seed only, not on machine or batch. A text
    that fills fewer than 64 of 256 signature entries (under about 80 characters, or monotonous) has
    keys that only an equal text shares.
    """

    def __init__(self, similarity: float, seed: int) -> None:
        self.bands, self.rows = bands_and_rows(similarity)
        salts = [xxhash.xxh3_64_intdigest(str(i).encode(), seed) for i in range(ENTRIES + 1)]
        self._salt = np.uint32(salts.pop() & 0xFFFFFFFF)
        self._factors = np.array(salts, "u8")[: self.bands * self.rows] | np.uint64(1)
        self._factors = self._factors.reshape(self.bands, self.rows)

    def keys(self, texts: Sequence[str]) -> npt.NDArray[np.uint64]:
        """(texts, bands) uint64 keys. Memory grows with the longest text, not with their number."""
        parts = [self._keys(batch) for batch in _batches(texts)]
        return np.concatenate([np.empty((0, self.bands), np.uint64), *parts])

    def _keys(self, texts: Sequence[str]) -> npt.NDArray[np.uint64]:
        signatures = self._minima(texts)
        enough = np.count_nonzero(signatures != _EMPTY, axis=1) >= LEAST_FILLED
        used = _filled(signatures[enough])[:, : self._factors.size]
        used = used.reshape(-1, self.bands, self.rows)
        keys = np.empty((len(texts), self.bands), np.uint64)
        keys[enough] = np.einsum("tbr,br->tb", used, self._factors, dtype=np.uint64)
        whole = [
            xxhash.xxh3_64_intdigest(texts[i].encode()) for i in np.flatnonzero(~enough).tolist()
        ]
        keys[~enough] = np.array(whole, np.uint64)[:, None] * self._factors[:, 0]
        # The low bits of a hash told its entry, so those of the sums hardly differ.
        keys ^= keys >> np.uint64(32)
        keys *= np.uint64(0x9E3779B97F4A7C15)
        return keys ^ (keys >> np.uint64(32))

    def _minima(self, texts: Sequence[str]) -> npt.NDArray[np.uint32]:
        """(texts, ENTRIES) the least hash of those 5-grams of each text that fall to an entry."""
        points = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ends = np.cumsum(lengths)
        minima = np.full(len(texts) * ENTRIES, _EMPTY)
        for start in range(0, len(points) - SHINGLE + 1, _SLICE):
            hashes = self._hash(points[start : start + _SLICE + SHINGLE - 1])
            first, last = np.searchsorted(ends, [start, start + len(hashes) - 1], side="right")
            inside = ends[first : last + 1] - start
            # A 5-gram that reaches into the next text belongs to none.
            across = (inside[:, None] - np.arange(1, SHINGLE)).ravel()
            hashes[across[(across >= 0) & (across < len(hashes))]] = _EMPTY
            inside[-1] = len(hashes)
            rows = np.repeat(np.arange(first, last + 1), np.diff(inside, prepend=0))
            np.minimum.at(minima, rows * ENTRIES + (hashes & np.uint32(ENTRIES - 1)), hashes)
        return minima.reshape(len(texts), ENTRIES)

    def _hash(self, points: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """(5-grams,) a 32-bit hash of each."""
        pairs = points[:-1] * np.uint32(0x9E3779B1) + points[1:]
        fours = pairs[:-2] * np.uint32(0x85EBCA77) + pairs[2:]
        return _mix((fours[:-1] * np.uint32(0xC2B2AE3D) + points[4:]) ^ self._salt)


def _filled(signatures: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """(texts, ENTRIES) each empty entry filled from another, drawn in the same order for every text."""
    flat = signatures.reshape(-1)
    own = flat != _EMPTY
    entries = np.arange(ENTRIES, dtype=np.uint32)
    empty = np.flatnonzero(~own)
    attempt = 0
    while len(empty):
        attempt += 1
        drawn = _mix(entries + np.uint32(attempt * ENTRIES)) & np.uint32(ENTRIES - 1)
        step = drawn.astype(np.int64) - entries
        donor = empty + step[empty & (ENTRIES - 1)]
        found = own[donor]
        flat[empty[found]] = flat[donor[found]]
        empty = empty[~found]
    return signatures


def bands_and_rows(similarity: float) -> tuple[int, int]:
    """The most rows, so the steepest curve, with which a pair of that similarity is still found."""
    for rows in range(ENTRIES, 1, -1):
        bands = ENTRIES // rows
        if 1 - (1 - similarity**rows) ** bands >= FOUND_AT_SIMILARITY:
            return bands, rows
    return ENTRIES, 1


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in runs that hold about so many characters, and so few texts."""
    start, characters = 0, 0
    for number, text in enumerate(texts):
        # A short text costs its signature.
        characters += max(len(text), ENTRIES)
        if characters >= _BATCH_CHARACTERS:
            yield texts[start : number + 1]
            start, characters = number + 1, 0
    if start < len(texts):
        yield texts[start:]


def _mix(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """A permutation of 32-bit numbers that looks random: the finaliser of MurmurHash3."""
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values
