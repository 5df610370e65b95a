"""Exact deduplication on 128-bit content hashes, through files and in any order of work.

Each unit writes its documents' hashes grouped by bucket; a bucket then reads its slice of every
unit and writes which documents to drop. Only names and counts go through the runner, whose memory
would otherwise grow with the corpus. Of equal documents the first stays: lowest unit, then lowest
number in it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.storage import exists, join, read_bytes, write_bytes

HASH = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u4")])

BUCKET_BYTES = 512 << 20
"""Raw text a bucket stands for: some five million short documents, 120 MB while it is sorted."""


def count_buckets(corpus_bytes: int) -> int:
    """Buckets for a corpus of that many raw bytes: by size alone, so every rerun agrees."""
    return max(1, -(-corpus_bytes // BUCKET_BYTES))


def content_hash(text: bytes) -> int:
    """The 128-bit hash (XXH3) of a cleaned text in UTF-8."""
    return xxhash.xxh3_128_intdigest(text)


def split_of(content: int, valid_fraction: float, test_fraction: float) -> str:
    """The split a document belongs to: by its content, so it never changes sides as a corpus grows."""
    # Buckets are cut from the low bits, so the side is drawn from the high ones.
    place = (content >> 75) / (1 << 53)
    if place < valid_fraction:
        return "valid"
    return "test" if place < valid_fraction + test_fraction else "train"


def write_hashes(work: str, unit: int, hashes: Sequence[int], buckets: int) -> list[int]:
    """Write a unit's hashes grouped by bucket; returns where each bucket begins, and the end."""
    table = np.empty(len(hashes), HASH)
    table["high"] = np.fromiter((h >> 64 for h in hashes), np.uint64, len(hashes))
    table["low"] = np.fromiter((h & (2**64 - 1) for h in hashes), np.uint64, len(hashes))
    table["document"] = np.arange(len(hashes))
    bucket = table["low"] % np.uint64(buckets)
    order = np.argsort(bucket, kind="stable")
    write_bytes(join(work, "hashes", f"{unit:06d}.bin"), table[order].tobytes())
    return [int(n) for n in np.searchsorted(bucket[order], np.arange(buckets + 1))]


def deduplicate_bucket(work: str, bucket: int, bounds: Sequence[tuple[int, int, int]]) -> None:
    """Write the drop list of one bucket, unless it is there.

    Args:
        work: the stage's work folder.
        bucket: its number.
        bounds: (unit, first, end) of the bucket's hashes in each unit's file, in the unit's order.
    """
    target = drop_list(work, bucket)
    if exists(target):
        return
    slices, slice_units = [], []
    for unit, first, end in bounds:
        if end > first:
            path = join(work, "hashes", f"{unit:06d}.bin")
            data = read_bytes(path, first * HASH.itemsize, end * HASH.itemsize)
            slices.append(np.frombuffer(data, HASH))
            slice_units.append(np.full(end - first, unit, np.uint32))
    table = np.concatenate(slices) if slices else np.empty(0, HASH)
    unit_of = np.concatenate(slice_units) if slice_units else np.empty(0, np.uint32)
    order = np.lexsort((table["document"], unit_of, table["low"], table["high"]))
    table, unit_of = table[order], unit_of[order]
    repeated = np.zeros(len(table), bool)
    repeated[1:] = (table["high"][1:] == table["high"][:-1]) & (
        table["low"][1:] == table["low"][:-1]
    )
    unit_of, document = unit_of[repeated], table["document"][repeated]
    order = np.lexsort((document, unit_of))
    units = np.arange(max((unit for unit, _, _ in bounds), default=-1) + 2)
    places = 8 * len(units) + 4 * np.searchsorted(unit_of[order], units)
    write_bytes(target, places.astype("<u8").tobytes() + document[order].tobytes())


def drop_list(work: str, bucket: int) -> str:
    """A bucket's drops: u8 byte offsets where each unit's begin, and the end, then their numbers, u4."""
    return join(work, "drops", f"{bucket:06d}.bin")


def read_drops(work: str, unit: int, buckets: int) -> npt.NDArray[np.uint32]:
    """The numbers of the documents of ``unit`` that repeat an earlier one, sorted."""
    found = []
    for bucket in range(buckets):
        # Only the unit's slice: units times whole lists grows with the square of the corpus.
        path = drop_list(work, bucket)
        begin, end = np.frombuffer(read_bytes(path, 8 * unit, 8 * unit + 16), "<u8").tolist()
        if end > begin:
            found.append(np.frombuffer(read_bytes(path, begin, end), "<u4"))
    return np.sort(np.concatenate([np.empty(0, np.uint32), *found]))
