"""Deduplication through files, in any order of work: exact by content hash, near by MinHash bands.

Each unit writes its documents' keys grouped by bucket; a bucket then reads its slice of every
unit's and writes which documents to drop. Only names and counts go through the runner, whose memory
would otherwise grow with the corpus. Of documents with an equal key the first stays: lowest unit,
then lowest number in it.

For near-duplicates (`near_duplicates.Bands`) a document has a key a band, and one equal to an
earlier document's is enough to be dropped, whether or not that one stays itself.
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

KEYS = {
    "hashes": np.dtype([("document", "<u4"), ("low", "<u8"), ("high", "<u8")]),
    "bands": np.dtype([("document", "<u4"), ("low", "<u8")]),
}
"""A key of a document: the halves of its 128-bit hash, or the key of one of its bands."""

BUCKET_BYTES = 32 << 20
"""Raw text a bucket stands for: at most a million short documents, 60 MB while it is sorted."""
LINEAR_BUCKETS = 512
"""Above so many, buckets grow as their number does: every one reads a slice of every unit."""
BAND_BUCKETS = 4
"""Buckets of bands for one of hashes, since a document has 12 to 51 bands."""


def key_buckets(corpus_bytes: int, kind: Kind = "hashes") -> int:
    """Return the number of buckets for a corpus of this many raw bytes.

    It depends on the size only, so every rerun agrees.
    """
    wanted = max(1, -(-corpus_bytes // BUCKET_BYTES))
    if wanted > LINEAR_BUCKETS:
        wanted = math.isqrt(LINEAR_BUCKETS * wanted)
    return wanted * (BAND_BUCKETS if kind == "bands" else 1)


def hash_keys(hashes: npt.NDArray[np.uint64], first: int) -> npt.NDArray[Any]:
    """The keys of documents numbered from ``first``, by the halves (documents, 2) of their hashes."""
    keys = np.empty(len(hashes), KEYS["hashes"])
    keys["document"] = np.arange(first, first + len(hashes))
    keys["high"], keys["low"] = hashes[:, 0], hashes[:, 1]
    return keys


def band_keys(bands: npt.NDArray[np.uint64], first: int) -> npt.NDArray[Any]:
    """The keys of documents numbered from ``first``, by their bands (documents, bands)."""
    number = bands.shape[1]
    keys = np.empty(bands.size, KEYS["bands"])
    keys["document"] = np.repeat(np.arange(first, first + len(bands)), number)
    # A constant a band, so that only keys of the same band are ever equal.
    salt = np.arange(number, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys["low"] = (bands + salt).ravel()
    return keys


def write_keys(
    work: str, kind: Kind, unit: int, segment: int, keys: npt.NDArray[Any], buckets: int
) -> None:
    """Write the keys of a segment's documents, in rising order of documents, by bucket."""
    bucket_of = keys["low"] % np.uint64(buckets)
    _shuffle(work, kind).write_rows(unit, segment, keys, bucket_of, buckets)


def deduplicate_bucket(work: str, kind: Kind, units: int, bucket: int) -> None:
    """Write the drop list of one bucket, unless it is there; the keys of all ``units`` lie there."""
    target = folder.drop_list(work, kind, bucket)
    if exists(target):
        return
    slices, slice_units = [np.empty(0, KEYS[kind])], [np.empty(0, np.uint32)]
    for unit, data in _shuffle(work, kind).read(bucket):
        keys = np.frombuffer(data, KEYS[kind])
        slices.append(keys)
        slice_units.append(np.full(len(keys), unit, np.uint32))
    table, unit_of = np.concatenate(slices), np.concatenate(slice_units)
    # Sorted, they stand in the order of units, and of documents within one.
    repeated = np.sort(_repeated(table))
    _, repeats = np.unique(table["low"][repeated], return_counts=True)
    _, bits = np.frexp(repeats.astype(np.float64))
    copies = {f"{(1 << bit - 1) + 1}": n for bit, n in sorted(Counter(bits.tolist()).items())}
    folder.write_record(folder.copies_record(work, kind, bucket), copies)
    unit_of, document = unit_of[repeated], table["document"][repeated]
    bounds = 4 * np.searchsorted(unit_of, np.arange(units + 1))
    write_groups(target, document.tobytes(), bounds)


def read_drops(work: str, kind: Kind, unit: int, buckets: int) -> npt.NDArray[np.uint32]:
    """The numbers of the documents of ``unit`` with a key of an earlier one, sorted, each once."""
    # Only the unit's slices: units times whole lists grows with the square of the corpus.
    lists = (folder.drop_list(work, kind, bucket) for bucket in range(buckets))
    found = b"".join(read_group(path, unit) for path in lists)
    return np.unique(np.frombuffer(found, "<u4"))


def read_copies(work: str, kind: Kind, buckets: int) -> Counter[int]:
    """How many keys occur 2, 3-4, 5-8, 9-16 ... times, by the lower bound."""
    found: Counter[int] = Counter()
    for bucket in range(buckets):
        record = folder.read_record(folder.copies_record(work, kind, bucket))
        found.update({int(least): number for least, number in record.items()})
    return found


def _shuffle(work: str, kind: Kind) -> Shuffle:
    return Shuffle(folder.shuffle_folder(work, kind))


def _repeated(table: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """(repeated,) places of the keys that an earlier one equals."""
    order = np.argsort(table["low"], kind="stable")
    low = table["low"][order]
    same = low[1:] == low[:-1]
    if "high" in table.dtype.fields:  # type: ignore[operator]
        high = table["high"][order]
        if (same & (high[1:] != high[:-1])).any():
            # Very rare by chance: keys equal in one half only may stand between equal ones.
            order = np.lexsort((table["low"], table["high"]))
            low, high = table["low"][order], table["high"][order]
            same = low[1:] == low[:-1]
        same &= high[1:] == high[:-1]
    repeated: npt.NDArray[np.intp] = order[1:][same]
    return repeated
