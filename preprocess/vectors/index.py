"""The index of a vector cache: where the vectors of each key are; see `preprocess.vectors.lookup`.

It is a uint64 array, shape (5, entries), sorted by key. Its rows are:

- 0 and 1: the high and the low half of the key, read as big-endian numbers
- 2: ``shard << 32 | entry``, the index of the shard in the order of names, and of the entry in it
- 3: the number of vectors before the entry in the vectors file of its shard
- 4: the number of units of the entry

If several entries have the same key, only the first is in the index.

After the array the file has its *fences*: uint64, shape (3, blocks). A block is `BLOCK` entries. The
rows of the fences are the high and the low half of the block's first key, and the XXH3 64-bit hash of
the block's rows. The manifest has the xxh128 of the fences, so that they can be checked when the index
is opened, and a block when it is read. Indexes of older versions have no fences.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.durability import never_synced
from preprocess.files.manifest import FileRecord
from preprocess.files.temporary import temporary_folder
from preprocess.vectors.files import HashedFile, ShardName, index_name
from preprocess.vectors.shard_reader import read_entries
from preprocess.vectors.stored import CacheFiles
from preprocess.work.groups import read_group, write_groups
from preprocess.work.shuffle import group_rows

Rows = NDArray[np.uint64]
ROWS = 5
"""Rows of the index."""

BLOCK = 512
"""Entries of a block, which is checked as a whole: a page of 4 KB in each row."""

BUCKET_ENTRIES = 1 << 21
"""Maximum number of entries per bucket on average; one bucket is sorted in memory at a time."""

COPY_BYTES = 1 << 22
"""Bytes to copy at once."""


def write_index(
    folder: str,
    shards: Sequence[tuple[int, int]],
    generation: int = 0,
    output: str = "",
    records: Sequence[FileRecord] = (),
) -> FileRecord:
    """Write the index of the closed shards in ``folder``.

    Keys are sorted in buckets through temporary files (in ``TMPDIR``, 40 bytes per entry), so memory
    stays at about 250 MB for any number of entries.

    Args:
        folder: folder or URL of the cache.
        shards: unit of work and part of each shard, in any order.
        generation: generation of the cache, which is part of the index's name.
        output: folder to write the index to; ``folder`` by default.
        records: records of the files of the shards, with which entries files are compared.

    Returns:
        The manifest record of the index.

    Raises:
        CacheError: the entries file of a shard is missing or damaged.
    """
    names = sorted({ShardName(*shard) for shard in shards})
    source = CacheFiles(folder, {record.name: record for record in records} or None)
    total = sum(read_entries(source, shard.entries)[0].total for shard in names)
    buckets = 1
    while total > buckets * BUCKET_ENTRIES:
        buckets *= 2
    with temporary_folder("biloom-index-") as scratch:
        rows = [(Path(scratch) / f"row-{row}").open("w+b") for row in range(ROWS)]
        summary = _Summary()
        try:
            for bucket in _buckets(source, names, buckets, Path(scratch)):
                distinct = _first_of_equal(bucket)
                summary.add(distinct)
                for file, values in zip(rows, distinct, strict=True):
                    file.write(values.astype("<u8").data)
            path = storage.join(output or folder, index_name(generation))
            return _join(path, rows, summary, generation)
        finally:
            for file in rows:
                file.close()


class _Summary:
    """Counts and fences of an index that is being written; keeps at most one block in memory.

    Attributes:
        entries: number of entries.
        units: units of all entries.
    """

    def __init__(self) -> None:
        self.entries = self.units = 0
        self._open: Rows = np.empty((ROWS, 0), np.uint64)
        self._fences: list[tuple[int, int, int]] = []

    def add(self, rows: Rows) -> None:
        """Add the next entries, shape (ROWS, entries)."""
        self.entries += rows.shape[1]
        self.units += int(rows[4].sum())
        rows = np.concatenate([self._open, rows], 1)
        whole = rows.shape[1] - rows.shape[1] % BLOCK
        self._fences += [fence(rows[:, at : at + BLOCK]) for at in range(0, whole, BLOCK)]
        self._open = rows[:, whole:]

    def fences(self) -> Rows:
        """Return the fences of all entries, shape (3, blocks)."""
        last = [fence(self._open)] if self._open.size else []
        return np.array([*self._fences, *last], "<u8").reshape(-1, 3).T.copy()


def fence(rows: Rows) -> tuple[int, int, int]:
    """Return the first key of a block, as two numbers, and the hash of its rows."""
    digest = xxhash.xxh3_64()
    for row in rows:
        digest.update(np.ascontiguousarray(row, "<u8").data)
    return int(rows[0, 0]), int(rows[1, 0]), digest.intdigest()


def _join(path: str, rows: Sequence[IO[bytes]], summary: _Summary, generation: int) -> FileRecord:
    fences = summary.fences().tobytes()
    with storage.atomic_writer(path) as file:
        index = HashedFile(index_name(generation), file)
        index.write_header(np.dtype("<u8"), (ROWS, summary.entries))
        for row in rows:
            row.seek(0)
            while data := row.read(COPY_BYTES):
                index.write(data)
        index.write(fences)
    digest = xxhash.xxh3_128_hexdigest(fences)
    return index.record(entries=summary.entries, units=summary.units, fences=digest)


def _buckets(
    folder: CacheFiles, shards: Sequence[ShardName], buckets: int, scratch: Path
) -> Iterator[Rows]:
    """Yield the rows (ROWS, entries) of each bucket of keys, in the order of buckets, unsorted."""
    if buckets == 1:
        yield np.concatenate([np.empty((0, ROWS), np.uint64), *_runs(folder, shards)]).T
        return
    shift = np.uint64(64 - (buckets.bit_length() - 1))
    runs: list[str] = []
    with never_synced():
        for rows in _runs(folder, shards):
            grouped, bounds = group_rows(rows, (rows[:, 0] >> shift).astype(np.int64), buckets)
            runs.append(str(scratch / f"run-{len(runs):06d}"))
            write_groups(runs[-1], grouped.tobytes(), bounds * 8 * ROWS)
    for bucket in range(buckets):
        data = b"".join(read_group(run, bucket) for run in runs)
        yield np.frombuffer(data, np.uint64).reshape(-1, ROWS).T


def _runs(folder: CacheFiles, shards: Sequence[ShardName]) -> Iterator[Rows]:
    """Yield the entries of all shards, (entries, ROWS), in runs of at least a quarter of a bucket."""
    held: list[Rows] = []
    for number, shard in enumerate(shards):
        held.append(_rows(folder, number, shard).T)
        if sum(map(len, held)) >= BUCKET_ENTRIES // 4:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _rows(folder: CacheFiles, number: int, shard: ShardName) -> Rows:
    entries = read_entries(folder, shard.entries)[1]
    high, low = halves(entries["key"])
    place = np.arange(len(entries), dtype=np.uint64) + np.uint64(number << 32)
    return np.stack([high, low, place, entries["offset"], entries["units"].astype(np.uint64)])


def _first_of_equal(rows: Rows) -> Rows:
    """Return the rows sorted by key, with only the first entry of equal keys."""
    order = np.lexsort((rows[2], rows[1], rows[0]))
    high, low = rows[0, order], rows[1, order]
    first = np.ones(len(order), bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return rows[:, order[first]]


def halves(keys: NDArray[Any]) -> tuple[Rows, Rows]:
    """Return the high and low halves of 16-byte keys as numbers, each uint64 (keys,)."""
    pairs = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2)
    return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64)
