"""Writing of the index of a vector cache; its files are described in `preprocess.vectors.index_file`.

Entries are distributed to the files by the first bits of their keys, through temporary files. Each file
is then sorted in memory and written, independently of the others.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash

from preprocess.files import storage
from preprocess.files.bulk.at_once import at_once
from preprocess.files.durability import never_synced
from preprocess.files.manifest import FileRecord
from preprocess.files.temporary import temporary_folder
from preprocess.vectors.files import HashedFile, IndexPlace, ShardName
from preprocess.vectors.index_file import BLOCK, COLUMNS, ENTRY_BYTES, Rows, fence, halves
from preprocess.vectors.shard_reader import read_entries
from preprocess.vectors.stored import CacheFiles
from preprocess.work.groups import read_group, write_groups
from preprocess.work.shuffle import group_rows

FILE_ENTRIES = 1 << 21
"""Maximum number of entries of a file on average: 84 MB, and 98 KB of fences."""

WRITTEN_AT_ONCE = 4
"""Files that are sorted and sent to a store at once."""

RUN_ENTRIES = 1 << 20
"""Entries that are distributed to the files at once."""


def write_index(
    folder: str,
    shards: Sequence[tuple[int, int]],
    generation: int = 0,
    output: str = "",
    records: Sequence[FileRecord] = (),
) -> tuple[FileRecord, ...]:
    """Write the index of the closed shards in ``folder``.

    Entries pass through temporary files (in ``TMPDIR``, 40 bytes per entry) if the index has several
    files, so memory stays at about 400 MB for any number of entries, and at 1 GB if the files are
    written to a store.

    Args:
        folder: folder or URL of the cache.
        shards: unit of work and part of each shard, in any order.
        generation: generation of the cache, which is part of the names of the files.
        output: folder to write the index to; ``folder`` by default.
        records: records of the files of the shards, with which entries files are compared.

    Returns:
        The manifest records of the files, in order.

    Raises:
        CacheError: the entries file of a shard is missing or damaged.
    """
    known = {record.name: record for record in records}
    source = CacheFiles(folder, known or None)
    names = sorted({ShardName(*shard) for shard in shards})
    sized = [_Shard(number, name, _size(source, name)) for number, name in enumerate(names)]
    bits = index_bits(sum(shard.entries for shard in sized))
    output = output or folder
    with temporary_folder("biloom-index-") as scratch:
        runs = _distribute(source, sized, bits, Path(scratch)) if bits else []

        def write(number: int) -> FileRecord:
            rows = _grouped(runs, number) if bits else _rows(source, sized)
            return _write_file(output, IndexPlace(generation, number), rows)

        return tuple(at_once(output, write, range(1 << bits), WRITTEN_AT_ONCE))


def index_bits(entries: int) -> int:
    """Return the number of bits of the key by which entries are distributed to files."""
    return max(-(-entries // FILE_ENTRIES) - 1, 0).bit_length()


class _Shard(NamedTuple):
    """A shard: its number in the order of names, its name, and its number of entries."""

    number: int
    name: ShardName
    entries: int


def _size(source: CacheFiles, shard: ShardName) -> int:
    record = (source.records or {}).get(shard.entries)
    stated = record.counts.get("entries") if record else None
    return stated if isinstance(stated, int) else read_entries(source, shard.entries)[0].total


def _distribute(
    source: CacheFiles, shards: Sequence[_Shard], bits: int, scratch: Path
) -> list[str]:
    """Write files with the rows of the entries grouped by file of the index; return their paths."""
    paths: list[str] = []
    with never_synced():
        for run in _runs(shards):
            rows = _rows(source, run)
            numbers = (rows[:, 0] >> np.uint64(64 - bits)).astype(np.int64)
            grouped, bounds = group_rows(rows, numbers, 1 << bits)
            paths.append(str(scratch / f"run-{len(paths):06d}"))
            write_groups(paths[-1], grouped.tobytes(), bounds * ENTRY_BYTES)
    return paths


def _grouped(runs: Sequence[str], number: int) -> Rows:
    """Return the rows of a file of the index, (entries, COLUMNS), in the order of shards."""
    data = b"".join(read_group(run, number) for run in runs)
    return np.frombuffer(data, np.uint64).reshape(-1, COLUMNS)


def _runs(shards: Sequence[_Shard]) -> Iterator[list[_Shard]]:
    """Yield consecutive shards that have together at least `RUN_ENTRIES` entries, and the rest."""
    run: list[_Shard] = []
    entries = 0
    for shard in shards:
        run.append(shard)
        entries += shard.entries
        if entries >= RUN_ENTRIES:
            yield run
            run, entries = [], 0
    if run:
        yield run


def _rows(source: CacheFiles, shards: Sequence[_Shard]) -> Rows:
    """Return the rows of the entries of shards, (entries, COLUMNS)."""

    def read(shard: _Shard) -> Rows:
        entries = read_entries(source, shard.name.entries)[1]
        high, low = halves(entries["key"])
        place = np.arange(len(entries), dtype=np.uint64) + np.uint64(shard.number << 32)
        units = entries["units"].astype(np.uint64)
        return np.stack([high, low, place, entries["offset"], units], 1)

    return np.concatenate([np.empty((0, COLUMNS), np.uint64), *at_once(source.path, read, shards)])


def _write_file(folder: str, place: IndexPlace, rows: Rows) -> FileRecord:
    """Sort the entries of a file, keep the first of equal keys, and write them with their fences."""
    rows = _first_of_equal(rows)
    starts = range(0, len(rows), BLOCK)
    fences = np.array([fence(rows[at : at + BLOCK]) for at in starts], "<u8").reshape(-1, 3)
    data = fences.T.tobytes()
    with storage.atomic_writer(storage.join(folder, place.name)) as file:
        index = HashedFile(place.name, file)
        index.write_header(np.dtype("<u8"), rows.shape)
        index.write(rows.astype("<u8", copy=False).reshape(-1).data)
        index.write(data)
    digest = xxhash.xxh3_128_hexdigest(data)
    return index.record(entries=len(rows), units=int(rows[:, 4].sum()), fences=digest)


def _first_of_equal(rows: Rows) -> Rows:
    """Return rows sorted by key, with only the first of equal keys; ``rows`` are in the order of entries."""
    order = np.argsort(rows[:, 0], kind="stable")
    high = rows[order, 0]
    equal = np.zeros(len(rows) + 1, bool)
    equal[1:-1] = high[1:] == high[:-1]
    # Few keys have equal high halves; only these are sorted by their low halves.
    tied = equal[1:] | equal[:-1]
    part = order[tied]
    order[tied] = part[np.lexsort((rows[part, 1], rows[part, 0]))]
    low = rows[order, 1]
    first = ~equal[:-1]
    first[1:] |= low[1:] != low[:-1]
    return rows[order[first]]
