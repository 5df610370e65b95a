"""Reading of the index of a remote vector cache by ranges of its files."""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np

from preprocess.files.bulk.at_once import THREADS, at_once
from preprocess.shards.npy import LONGEST
from preprocess.vectors.files import damaged_cache
from preprocess.vectors.index_file import (
    ABSENT,
    BLOCK,
    COLUMNS,
    ENTRY_BYTES,
    FENCE_BYTES,
    Fences,
    IndexFile,
    Places,
    Rows,
    entries_of,
    find_in_block,
    record_of,
)
from preprocess.vectors.stored import CacheFiles

RECENT_BLOCKS = 3000
"""Blocks that are kept in memory, the most recently used ones: 61 MB."""

SMALL_BYTES = 1 << 17
"""A file of at most this size is read in one request."""

RANGE_BLOCKS = 25
"""Maximum number of blocks in one request: 512 KB."""

GAP_BLOCKS = 3
"""Needed blocks with at most this number of others between them are read in one request."""


class RecentBlocks:
    """The checked blocks that were used last, by name of the file and number of the block.

    Attributes:
        fetched: bytes of blocks that were read from each file.
    """

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
        self._blocks: OrderedDict[tuple[str, int], Rows] = OrderedDict()
        self._lock = Lock()

    def get(self, name: str, number: int) -> Rows | None:
        """Return a block, or None if it is not kept."""
        with self._lock:
            if (block := self._blocks.get((name, number))) is not None:
                self._blocks.move_to_end((name, number))
            return block

    def add(self, name: str, number: int, block: Rows) -> None:
        """Keep a block, and forget the one whose use is longest ago if there are too many."""
        with self._lock:
            self._blocks[name, number] = block
            if len(self._blocks) > RECENT_BLOCKS:
                self._blocks.popitem(last=False)


class RangedFile(IndexFile):
    """A file of the index of a remote cache. Only the needed ranges are read.

    A block is checked when it is read.

    Args:
        files: the files of the cache.
        recent: the blocks that are kept.
        name: name of the file.

    Attributes:
        name: name of the file.
        recent: the blocks that are kept.

    Raises:
        CacheError: the file is missing or damaged.
    """

    def __init__(self, files: CacheFiles, recent: RecentBlocks, name: str) -> None:
        self._files, self.recent, self.name = files, recent, name
        path, record = files.name(name), record_of(files, name)
        entries = entries_of(path, record)
        fences = FENCE_BYTES * -(-entries // BLOCK)
        self._start = record.bytes - fences - ENTRY_BYTES * entries
        if not 0 < self._start <= LONGEST:
            raise damaged_cache(path, f"{record.bytes:,} bytes cannot be {entries:,} entries")
        is_small = record.bytes <= SMALL_BYTES
        begin = 0 if is_small else record.bytes - fences
        data = files.read_range(name, begin, record.bytes)
        self._content = data if is_small else None
        self.fences = Fences.read(path, data[record.bytes - fences - begin :], record)

    def block(self, number: int) -> Rows:
        block = self.recent.get(self.name, number)
        if block is None:
            (block,) = self.read(number, number + 1)
            self.recent.add(self.name, number, block)
        return block

    def read(self, first: int, end: int) -> list[Rows]:
        """Read consecutive blocks in one request; errors as in `block`."""
        start = self._start + ENTRY_BYTES * BLOCK * first
        stop = self._start + ENTRY_BYTES * min(BLOCK * end, self.fences.entries)
        if self._content is None:
            data = self._files.read_range(self.name, start, stop)
            self.recent.fetched[self.name] += stop - start
        else:
            data = self._content[start:stop]
        rows = np.frombuffer(data, "<u8").reshape(-1, COLUMNS)
        blocks = []
        for number in range(first, end):
            at = BLOCK * (number - first)
            block = rows[at : at + BLOCK]
            self.fences.check(number, block)
            blocks.append(block)
        return blocks


class Wanted(NamedTuple):
    """Keys to look up in a file.

    Attributes:
        file: the file.
        high: high halves of the keys, uint64 (keys,).
        low: low halves, uint64 (keys,).
    """

    file: RangedFile
    high: Rows
    low: Rows


def look_up(files: CacheFiles, wanted: Sequence[Wanted]) -> list[Rows]:
    """Look up keys in files of the index; near blocks are read in one request, many requests at once.

    Args:
        files: the files of the cache.
        wanted: files and keys.

    Returns:
        For each item of ``wanted`` an array as `find_in_block` returns it.

    Raises:
        CacheError: a block is damaged, or cannot be read.
    """
    lookups = [_LookUp(item) for item in wanted]
    ranges = [(one, *ends) for one in lookups for ends in _ranges(one.in_recent_blocks())]
    for first in range(0, len(ranges), THREADS):  # so that no more blocks are in memory
        batch = ranges[first : first + THREADS]
        for (one, begin, _), blocks in zip(batch, at_once(files.path, _read, batch), strict=True):
            one.add(begin, blocks)
    return [one.found for one in lookups]


class _LookUp:
    """The look-up of keys in a file.

    Attributes:
        found: the result for the keys of the blocks that were read so far.
    """

    def __init__(self, wanted: Wanted) -> None:
        self.file, self._high, self._low = wanted
        self.found = np.full((3, len(self._high)), ABSENT)
        blocks = self.file.fences.blocks_of(self._high, self._low)
        self._order = np.argsort(blocks, kind="stable")
        self._blocks = blocks[self._order]

    def in_recent_blocks(self) -> Places:
        """Look up the keys whose blocks are in memory; return the numbers of the other blocks, rising."""
        missing = []
        for number in np.unique(self._blocks[self._blocks >= 0]).tolist():
            if (block := self.file.recent.get(self.file.name, number)) is None:
                missing.append(number)
            else:
                self._look_in(number, block)
        return np.array(missing, np.int64)

    def add(self, first: int, blocks: Sequence[Rows]) -> None:
        """Look up the keys of consecutive blocks, and keep the blocks that have keys."""
        for number, block in enumerate(blocks, first):
            if self._look_in(number, block):
                # A copy, because the block is a part of a range.
                self.file.recent.add(self.file.name, number, block.copy())

    def _look_in(self, number: int, block: Rows) -> bool:
        start, end = self._blocks.searchsorted([number, number + 1])
        own = self._order[start:end]
        self.found[:, own] = find_in_block(block, self._high[own], self._low[own])
        return len(own) > 0


def _read(part: tuple[_LookUp, int, int]) -> list[Rows]:
    one, first, end = part
    return one.file.read(first, end)


def _ranges(blocks: Places) -> Iterator[tuple[int, int]]:
    """Yield the first block of each request and the block after its last one."""
    numbers = blocks.tolist()
    for at, number in enumerate(numbers):
        if not at:
            begin = end = number
        elif number - end > GAP_BLOCKS or number - begin >= RANGE_BLOCKS:
            yield begin, end
            begin = number
        end = number + 1
    if numbers:
        yield begin, end
