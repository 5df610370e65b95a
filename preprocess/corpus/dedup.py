"""Deduplication through files, in any order of work: exact by content hash, near by MinHash bands.

Each unit writes its documents' keys grouped by bucket; a bucket then reads its slice of every
unit's and writes which documents to drop. Only names and counts go through the runner, whose memory
would otherwise grow with the corpus. Of documents with an equal key the first stays: lowest unit,
then lowest number in it.

For near-duplicates (`near_duplicates.Bands`) a document has a key a band, and one equal to an
earlier document's is enough to be dropped, whether or not that one stays itself.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.config import SPLITS, PrepareConfig, Source
from preprocess.files.storage import TEMPORARY, exists, join, list_names, read_bytes, write_bytes

Kind = Literal["hashes", "bands"]

KEYS = {
    "hashes": np.dtype([("document", "<u4"), ("low", "<u8"), ("high", "<u8")]),
    "bands": np.dtype([("document", "<u4"), ("low", "<u8")]),
}
"""A key of a document: the halves of its 128-bit hash, or the key of one of its bands."""

BUCKET_BYTES = 32 << 20
"""Raw text a bucket stands for: at most a million short documents, 60 MB while it is sorted."""
BUCKETS = 512
"""Above so many, buckets grow as their number does: every one reads a slice of every unit."""
BAND_BUCKETS = 4
"""Buckets of bands for one of hashes, since a document has 12 to 51 bands."""


def count_buckets(corpus_bytes: int, kind: Kind = "hashes") -> int:
    """Buckets for a corpus of that many raw bytes: by size alone, so every rerun agrees."""
    wanted = max(1, -(-corpus_bytes // BUCKET_BYTES))
    if wanted > BUCKETS:
        wanted = math.isqrt(BUCKETS * wanted)
    return wanted * (BAND_BUCKETS if kind == "bands" else 1)


def content_hash(text: bytes) -> int:
    """The 128-bit hash (XXH3) of a cleaned text in UTF-8."""
    return xxhash.xxh3_128_intdigest(text)


def content_hashes(texts: Iterable[bytes]) -> bytes:
    """`content_hash` of each text, 16 bytes one after another, for `halves`."""
    return b"".join(map(xxhash.xxh3_128_digest, texts))


def halves(hashes: bytes | bytearray) -> npt.NDArray[np.uint64]:
    """(texts, 2) the high and the low half of hashes of 16 bytes each, big-endian."""
    return np.frombuffer(hashes, ">u8").astype(np.uint64).reshape(-1, 2)


def split_of(content: int, valid_fraction: float, test_fraction: float) -> str:
    """The split a document belongs to: by its content, so it never changes sides as a corpus grows."""
    # Buckets are cut from the low bits, so the side is drawn from the high ones.
    place = (content >> 75) / (1 << 53)
    if place < valid_fraction:
        return "valid"
    return "test" if place < valid_fraction + test_fraction else "train"


def splits_of(
    high: npt.NDArray[np.uint64], valid_fraction: float, test_fraction: float
) -> npt.NDArray[np.uint8]:
    """(texts,) `split_of` as its number in ``config.SPLITS``, by the high halves (texts,)."""
    place = (high >> np.uint64(11)).astype(np.float64) / (1 << 53)
    sides = np.where(place < valid_fraction, 1, 0)
    test = (place >= valid_fraction) & (place < valid_fraction + test_fraction)
    return np.where(test, 2, sides).astype(np.uint8)


def sides_of(
    high: npt.NDArray[np.uint64], source: Source, config: PrepareConfig
) -> npt.NDArray[np.uint8]:
    """(texts,) the number in ``config.SPLITS`` of each text's split: the source's, else by its hash."""
    if source.split:
        return np.full(len(high), SPLITS.index(source.split), np.uint8)
    return splits_of(high, config.valid_fraction, config.test_fraction)


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
    """Write keys of documents in rising order, grouped by bucket.

    The file: u8 byte offsets where each bucket begins, and the end, then the keys.
    """
    bucket = keys["low"] % np.uint64(buckets)
    order = np.argsort(bucket, kind="stable")
    begins = np.searchsorted(bucket[order], np.arange(buckets + 1))
    places = 8 * (buckets + 1) + KEYS[kind].itemsize * begins
    data = places.astype("<u8").tobytes() + keys[order].tobytes()
    write_bytes(join(work, kind, f"{unit:06d}-{segment:04d}.bin"), data)


def deduplicate_bucket(work: str, kind: Kind, units: int, bucket: int) -> None:
    """Write the drop list of one bucket, unless it is there; the keys of all ``units`` lie there."""
    target = _drop_list(work, kind, bucket)
    if exists(target):
        return
    slices, slice_units = [np.empty(0, KEYS[kind])], [np.empty(0, np.uint32)]
    for unit, keys in _slices(work, kind, bucket):
        slices.append(keys)
        slice_units.append(np.full(len(keys), unit, np.uint32))
    table, unit_of = np.concatenate(slices), np.concatenate(slice_units)
    # Sorted, they stand in the order of units, and of documents within one.
    repeated = np.sort(_repeated(table))
    _, repeats = np.unique(table["low"][repeated], return_counts=True)
    _, bits = np.frexp(repeats.astype(np.float64))
    copies = {f"{(1 << bit - 1) + 1}": n for bit, n in sorted(Counter(bits.tolist()).items())}
    write_bytes(_copies(work, kind, bucket), json.dumps(copies).encode())
    unit_of, document = unit_of[repeated], table["document"][repeated]
    places = 8 * (units + 1) + 4 * np.searchsorted(unit_of, np.arange(units + 1))
    write_bytes(target, places.astype("<u8").tobytes() + document.tobytes())


def read_drops(work: str, kind: Kind, unit: int, buckets: int) -> npt.NDArray[np.uint32]:
    """The numbers of the documents of ``unit`` with a key of an earlier one, sorted, each once."""
    # Only the unit's slices: units times whole lists grows with the square of the corpus.
    found = b"".join(_slice(_drop_list(work, kind, bucket), unit) for bucket in range(buckets))
    return np.unique(np.frombuffer(found, "<u4"))


def read_copies(work: str, kind: Kind, buckets: int) -> Counter[int]:
    """How many keys occur 2, 3-4, 5-8, 9-16 ... times, by the lower bound."""
    found: Counter[int] = Counter()
    for bucket in range(buckets):
        record = json.loads(read_bytes(_copies(work, kind, bucket)))
        found.update({int(least): number for least, number in record.items()})
    return found


def _copies(work: str, kind: Kind, bucket: int) -> str:
    return join(work, "copies", f"{kind}-{bucket:06d}.json")


def _drop_list(work: str, kind: Kind, bucket: int) -> str:
    """A bucket's drops: u8 byte offsets where each unit's begin, and the end, then their numbers, u4."""
    return join(work, "drops", f"{kind}-{bucket:06d}.bin")


def _slice(path: str, number: int) -> bytes:
    """What the two offsets at place ``number`` of a file's head enclose."""
    begin, end = np.frombuffer(read_bytes(path, 8 * number, 8 * number + 16), "<u8").tolist()
    return read_bytes(path, begin, end) if end > begin else b""


def _slices(work: str, kind: Kind, bucket: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """(unit, its keys in the bucket), in the order of units and of documents."""
    folder = join(work, kind)
    names = [name for name in list_names(folder) if not name.startswith(TEMPORARY)]
    places = [tuple(map(int, name.removesuffix(".bin").split("-"))) for name in names]
    for (unit, _), name in sorted(zip(places, names, strict=True)):
        yield unit, np.frombuffer(_slice(join(folder, name), bucket), KEYS[kind])


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
