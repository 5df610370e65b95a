"""The index of a vector cache: where the vectors of each key are.

It is a uint64 array, shape (5, entries), sorted by key. Its rows are:

- 0 and 1: the high and the low half of the key, read as big-endian numbers
- 2: ``shard << 32 | entry``, the index of the shard in the order of names, and of the entry in it
- 3: the number of vectors before the entry in the vectors file of its shard
- 4: the number of units of the entry

If several entries have the same key, only the first is in the index.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.durability import never_synced
from preprocess.files.manifest import FileRecord
from preprocess.files.temporary import temporary_folder
from preprocess.vectors.files import ENTRY, KEY, CacheFiles, HashedFile, ShardName, index_name
from preprocess.work.shuffle import Shuffle

Rows = NDArray[np.uint64]
ROWS = 5
"""Rows of the index."""

BUCKET_ENTRIES = 1 << 21
"""Maximum number of entries per bucket on average; one bucket is sorted in memory at a time."""

COPY_BYTES = 1 << 22
"""Bytes to copy at once."""


def write_index(
    folder: str, shards: Sequence[tuple[int, int]], generation: int = 0, output: str = ""
) -> FileRecord:
    """Write the index of the closed shards in ``folder``.

    Keys are sorted in buckets through temporary files (in ``TMPDIR``, 40 bytes per entry), so memory
    stays at about 250 MB for any number of entries.

    Args:
        folder: folder or URL of the cache.
        shards: unit of work and part of each shard, in any order.
        generation: generation of the cache, which is part of the index's name.
        output: folder to write the index to; ``folder`` by default.

    Returns:
        The manifest record of the index.

    Raises:
        CacheError: the entries file of a shard is missing or damaged.
    """
    names = sorted({ShardName(*shard) for shard in shards})
    source = CacheFiles(folder)
    total = sum(len(source.array(shard.entries, ENTRY)) for shard in names)
    buckets = 1
    while total > buckets * BUCKET_ENTRIES:
        buckets *= 2
    with temporary_folder("biloom-index-") as scratch:
        rows = [(Path(scratch) / f"row-{row}").open("w+b") for row in range(ROWS)]
        count = 0
        try:
            for bucket in _buckets(source, names, buckets, Path(scratch)):
                distinct = _first_of_equal(bucket)
                count += distinct.shape[1]
                for file, values in zip(rows, distinct, strict=True):
                    file.write(values.astype("<u8").data)
            path = storage.join(output or folder, index_name(generation))
            return _join(path, rows, count, generation)
        finally:
            for file in rows:
                file.close()


def _join(path: str, rows: Sequence[IO[bytes]], count: int, generation: int) -> FileRecord:
    with storage.atomic_writer(path) as file:
        index = HashedFile(index_name(generation), file)
        index.write_header(np.dtype("<u8"), (ROWS, count))
        for row in rows:
            row.seek(0)
            while data := row.read(COPY_BYTES):
                index.write(data)
    return index.record(entries=count)


def _buckets(
    folder: CacheFiles, shards: Sequence[ShardName], buckets: int, scratch: Path
) -> Iterator[Rows]:
    """Yield the rows (ROWS, entries) of each bucket of keys, in the order of buckets, unsorted."""
    if buckets == 1:
        yield np.concatenate([np.empty((0, ROWS), np.uint64), *_runs(folder, shards)]).T
        return
    shift = np.uint64(64 - (buckets.bit_length() - 1))
    shuffle = Shuffle(str(scratch / "rows"))
    with never_synced():
        for number, rows in enumerate(_runs(folder, shards)):
            shuffle.write_rows(number, 0, rows, (rows[:, 0] >> shift).astype(np.int64), buckets)
    for bucket in range(buckets):
        data = b"".join(part for _, part in shuffle.read(bucket))
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
    entries = folder.array(shard.entries, ENTRY)
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


class VectorIndex:
    """The memory-mapped index of a cache; ``len`` is its number of texts.

    Raises:
        CacheError: the index is missing or damaged.
    """

    def __init__(self, folder: CacheFiles, generation: int) -> None:
        rows = folder.array(index_name(generation), np.dtype("<u8"), (ROWS,))
        self._high, self._low, self._rest = rows[0], rows[1], rows[2:]

    def __len__(self) -> int:
        return int(self._high.size)

    @property
    def units(self) -> int:
        """Total units of all entries."""
        return int(self._rest[2].sum())

    def find(self, key: bytes) -> tuple[int, int, int, int] | None:
        """Find a text by its key.

        Args:
            key: the key, 16 bytes.

        Returns:
            (shard, entry, vectors before the entry, units), as in rows 2 to 4 of the index, or None if
            the key is missing.
        """
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        at = int(self._high.searchsorted(np.uint64(high)))
        while at < self._high.size and int(self._high[at]) == high:
            if int(self._low[at]) == low:
                place, offset, units = self._rest[:, at].tolist()
                return place >> 32, place & 0xFFFFFFFF, offset, units
            at += 1
        return None

    def has(self, keys: "bytes | NDArray[Any]") -> NDArray[np.bool_]:
        """Return which of many 16-byte keys are in the index, bool (keys,)."""
        array = np.frombuffer(keys, KEY) if isinstance(keys, bytes | bytearray) else keys
        high, low = halves(array)
        at = np.searchsorted(self._high, high)
        found = np.zeros(len(high), bool)
        pending = np.arange(len(high))
        while len(pending):
            inside = pending[at[pending] < self._high.size]
            pending = inside[self._high[at[inside]] == high[inside]]
            found[pending] |= self._low[at[pending]] == low[pending]
            pending = pending[~found[pending]]
            at[pending] += 1
        return found
