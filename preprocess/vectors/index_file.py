"""The files of the index of a vector cache: where the vectors of each key are.

An index has 2^k files; file n has the entries whose keys begin with the k bits of n. A file is a uint64
array, shape (entries, 5), sorted by key. Its columns are:

- 0 and 1: the high and the low half of the key, read as big-endian numbers
- 2: ``shard << 32 | entry``, the index of the shard in the order of names, and of the entry in it
- 3: the number of vectors before the entry in the vectors file of its shard
- 4: the number of units of the entry

If several entries have the same key, only the first is in the index.

After the array the file has its *fences*: uint64, shape (3, blocks). A block is `BLOCK` entries. The
rows of the fences are the high and the low half of the block's first key, and the XXH3 64-bit hash of
the block. The manifest has the xxh128 of the fences. So a reader needs two ranges of a file, the fences
and one block, and checks both before it believes them.

An index of a former version is one file. Its array has the shape (5, entries), which is also the order in
which a block is hashed. The index of version 0.1 has no fences; it is hashed as a whole.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from preprocess.files.manifest import FileRecord
from preprocess.shards.npy import LONGEST, read_header
from preprocess.vectors.files import damaged_cache, index_place
from preprocess.vectors.stored import CacheFiles

Rows = NDArray[np.uint64]
Places = NDArray[np.int64]

COLUMNS = 5
"""Columns of the array."""

BLOCK = 512
"""Entries of a block, 20 KB, which is read and checked as a whole."""

FEW = 16
"""So many keys are faster to look up one after the other than as arrays."""

ENTRY_BYTES, FENCE_BYTES = 8 * COLUMNS, 24

ABSENT = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The place of a key that is not in the index."""


def halves(keys: NDArray[Any]) -> tuple[Rows, Rows]:
    """Return the high and low halves of 16-byte keys as numbers, each uint64 (keys,)."""
    pairs = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2)
    return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.uint64)


def fence(block: Rows, by_column: bool = False) -> tuple[int, int, int]:
    """Return the first key of a block, as two numbers, and the block's hash.

    Args:
        block: shape (entries, COLUMNS).
        by_column: whether to hash column by column, as former versions.
    """
    data = np.ascontiguousarray(block.T if by_column else block, "<u8").data
    return int(block[0, 0]), int(block[0, 1]), xxhash.xxh3_64_intdigest(data)


def find_in_block(block: Rows, high: Rows, low: Rows) -> Rows:
    """Return columns 2 to 4 of a block for each key, uint64 (3, keys); `ABSENT` for a missing key."""
    highs, lows = block[:, 0], block[:, 1]
    at = highs.searchsorted(high)
    while True:
        inside = np.minimum(at, len(block) - 1)
        same = (at < len(block)) & (highs[inside] == high)
        # Keys with equal high halves are sorted by their low halves.
        if not (later := same & (lows[inside] < low)).any():
            break
        at = at + later
    found: Rows = np.where(same & (lows[inside] == low), block[inside, 2:].T, ABSENT)
    return found


class Fences:
    """The fences of a file: they tell the block of a key, and check blocks.

    Args:
        path: path of the file, for messages.
        rows: the fences, shape (3, blocks).
        entries: number of entries of the file.
        by_column: as in `fence`.

    Raises:
        CacheError: the first keys of the blocks are not in order.
    """

    def __init__(self, path: str, rows: Rows, entries: int, by_column: bool = False) -> None:
        self.path, self.entries, self._by_column = path, entries, by_column
        self._rows, self._high, self._low = rows, rows[0], rows[1]
        if not _is_rising(self._high, self._low):
            raise damaged_cache(path, "its fences are not in the order of their keys")

    @classmethod
    def read(cls, path: str, data: bytes, record: FileRecord, by_column: bool = False) -> "Fences":
        """Return the fences with this content.

        Raises:
            CacheError: the content differs from its hash in the record of the file.
        """
        if xxhash.xxh3_128_hexdigest(data) != record.counts.get("fences"):
            raise damaged_cache(path, "its fences do not match their hash")
        rows = np.frombuffer(data, "<u8").reshape(3, -1)
        return cls(path, rows, entries_of(path, record), by_column)

    def __len__(self) -> int:
        return len(self._high)

    def block_of(self, high: int, low: int) -> int:
        """Return the block where a key belongs, or -1 if the key is less than all keys."""
        block = int(self._high.searchsorted(np.uint64(high), "right")) - 1
        while block >= 0 and self._high.item(block) == high and self._low.item(block) > low:
            block -= 1
        return block

    def blocks_of(self, high: Rows, low: Rows) -> Places:
        """Return the block where each key belongs, or -1 as `block_of`, int64 (keys,)."""
        blocks: Places = self._high.searchsorted(high, "right").astype(np.int64) - 1
        if len(self):
            while (
                later := (blocks >= 0) & (self._high[blocks] == high) & (self._low[blocks] > low)
            ).any():
                blocks -= later
        return blocks

    def damage(self, block: int, rows: Rows) -> str:
        """Return what is wrong with the content of a block, or "" if it is whole.

        Args:
            block: number of the block.
            rows: its content, shape (entries, COLUMNS).
        """
        first = block * BLOCK
        where = f"its entries {first:,} to {min(first + BLOCK, self.entries) - 1:,} "
        if fence(rows, self._by_column) != tuple(self._rows[:, block].tolist()):
            return where + "do not match their hash"
        following = self._rows[:2, block + 1 : block + 2]
        high, low = (np.append(rows[:, half], following[half]) for half in (0, 1))
        return "" if _is_rising(high, low) else where + "are not in the order of their keys"

    def check(self, block: int, rows: Rows) -> None:
        """Check the content of a block; arguments as in `damage`.

        Raises:
            CacheError: the block is damaged.
        """
        if damage := self.damage(block, rows):
            raise damaged_cache(self.path, damage)


class IndexFile(ABC):
    """A file of an index, whose fences are in memory and checked.

    Attributes:
        fences: its fences.
    """

    fences: Fences

    @abstractmethod
    def block(self, number: int) -> Rows:
        """Return a block, shape (entries, COLUMNS).

        Raises:
            CacheError: the block is damaged, or cannot be read.
        """

    def find(self, high: int, low: int) -> tuple[int, int, int] | None:
        """Return columns 2 to 4 for a key, or None if it is missing; raises as `block`."""
        number = self.fences.block_of(high, low)
        if number < 0:
            return None
        block = self.block(number)
        at = int(block[:, 0].searchsorted(np.uint64(high)))
        while at < len(block):
            first, second, place, offset, units = block[at].tolist()
            if first != high:
                break
            if second == low:
                return place, offset, units
            at += 1
        return None


class WholeFile(IndexFile):
    """A file of an index that is mapped, or in memory if it is small.

    A block is checked once, when it is first needed.

    Args:
        files: the files of the cache.
        name: name of the file.

    Raises:
        CacheError: the file is missing or damaged.
    """

    def __init__(self, files: CacheFiles, name: str) -> None:
        record, place = record_of(files, name), index_place(name)
        is_former = place is not None and place.number is None
        has_fences = not is_former or "fences" in record.counts
        file = files.open(name) if has_fences else files.checked_file(name)
        data = file.read(0, file.size)
        header = read_header(bytes(data[:LONGEST]), np.dtype("<u8"))
        shape = header.shape[::-1] if header and is_former else header and header.shape
        if header is None or shape is None or len(shape) != 2 or shape[1] != COLUMNS:
            raise damaged_cache(file.path, "its header does not describe an index")
        entries = entries_of(file.path, record)
        end = header.start + ENTRY_BYTES * entries
        blocks = -(-entries // BLOCK)
        if shape[0] != entries or file.size != end + FENCE_BYTES * blocks * has_fences:
            raise damaged_cache(file.path, f"{file.size:,} bytes cannot be {entries:,} entries")
        self._rows: Rows = np.frombuffer(data, "<u8", COLUMNS * entries, header.start)
        if is_former:
            self._rows = self._rows.reshape(COLUMNS, -1).T
        self._rows = self._rows.reshape(-1, COLUMNS)
        if has_fences:
            # Copied, so that what was checked cannot change.
            self.fences = Fences.read(file.path, bytes(data[end:]), record, is_former)
        else:
            made = [fence(self._block(n), is_former) for n in range(blocks)]
            rows = np.array(made, np.uint64).reshape(-1, 3).T
            self.fences = Fences(file.path, rows, entries, is_former)
        self._units = record.counts.get("units")
        self._checked = bytearray(blocks)

    def _block(self, number: int) -> Rows:
        return self._rows[number * BLOCK : (number + 1) * BLOCK]

    def block(self, number: int) -> Rows:
        if not self._checked[number]:
            self.fences.check(number, self._block(number))
            self._checked[number] = 1
        return self._block(number)

    def places(self, high: Rows, low: Rows) -> Rows:
        """Return columns 2 to 4 for each key, uint64 (3, keys); `ABSENT` for a missing key.

        Raises:
            CacheError: the block of a key is damaged.
        """
        found = np.full((3, len(high)), ABSENT)
        if len(high) <= FEW:
            for at, key in enumerate(zip(high.tolist(), low.tolist(), strict=True)):
                found[:, at] = self.find(*key) or ABSENT
            return found
        blocks = self.fences.blocks_of(high, low)
        inside = np.flatnonzero(blocks >= 0)
        blocks, high, low = blocks[inside], high[inside], low[inside]
        for block in np.unique(blocks).tolist():
            if not self._checked[block]:
                self.block(block)
        # Binary search in the blocks of all keys at once, for the last entry whose high half is not larger.
        highs, lows = self._rows[:, 0], self._rows[:, 1]
        places = blocks * BLOCK
        last = np.minimum(places + BLOCK, self.fences.entries) - 1
        step = BLOCK // 2
        while step:
            middle = np.minimum(places + step, last)
            places = np.where(highs[middle] <= high, middle, places)
            step //= 2
        # Keys with equal high halves are sorted by their low halves.
        while (earlier := (highs[places] == high) & (lows[places] > low)).any():
            places -= earlier
        equal = (highs[places] == high) & (lows[places] == low)
        found[:, inside[equal]] = self._rows[places[equal], 2:].T
        return found

    @property
    def units(self) -> int:
        """Total units of all entries, after a check of all blocks.

        Raises:
            CacheError: a block is damaged.
        """
        for number in range(len(self.fences)):
            self.block(number)
        return int(self._rows[:, 4].sum())

    def problems(self) -> list[str]:
        """Return what is wrong with the file: blocks that were changed or are not sorted by key."""
        found = (self.fences.damage(n, self._block(n)) for n in range(len(self.fences)))
        problems = [damage for damage in found if damage]
        stated = self._units
        if not problems and isinstance(stated, int) and stated != int(self._rows[:, 4].sum()):
            problems.append(f"it does not have {stated:,} units, as the manifest states")
        return problems


def record_of(files: CacheFiles, name: str) -> FileRecord:
    """Return the manifest record of a file of an index."""
    assert files.records is not None, "an index is checked with the manifest"
    return files.records[name]


def entries_of(path: str, record: FileRecord) -> int:
    """Return the number of entries of a file of an index, from its record.

    Raises:
        CacheError: the record has no such number.
    """
    entries = record.counts.get("entries")
    if not isinstance(entries, int):
        raise damaged_cache(path, f"its manifest says that it has {entries!r:.60} entries")
    return entries


def _is_rising(high: Rows, low: Rows) -> bool:
    """Return whether each key is larger than the one before it."""
    rising = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    return bool(rising.all())
