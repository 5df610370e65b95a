"""Deduplication through files: documents with equal content hashes.

1. The first pass writes a key per document (`write_keys`), grouped by bucket.
2. The keys of many units, a run, are merged (`merge_keys`; `preprocess.work.shuffle`).
3. The keys of a list of buckets are compared over all units, which gives a drop list (`compare_keys`).
4. The drops of a run are collected from all lists (`collect_drops`).
5. The last pass reads the drops of its unit (`read_duplicates`).

Keys go through files, so that the memory of the Beam runner does not grow with the corpus. The first
of several documents with equal keys is kept: the one in the lowest unit, and in that unit the one
with the lowest number. The result does not depend on the order of work.

A drop list also has the earlier document for which a document is dropped: the first one with an equal
key. If that is a document of a known corpus (`preprocess.corpus.known`), the number of its unit is not
below `Layout.own`. Known documents have only the low half of the hash, and come first.

The keys of near-duplicates (`preprocess.text.minhash.Bands`) take the first two steps, too, and are
then compared by `preprocess.corpus.near.duplicates`. They are one row per band.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from preprocess.files.storage import exists
from preprocess.text.minhash import NO_KEY, SKETCH_WORDS, Keys
from preprocess.work import folder
from preprocess.work.groups import read_group, read_groups, write_groups
from preprocess.work.progress import Progress
from preprocess.work.shuffle import MOST_LISTS, Layout, Part, Shuffle, Slices, group_rows

Kind = Literal["hashes", "bands"]
"""What is compared: content hashes, or MinHash bands."""

KEYS = {
    "hashes": np.dtype([("document", "<u4"), ("low", "<u8"), ("high", "<u8")]),
    "bands": np.dtype([("document", "<u4"), ("low", "<u4"), ("sketch", "<u8", (SKETCH_WORDS,))]),
}
"""Dtype of a key by kind: number of the document in its unit, and its 128-bit content hash (in two
halves), or the key of one of its bands and its sketch."""

DROP = np.dtype([("document", "<u4"), ("original", [("unit", "<u4"), ("number", "<u4")])])
"""Dtype of a dropped document: its number in the unit, and the earlier document."""

DROP_OF_RUN = np.dtype([("unit", "<u4"), ("drop", DROP)])
"""Dtype of a row of a drop list: unit of the document, and its `DROP`."""

BUCKET_BYTES = 32 << 20
"""Raw bytes of corpus per bucket, unless that were more than `MOST_LISTS`. A bucket has the keys of at
most a million short documents, which take 60 MB while they are sorted."""

LARGE_BUCKET_BYTES = 1 << 30
"""Raw bytes of corpus per bucket of a larger corpus: ten million documents of 100 bytes, whose keys
take 600 MB while they are sorted."""

BAND_BUCKETS = 4
"""Buckets of bands per bucket of hashes, because a document has up to 36 bands."""


def key_buckets(corpus_bytes: int, kind: Kind = "hashes") -> int:
    """Return the number of buckets for a corpus of this many raw bytes.

    It depends on the size only, so every rerun agrees.
    """
    wanted = max(1, -(-corpus_bytes // BUCKET_BYTES))
    if wanted > MOST_LISTS:
        wanted = MOST_LISTS * -(-corpus_bytes // (MOST_LISTS * LARGE_BUCKET_BYTES))
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


def known_hash_keys(
    low: npt.NDArray[np.uint64], numbers: npt.NDArray[np.uint32]
) -> npt.NDArray[Any]:
    """Return the keys of known documents, given the low halves of their hashes and their numbers."""
    keys = np.zeros(len(low), KEYS["hashes"])
    keys["document"], keys["low"] = numbers, low
    return keys


def band_keys(near: Keys, numbers: npt.NDArray[np.uint32]) -> npt.NDArray[Any]:
    """Return the keys of documents, in the order of documents, without those that are `NO_KEY`.

    Args:
        near: keys and sketches of the documents, as `preprocess.text.minhash.Bands` returns them.
        numbers: numbers of the documents in their unit, shape (documents,).
    """
    bands, sketches = near
    document, band = np.nonzero(bands != NO_KEY)
    keys = np.empty(len(document), KEYS["bands"])
    keys["document"] = numbers[document]
    keys["low"] = bands[document, band]
    keys["sketch"] = sketches[document]
    return keys


def write_keys(
    work: str, kind: Kind, unit: int, segment: int, keys: npt.NDArray[Any], layout: Layout
) -> None:
    """Write the keys of a segment's documents, grouped by bucket.

    Args:
        work: folder of unfinished work.
        kind: kind of the keys.
        unit: number of the unit.
        segment: number of the segment in the unit.
        keys: keys of type ``KEYS[kind]``, in the order of documents.
        layout: layout of the keys of this kind.
    """
    _shuffle(work, kind, layout).write_rows(unit, segment, keys, _bucket_of(keys, layout))


def merge_keys(work: str, kind: Kind, layout: Layout, run: int) -> None:
    """Merge the keys of a run, unless they are merged; all its units must have written their keys.

    Args:
        work: folder of unfinished work.
        kind: kind of the keys.
        layout: as in `write_keys`.
        run: number of the run.
    """
    progress = Progress(work, run, f"merge-{kind}")

    def read(part: Part) -> list[bytes]:
        progress.write()
        groups = read_groups(part.path)
        if len(groups) == layout.buckets:
            return groups
        # A former version had another number of buckets.
        keys = np.frombuffer(b"".join(groups), KEYS[kind])
        keys = keys[np.argsort(keys["document"], kind="stable")]
        rows, bounds = group_rows(keys, _bucket_of(keys, layout), layout.buckets)
        return [rows[begin:end].tobytes() for begin, end in pairwise(bounds.tolist())]

    _shuffle(work, kind, layout).merge(run, read)
    progress.write(final=True)


def compare_keys(
    work: str, kind: Kind, layout: Layout, number: int, only_known: bool = False
) -> None:
    """Write a drop list, unless it exists; all runs must be merged.

    The list is grouped by run. Memory is proportional to `READ_BYTES` of keys, or to the largest bucket,
    and to the documents that the list drops, 16 bytes each.

    Args:
        work: folder of unfinished work.
        kind: kind of the keys.
        layout: as in `write_keys`.
        number: number of the list.
        only_known: drop only duplicates of known documents.
    """
    target = folder.drop_list(work, kind, number)
    if exists(target):
        return
    progress = Progress(work, number, f"compare-{kind}")
    found, copies = [np.empty(0, DROP_OF_RUN)], Counter[str]()
    for slices in _shuffle(work, kind, layout).read(number):
        found.append(_drops_of(slices, layout.own, only_known, copies))
        progress.write()
    progress.write(final=True)
    rows = np.concatenate(found)
    run_of = rows["unit"] // np.uint32(layout.run_units)
    rows, bounds = group_rows(rows, run_of, layout.runs)
    ordered = dict(sorted(copies.items(), key=lambda item: int(item[0])))
    folder.write_record(folder.copies_record(work, kind, number), ordered)
    write_groups(target, rows.tobytes(), DROP_OF_RUN.itemsize * bounds)


def collect_drops(work: str, kind: Kind, layout: Layout, run: int) -> None:
    """Write the drops of a run from all drop lists, grouped by unit, unless they are written.

    Memory is proportional to the documents that are dropped in the run, 50 bytes each.

    Args:
        work: folder of unfinished work.
        kind: kind of the keys.
        layout: as in `write_keys`.
        run: number of the run.
    """
    target = folder.run_drops(work, kind, run)
    if exists(target):
        return
    progress = Progress(work, run, f"collect-{kind}")
    found = [np.empty(0, DROP_OF_RUN)]
    for number in range(layout.lists):
        data = read_group(folder.drop_list(work, kind, number), run)
        found.append(np.frombuffer(data, DROP_OF_RUN))
        progress.write()
    progress.write(final=True)
    rows = np.concatenate(found)
    # A document has one hash, so it is in one list.
    rows = rows[np.lexsort((rows["drop"]["document"], rows["unit"]))]
    units = layout.units_of(run)
    bounds = np.searchsorted(rows["unit"], np.arange(units.start, units.stop + 1))
    write_groups(target, rows["drop"].tobytes(), DROP.itemsize * bounds)


def read_duplicates(
    work: str, kind: Kind, unit: int, layout: Layout
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return the documents of a unit to drop, and the earliest document with an equal key for each.

    Returns:
        The numbers of the documents, sorted and distinct, uint32, shape (documents,); unit and number
        of their earliest documents, uint32, shape (documents, 2).
    """
    run = layout.run_of(unit)
    data = read_group(folder.run_drops(work, kind, run), unit - layout.units_of(run).start)
    return _duplicates(data)


def read_unit_duplicates(
    work: str, kind: Kind, units: range, layout: Layout
) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
    """Yield the result of `read_duplicates` for consecutive units, in one request per run."""
    run, groups = -1, list[bytes]()
    for unit in units:
        if layout.run_of(unit) != run:
            run = layout.run_of(unit)
            groups = read_groups(folder.run_drops(work, kind, run))
        yield _duplicates(groups[unit - layout.units_of(run).start])


def _duplicates(data: bytes) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    rows = np.frombuffer(data, DROP)
    original = rows["original"]
    return rows["document"], np.stack([original["unit"], original["number"]], axis=1)


def read_drops(work: str, kind: Kind, unit: int, layout: Layout) -> npt.NDArray[np.uint32]:
    """Return the numbers of the documents of a unit to drop, sorted and distinct, uint32."""
    return read_duplicates(work, kind, unit, layout)[0]


def read_copies(work: str, kind: Kind, layout: Layout) -> Counter[int]:
    """Return how many keys occur 2, 3 to 4, 5 to 8, 9 to 16 ... times.

    The keys of the counter are the lower bounds 2, 3, 5, 9 ...
    """
    copies: Counter[int] = Counter()
    for number in range(layout.lists):
        record = folder.read_record(folder.copies_record(work, kind, number))
        copies.update({int(least): number for least, number in record.items()})
    return copies


def _shuffle(work: str, kind: Kind, layout: Layout) -> Shuffle:
    return Shuffle(folder.shuffle_folder(work, kind), layout)


def _bucket_of(keys: npt.NDArray[Any], layout: Layout) -> npt.NDArray[np.uint64]:
    buckets: npt.NDArray[np.uint64] = keys["low"] % np.uint64(layout.buckets)
    return buckets


def _drops_of(slices: Slices, own: int, only_known: bool, copies: Counter[str]) -> npt.NDArray[Any]:
    """Return the drops among the hashes of some buckets, and count how often repeated ones occur."""
    table = np.frombuffer(slices.data, KEYS["hashes"])
    unit_of = np.repeat(slices.units, slices.sizes // np.uint32(table.itemsize))
    is_known = unit_of >= own
    found = [np.empty(0, DROP_OF_RUN)]
    if is_known.any():
        repeated, originals = _of_known(table["low"], is_known)
        found.append(_drops(table, unit_of, repeated, originals))
        is_known[repeated] = True
        table, unit_of = table[~is_known], unit_of[~is_known]
    if only_known:
        return np.concatenate(found)
    repeated, originals = _repeated(table)
    _, repeats = np.unique(table["low"][repeated], return_counts=True)
    _, bits = np.frexp(repeats.astype(np.float64))
    copies.update(f"{(1 << bit - 1) + 1}" for bit in bits.tolist())
    found.append(_drops(table, unit_of, repeated, originals))
    return np.concatenate(found)


def _of_known(
    low: npt.NDArray[np.uint64], is_known: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the indices of the own keys that equal a known one, and of the first known key equal to each."""
    known, own = np.flatnonzero(is_known), np.flatnonzero(~is_known)
    values, first = np.unique(low[known], return_index=True)
    nearest = np.searchsorted(values, low[own]).clip(max=len(values) - 1)
    equal = values[nearest] == low[own]
    return own[equal], known[first[nearest[equal]]]


def _drops(
    table: npt.NDArray[Any],
    unit_of: npt.NDArray[np.uint32],
    repeated: npt.NDArray[np.intp],
    originals: npt.NDArray[np.intp],
) -> npt.NDArray[Any]:
    rows = np.empty(len(repeated), DROP_OF_RUN)
    rows["unit"], drop = unit_of[repeated], rows["drop"]
    drop["document"] = table["document"][repeated]
    drop["original"]["unit"] = unit_of[originals]
    drop["original"]["number"] = table["document"][originals]
    return rows


def _repeated(table: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the indices of the keys that equal an earlier key, and of the first key equal to each."""
    order = np.argsort(table["low"], kind="stable")
    low = table["low"][order]
    same = low[1:] == low[:-1]
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
