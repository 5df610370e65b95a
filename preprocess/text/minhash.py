"""MinHash of texts: keys that near-duplicates are likely to share, and sketches to compare them.

A text is represented by the set of its character 5-grams, so no language, script or word boundary
is assumed. Its MinHash signature is divided into bands of several entries ("rows"), and each band
gives a key. A pair of texts is a candidate if a key of the same band is equal. For a pair of Jaccard
similarity s, this has the probability ``1 - (1 - s**rows)**bands``.

Candidates are compared by their sketches, which hold one bit of each signature entry. An entry is
equal in both texts with probability s, and a bit of different entries is equal by chance in half of
the cases, so the share of differing bits has the expectation ``(1 - s) / 2``. With 256 bits, the
standard deviation of the estimated similarity is 0.04 for s = 0.8 (more for texts of less than some
300 characters, which fill fewer entries).

Sources: Broder, "On the resemblance and containment of documents" (1997); Li and König, "b-Bit
minwise hashing" (2010); Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", sections 3.3 and 3.4. One hash per 5-gram, instead of one per
entry of the signature: Li, Owen and Zhang, "One permutation hashing" (2012). Filling of empty
entries: Shrivastava, "Optimal densification for fast and accurate minwise hashing" (2017).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

VERSION = 2
"""Version of the keys and of how near-duplicates are found. Version 1 compared no sketches."""
SHINGLE = 5
"""Characters per n-gram."""
ENTRIES = 256
"""Number of entries of a signature; bands x rows is at most this."""
LEAST_FILLED = 64
"""The signature of a text that fills fewer entries is too unreliable to use."""
FOUND_AT_SIMILARITY = 0.9
"""Smallest probability that a pair of exactly the configured similarity shares a key."""
MOST_ROWS = 7
"""Most rows of a band. More rows need more bands, so more bytes per text. With fewer rows, more texts
that are not similar share a key: with 7 rows and 10 bands, one pair in a million of similarity 0.1."""
SKETCH_WORDS = ENTRIES // 64
"""Number of 64-bit words of a sketch."""

NO_KEY = np.uint32(0xFFFFFFFF)
"""Stands for the key of a band that a text does not have."""

Keys = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]
"""Keys of texts, shape (texts, bands), and their sketches, shape (texts, `SKETCH_WORDS`)."""

_BATCH_CHARACTERS = 1 << 20
# Characters hashed at once, few enough that intermediate arrays stay in the processor's cache.
_SLICE = 1 << 16
_EMPTY = np.uint32(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Bands:
    """Computes the LSH keys and the sketches of texts.

    They depend only on the text, the similarity and the seed, not on the machine or the batch. A
    text that fills fewer than `LEAST_FILLED` signature entries (shorter than about 80 characters,
    or repetitive) has only the key of the first band, which only equal texts share, as the sketch.

    Args:
        similarity: Jaccard similarity from which pairs are candidates with probability 0.9 or more.
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

    def keys(self, texts: Sequence[str]) -> Keys:
        """Return the keys and the sketches of texts.

        Different bands have different keys; `NO_KEY` stands for none. Working memory grows with the longest text, not with
        the number of texts.
        """
        parts = [self._keys(batch) for batch in _batches(texts)]
        keys = [np.empty((0, self.bands), np.uint32), *(part[0] for part in parts)]
        sketches = [np.empty((0, SKETCH_WORDS), np.uint64), *(part[1] for part in parts)]
        return np.concatenate(keys), np.concatenate(sketches)

    def _keys(self, texts: Sequence[str]) -> Keys:
        signatures = self._minima(texts)
        enough = np.count_nonzero(signatures != _EMPTY, axis=1) >= LEAST_FILLED
        filled = _filled(signatures[enough])
        used = filled[:, : self._factors.size].reshape(-1, self.bands, self.rows)
        keys = np.empty((len(texts), self.bands), np.uint64)
        keys[enough] = np.einsum("tbr,br->tb", used, self._factors, dtype=np.uint64)
        # The eight lowest bits select the entry, and the highest bits of a minimum are 0.
        chosen = (filled >> np.uint32(8) & np.uint32(1)).astype(np.uint8)
        bits = np.packbits(chosen, axis=1, bitorder="little")
        sketches = np.empty((len(texts), SKETCH_WORDS), np.uint64)
        sketches[enough] = bits.view("<u8")
        # The other texts get keys and sketches from a hash of the whole text.
        whole = [
            xxhash.xxh3_64_intdigest(texts[i].encode()) for i in np.flatnonzero(~enough).tolist()
        ]
        hashes = np.array(whole, np.uint64)[:, None]
        keys[~enough] = hashes * self._factors[:, 0]
        sketches[~enough] = _mix64(
            hashes * self._factors[0, 0] + np.arange(SKETCH_WORDS, dtype=np.uint64) * _GOLDEN
        )
        # A different constant for each band, so that only keys of the same band are equal.
        keys += np.arange(self.bands, dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93)
        mixed = (_mix64(keys) >> np.uint64(32)).astype(np.uint32)
        mixed[~enough, 1:] = NO_KEY
        return mixed, sketches

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

    These are the most rows, up to `MOST_ROWS`, and then the fewest bands, for which a pair at the
    threshold is a candidate with probability `FOUND_AT_SIMILARITY` or more.
    """
    for rows in range(MOST_ROWS, 0, -1):
        for bands in range(1, ENTRIES // rows + 1):
            if 1 - (1 - similarity**rows) ** bands >= FOUND_AT_SIMILARITY:
                return bands, rows
    raise ValueError(f"no bands for the similarity {similarity}")


def most_differing(similarity: float) -> int:
    """Return how many bits the sketches of texts of this similarity differ in on average, rounded down."""
    return int(ENTRIES * (1 - similarity) / 2)


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


def _mix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix 64-bit values by the finaliser of SplitMix64, a bijection; works in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
