"""Deduplication through files: exact duplicates by content hash, near-duplicates by MinHash bands.

1. The first pass writes a key per document (`write_keys`), grouped by bucket.
2. `deduplicate_bucket` compares the keys of a bucket over all units and writes a drop list.
3. The last pass reads the drop lists of its unit (`read_duplicates`).

Keys go through files, so that the memory of the Beam runner does not grow with the corpus. The first
of several documents with equal keys is kept: the one in the lowest unit, and in that unit the one
with the lowest number. The result does not depend on the order of work.

For near-duplicates (`preprocess.text.minhash.Bands`) a document has one key per band. It is dropped
if one of its keys equals a key of an earlier document, even if that document is dropped itself.

A drop list also has the earlier document for which a document is dropped: the first one with an equal
key.
"""

import math
from collections import Counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from preprocess.files.storage import exists
from preprocess.work import folder
from preprocess.work.shuffle import Shuffle, read_group, write_groups

Kind = Literal["hashes", "bands"]
"""What is compared: content hashes, or MinHash bands."""

KEYS = {
    "hashes": np.dtype([("document", "<u4"), ("low", "<u8"), ("high", "<u8")]),
    "bands": np.dtype([("document", "<u4"), ("low", "<u8")]),
}
"""Dtype of a key by kind: number of the document in its unit, and its 128-bit content hash (in two
halves) or the 64-bit key of one of its bands."""

DROP = np.dtype([("document", "<u4"), ("original", [("unit", "<u4"), ("number", "<u4")])])
"""Dtype of a row of a drop list: number of the document in its unit, and the earlier document."""

BUCKET_BYTES = 32 << 20
"""Raw bytes of corpus per bucket. A bucket has the keys of at most a million short documents, which
take 60 MB while they are sorted."""

LINEAR_BUCKETS = 512
"""Above this number, the number of buckets grows only with the square root of the corpus size,
because every bucket reads a slice of every unit."""

BAND_BUCKETS = 4
"""Buckets of bands per bucket of hashes, because a document has 12 to 51 bands."""


def key_buckets(corpus_bytes: int, kind: Kind = "hashes") -> int:
    """Return the number of buckets for a corpus of this many raw bytes.

    It depends on the size only, so every rerun agrees.
    """
    wanted = max(1, -(-corpus_bytes // BUCKET_BYTES))
    if wanted > LINEAR_BUCKETS:
        wanted = math.isqrt(LINEAR_BUCKETS * wanted)
    return wanted * (BAND_BUCKETS if kind == "bands" else 1)


def hash_keys(hashes: npt.NDArray[np.uint64], first: int) -> npt.NDArray[Any]:
    """Return the keys of documents numbered from ``first``.

    Args:
        hashes: high and low halves of their content hashes, shape (documents, 2).
        first: number of the first document in its unit.
    """
    keys = np.empty(len(hashes), KEYS["hashes"])
    keys["document"] = np.arange(first, first + len(hashes))
    keys["high"], keys["low"] = hashes[:, 0], hashes[:, 1]
    return keys


def band_keys(bands: npt.NDArray[np.uint64], first: int) -> npt.NDArray[Any]:
    """Return the keys of documents numbered from ``first``, in the order of documents.

    Args:
        bands: keys of the documents from `preprocess.text.minhash.Bands`, shape (documents, bands).
        first: number of the first document in its unit.
    """
    number = bands.shape[1]
    keys = np.empty(bands.size, KEYS["bands"])
    keys["document"] = np.repeat(np.arange(first, first + len(bands)), number)
    # A different constant for each band, so that only keys of the same band can be equal.
    salt = np.arange(number, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys["low"] = (bands + salt).ravel()
    return keys


def write_keys(
    work: str, kind: Kind, unit: int, segment: int, keys: npt.NDArray[Any], buckets: int
) -> None:
    """Write the keys of a segment's documents, grouped by bucket.

    Args:
        work: folder of unfinished work.
        kind: kind of the keys.
        unit: number of the unit.
        segment: number of the segment in the unit.
        keys: keys of type ``KEYS[kind]``, in the order of documents.
        buckets: number of buckets, from `key_buckets`.
    """
    bucket_of = keys["low"] % np.uint64(buckets)
    _shuffle(work, kind).write_rows(unit, segment, keys, bucket_of, buckets)


def deduplicate_bucket(work: str, kind: Kind, units: int, bucket: int) -> None:
    """Write the drop list of a bucket, unless it exists; all units must have written their keys.

    Args:
        work: folder of unfinished work.
        kind: kind of the keys.
        units: number of units of the corpus.
        bucket: number of the bucket.
    """
    target = folder.drop_list(work, kind, bucket)
    if exists(target):
        return
    slices, slice_units = [np.empty(0, KEYS[kind])], [np.empty(0, np.uint32)]
    for unit, data in _shuffle(work, kind).read(bucket):
        keys = np.frombuffer(data, KEYS[kind])
        slices.append(keys)
        slice_units.append(np.full(len(keys), unit, np.uint32))
    table, unit_of = np.concatenate(slices), np.concatenate(slice_units)
    # Rows are in the order of units and documents.
    repeated, originals = _repeated(table)
    order = np.argsort(repeated)
    repeated, originals = repeated[order], originals[order]
    _, repeats = np.unique(table["low"][repeated], return_counts=True)
    _, bits = np.frexp(repeats.astype(np.float64))
    copies = {f"{(1 << bit - 1) + 1}": n for bit, n in sorted(Counter(bits.tolist()).items())}
    folder.write_record(folder.copies_record(work, kind, bucket), copies)
    rows = np.empty(len(repeated), DROP)
    rows["document"] = table["document"][repeated]
    rows["original"]["unit"] = unit_of[originals]
    rows["original"]["number"] = table["document"][originals]
    bounds = DROP.itemsize * np.searchsorted(unit_of[repeated], np.arange(units + 1))
    write_groups(target, rows.tobytes(), bounds)


def read_duplicates(
    work: str, kind: Kind, unit: int, buckets: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return the documents of a unit to drop, and the earliest document with an equal key for each.

    Returns:
        The numbers of the documents, sorted and distinct, uint32, shape (documents,); unit and number
        of their earliest documents, uint32, shape (documents, 2).
    """
    none = np.uint64(2**64 - 1)
    # Indexed by the document, so that memory does not grow with the number of bands.
    earliest = np.empty(0, np.uint64)
    for bucket in range(buckets):
        # Only the unit's part of each list, because whole lists would cost time quadratic in the corpus.
        data = read_group(folder.drop_list(work, kind, bucket), unit)
        rows = np.frombuffer(data, DROP)
        if len(rows):
            more = int(rows["document"].max()) + 1 - len(earliest)
            earliest = np.concatenate([earliest, np.full(max(more, 0), none)])
            original = rows["original"]
            keys = original["unit"].astype(np.uint64) << np.uint64(32) | original["number"]
            np.minimum.at(earliest, rows["document"], keys)
    numbers = np.flatnonzero(earliest != none)
    found = earliest[numbers]
    originals = np.stack([found >> np.uint64(32), found & np.uint64(2**32 - 1)], axis=1)
    return numbers.astype(np.uint32), originals.astype(np.uint32)


def read_drops(work: str, kind: Kind, unit: int, buckets: int) -> npt.NDArray[np.uint32]:
    """Return the numbers of the documents of a unit to drop, sorted and distinct, uint32."""
    return read_duplicates(work, kind, unit, buckets)[0]


def read_copies(work: str, kind: Kind, buckets: int) -> Counter[int]:
    """Return how many keys occur 2, 3 to 4, 5 to 8, 9 to 16 ... times.

    The keys of the counter are the lower bounds 2, 3, 5, 9 ...
    """
    copies: Counter[int] = Counter()
    for bucket in range(buckets):
        record = folder.read_record(folder.copies_record(work, kind, bucket))
        copies.update({int(least): number for least, number in record.items()})
    return copies


def _shuffle(work: str, kind: Kind) -> Shuffle:
    return Shuffle(folder.shuffle_folder(work, kind))


def _repeated(table: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the indices of the keys that equal an earlier key, and of the first key equal to each."""
    order = np.argsort(table["low"], kind="stable")
    low = table["low"][order]
    same = low[1:] == low[:-1]
    if "high" in table.dtype.fields:  # type: ignore[operator]
        high = table["high"][order]
        if (same & (high[1:] != high[:-1])).any():
            # Rare: keys that are equal in the low half only may lie between equal keys.
            order = np.lexsort((table["low"], table["high"]))
            low, high = table["low"][order], table["high"][order]
            same = low[1:] == low[:-1]
        same &= high[1:] == high[:-1]
    # The last index up to which a key differs from the one before it starts the group of a key.
    starts = np.maximum.accumulate(np.where(same, 0, np.arange(1, len(same) + 1)))
    return order[1:][same], order[starts[same]]
