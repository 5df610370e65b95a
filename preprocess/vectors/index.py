"""The index over all shards of a vector cache: where each key's vectors are, sorted by key.

Rows of (5, entries) uint64: the key as two big-endian numbers; shard << 32 | entry, a shard counted
in order; vectors before the entry in its file; units of the entry. Of equal keys the first stays.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.durability import never_synced
from preprocess.files.manifest import FileRecord
from preprocess.vectors.files import ENTRY, KEY, Folder, HashedFile, ShardName, index_name
from preprocess.work.shuffle import Shuffle

Rows = NDArray[np.uint64]
ROWS = 5
BUCKET_ENTRIES = 1 << 21
COPY_BYTES = 1 << 22


def write_index(folder: str, shards: Sequence[tuple[int, int]], generation: int = 0) -> FileRecord:
    """Write the index over the closed shards of ``folder``, under a new name a generation.

    Keys are sorted in buckets through temporary files (in ``TMPDIR``, 40 bytes an entry), so that
    memory is bounded by some 200 MB, however many there are.

    Raises:
        CacheError: a shard has no entries file, or a damaged one.
    """
    given = sorted({ShardName(*shard) for shard in shards})
    source = Folder(folder)
    total = sum(len(source.array(shard.entries, ENTRY)) for shard in given)
    buckets = 1
    while total > buckets * BUCKET_ENTRIES:
        buckets *= 2
    with tempfile.TemporaryDirectory(prefix="biloom-index-") as scratch:
        rows = [(Path(scratch) / f"row-{row}").open("w+b") for row in range(ROWS)]
        count = 0
        try:
            for bucket in _buckets(source, given, buckets, Path(scratch)):
                found = _first_of_equal(bucket)
                count += found.shape[1]
                for file, values in zip(rows, found, strict=True):
                    file.write(values.astype("<u8").data)
            return _join(storage.join(folder, index_name(generation)), rows, count, generation)
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
    folder: Folder, shards: Sequence[ShardName], buckets: int, scratch: Path
) -> Iterator[Rows]:
    """Yield the rows (ROWS, entries) of each bucket of keys, in the order of buckets, unsorted."""
    shift = np.uint64(64 - (buckets.bit_length() - 1))
    shuffle = Shuffle(str(scratch / "rows"))
    with never_synced():
        for number, rows in enumerate(_runs(folder, shards)):
            shuffle.write_rows(number, 0, rows, (rows[:, 0] >> shift).astype(np.int64), buckets)
    for bucket in range(buckets):
        data = b"".join(part for _, part in shuffle.read(bucket))
        yield np.frombuffer(data, np.uint64).reshape(-1, ROWS).T


def _runs(folder: Folder, shards: Sequence[ShardName]) -> Iterator[Rows]:
    """Yield the rows of all shards, (entries, ROWS), joined into runs of a fourth of a bucket."""
    held: list[Rows] = []
    for number, shard in enumerate(shards):
        held.append(_rows(folder, number, shard).T)
        if sum(map(len, held)) >= BUCKET_ENTRIES // 4:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _rows(folder: Folder, number: int, shard: ShardName) -> Rows:
    entries = folder.array(shard.entries, ENTRY)
    high, low = halves(entries["key"])
    place = np.arange(len(entries), dtype=np.uint64) + np.uint64(number << 32)
    return np.stack([high, low, place, entries["offset"], entries["units"].astype(np.uint64)])


def _first_of_equal(rows: Rows) -> Rows:
    """The rows sorted by key; of equal keys the one that comes first."""
    order = np.lexsort((rows[2], rows[1], rows[0]))
    high, low = rows[0, order], rows[1, order]
    first = np.ones(len(order), bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return rows[:, order[first]]


def halves(keys: NDArray[Any]) -> tuple[Rows, Rows]:
    """(keys,) of 16 bytes as two numbers each."""
    pairs = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2)
    return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64)


class VectorIndex:
    """The index of a cache, mapped.

    Raises:
        CacheError: it is missing or damaged.
    """

    def __init__(self, folder: Folder, generation: int) -> None:
        rows = folder.array(index_name(generation), np.dtype("<u8"), (ROWS,))
        self._high, self._low, self._rest = rows[0], rows[1], rows[2:]

    def __len__(self) -> int:
        return int(self._high.size)

    @property
    def units(self) -> int:
        """Of all entries together."""
        return int(self._rest[2].sum())

    def find(self, key: bytes) -> tuple[int, int, int, int] | None:
        """Of a key the shard, the entry, the vectors before it and its units; none: it is not there."""
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        at = int(self._high.searchsorted(np.uint64(high)))
        while at < self._high.size and int(self._high[at]) == high:
            if int(self._low[at]) == low:
                place, offset, units = self._rest[:, at].tolist()
                return place >> 32, place & 0xFFFFFFFF, offset, units
            at += 1
        return None

    def has(self, keys: "bytes | NDArray[Any]") -> NDArray[np.bool_]:
        """(keys,) whether each is there; keys: 16 bytes each."""
        wanted = np.frombuffer(keys, KEY) if isinstance(keys, bytes | bytearray) else keys
        high, low = halves(wanted)
        at = np.searchsorted(self._high, high)
        found = np.zeros(len(high), bool)
        open_ = np.arange(len(high))
        while len(open_):
            inside = open_[at[open_] < self._high.size]
            open_ = inside[self._high[at[inside]] == high[inside]]
            found[open_] |= self._low[at[open_]] == low[open_]
            open_ = open_[~found[open_]]
            at[open_] += 1
        return found
