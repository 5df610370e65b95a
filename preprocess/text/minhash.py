"""Near-duplicate detection by MinHash LSH: near-duplicates share a key.

A text is represented by the set of its character 5-grams, so no language, script or word boundary
is assumed. Its MinHash signature is divided into bands of several entries ("rows"), and each band
gives a key. Two texts with an equal key in the same band count as near-duplicates. Texts are not
compared, so this is an estimate: a pair of Jaccard similarity s is found with probability
``1 - (1 - s**rows)**bands``, which rises steeply at the configured similarity but is neither 0 below
it nor 1 above it.

Sources: Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", sections 3.3 and 3.4. One hash per 5-gram, instead of one per
entry of the signature: Li, Owen and Zhang, "One permutation hashing" (2012). Filling of empty
entries: Shrivastava, "Optimal densification for fast and accurate minwise hashing" (2017).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

SHINGLE = 5
"""Characters per n-gram."""
ENTRIES = 256
"""Number of entries of a signature; bands x rows is at most this."""
LEAST_FILLED = 64
"""The signature of a text that fills fewer entries is too unreliable to use."""
FOUND_AT_SIMILARITY = 0.75
"""Smallest probability of finding a pair of exactly the configured similarity."""

_BATCH_CHARACTERS = 1 << 20
# Characters hashed at once, few enough that intermediate arrays stay in the processor's cache.
_SLICE = 1 << 16
_EMPTY = np.uint32(0xFFFFFFFF)


class Bands:
    """Computes the LSH keys of texts; near-duplicates are likely to share the key of some band.

    Keys depend only on the text, the similarity and the seed, not on the machine or the batch. A
    text that fills fewer than `LEAST_FILLED` signature entries (shorter than about 80 characters,
    or repetitive) gets keys that only equal texts share.

    Args:
        similarity: Jaccard similarity from which pairs are found with probability 0.75 or more.
        seed: seed of the hash functions.

    Attributes:
        bands: number of bands, which is the number of keys per text.
        rows: signature entries per band.
    """

    def __init__(self, similarity: float, seed: int) -> None:
        self.bands, self.rows = bands_and_rows(similarity)
        salts = [xxhash.xxh3_64_intdigest(str(i).encode(), seed) for i in range(ENTRIES + 1)]
        self._salt = np.uint32(salts.pop() & 0xFFFFFFFF)
        self._factors = np.array(salts, "u8")[: self.bands * self.rows] | np.uint64(1)
        self._factors = self._factors.reshape(self.bands, self.rows)

    def keys(self, texts: Sequence[str]) -> npt.NDArray[np.uint64]:
        """Return the keys of texts, uint64 of shape (texts, bands).

        Working memory grows with the longest text, not with the number of texts.
        """
        parts = [self._keys(batch) for batch in _batches(texts)]
        return np.concatenate([np.empty((0, self.bands), np.uint64), *parts])

    def _keys(self, texts: Sequence[str]) -> npt.NDArray[np.uint64]:
        signatures = self._minima(texts)
        enough = np.count_nonzero(signatures != _EMPTY, axis=1) >= LEAST_FILLED
        used = _filled(signatures[enough])[:, : self._factors.size]
        used = used.reshape(-1, self.bands, self.rows)
        keys = np.empty((len(texts), self.bands), np.uint64)
        keys[enough] = np.einsum("tbr,br->tb", used, self._factors, dtype=np.uint64)
        # The other texts get keys from a hash of the whole text.
        whole = [
            xxhash.xxh3_64_intdigest(texts[i].encode()) for i in np.flatnonzero(~enough).tolist()
        ]
        keys[~enough] = np.array(whole, np.uint64)[:, None] * self._factors[:, 0]
        # The low bits of a hash select its entry, so they hardly vary; mix the bits of the sums.
        keys ^= keys >> np.uint64(32)
        keys *= np.uint64(0x9E3779B97F4A7C15)
        return keys ^ (keys >> np.uint64(32))

    def _minima(self, texts: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Return the signatures: for each entry the least hash of the 5-grams assigned to it.

        Shape (texts, ENTRIES); `_EMPTY` if no 5-gram is assigned to the entry.
        """
        points = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ends = np.cumsum(lengths)
        minima = np.full(len(texts) * ENTRIES, _EMPTY)
        for start in range(0, len(points) - SHINGLE + 1, _SLICE):
            hashes = self._hash(points[start : start + _SLICE + SHINGLE - 1])
            first, last = np.searchsorted(ends, [start, start + len(hashes) - 1], side="right")
            inside = ends[first : last + 1] - start
            # Ignore 5-grams that reach into the next text.
            across = (inside[:, None] - np.arange(1, SHINGLE)).ravel()
            hashes[across[(across >= 0) & (across < len(hashes))]] = _EMPTY
            inside[-1] = len(hashes)
            rows = np.repeat(np.arange(first, last + 1), np.diff(inside, prepend=0))
            np.minimum.at(minima, rows * ENTRIES + (hashes & np.uint32(ENTRIES - 1)), hashes)
        return minima.reshape(len(texts), ENTRIES)

    def _hash(self, points: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Return the 32-bit hash of each 5-gram of code points, shape (points - 4,)."""
        pairs = points[:-1] * np.uint32(0x9E3779B1) + points[1:]
        fours = pairs[:-2] * np.uint32(0x85EBCA77) + pairs[2:]
        return _mix((fours[:-1] * np.uint32(0xC2B2AE3D) + points[4:]) ^ self._salt)


def _filled(signatures: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Fill each empty entry of signatures (texts, ENTRIES) from a filled one of the same text.

    The entries tried are pseudo-random but equal for all texts. Works in place.
    """
    flat = signatures.reshape(-1)
    original = flat != _EMPTY
    entries = np.arange(ENTRIES, dtype=np.uint32)
    empty = np.flatnonzero(~original)
    attempt = 0
    while len(empty):
        attempt += 1
        drawn = _mix(entries + np.uint32(attempt * ENTRIES)) & np.uint32(ENTRIES - 1)
        step = drawn.astype(np.int64) - entries
        donor = empty + step[empty & (ENTRIES - 1)]
        found = original[donor]
        flat[empty[found]] = flat[donor[found]]
        empty = empty[~found]
    return signatures


def bands_and_rows(similarity: float) -> tuple[int, int]:
    """Return the number of bands and of rows per band for a similarity threshold.

    These are the most rows, so the steepest probability curve, for which a pair at the threshold is
    found with probability `FOUND_AT_SIMILARITY` or more.
    """
    for rows in range(ENTRIES, 1, -1):
        bands = ENTRIES // rows
        if 1 - (1 - similarity**rows) ** bands >= FOUND_AT_SIMILARITY:
            return bands, rows
    return ENTRIES, 1


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield consecutive texts of about `_BATCH_CHARACTERS` in total."""
    start, characters = 0, 0
    for number, text in enumerate(texts):
        # A text also needs memory for its signature.
        characters += max(len(text), ENTRIES)
        if characters >= _BATCH_CHARACTERS:
            yield texts[start : number + 1]
            start, characters = number + 1, 0
    if start < len(texts):
        yield texts[start:]


def _mix(values: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Mix 32-bit values by the finaliser of MurmurHash3, a bijection; works in place."""
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values
