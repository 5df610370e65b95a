"""Look-ups in the index of a vector cache (layout: `preprocess.vectors.index`)."""

import struct
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from preprocess.shards.npy import LONGEST, read_header
from preprocess.vectors.files import KEY, damaged_cache, index_name
from preprocess.vectors.index import BLOCK, ROWS, Rows, fence, halves
from preprocess.vectors.stored import CacheFiles

ABSENT = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The place of a key that is not in the index."""

_HALVES = struct.Struct(">QQ")


class VectorIndex:
    """The index of a cache; ``len`` is its number of texts.

    The fences are in memory and checked. The block that a look-up reads is checked once in a process,
    so neither a wrong place nor a wrong "not found" is returned. An index without fences is one block.

    Args:
        files: the files of the cache.
        generation: generation of the cache.

    Raises:
        CacheError: the index is missing or damaged.
    """

    def __init__(self, files: CacheFiles, generation: int) -> None:
        self._files, self._name = files, index_name(generation)
        file = files.open(self._name)
        self.path = file.path
        data = file.read(0, file.size)
        header = read_header(bytes(data[:LONGEST]), np.dtype("<u8"))
        if header is None or len(header.shape) != 2 or header.shape[0] != ROWS:
            raise damaged_cache(self.path, "its header does not describe an index")
        count, end = header.shape[1], header.start + 8 * ROWS * header.shape[1]
        counts = files.records[self._name].counts if files.records is not None else {}
        digest, self._units = counts.get("fences"), counts.get("units")
        self._fenced = digest is not None
        self._size = BLOCK if self._fenced else max(count, 1)
        blocks = -(-count // self._size)
        fences = 24 * blocks if self._fenced else 0
        if end + fences != file.size:
            raise damaged_cache(self.path, f"{file.size:,} bytes cannot be {count:,} entries")
        self._data = data
        self._rows: Rows = np.frombuffer(data, "<u8", ROWS * count, header.start).reshape(ROWS, -1)
        self._fences: Rows = np.zeros((3, blocks), np.uint64)
        if self._fenced:
            # Copied, so that what was checked cannot change.
            content = bytes(data[end:])
            if xxhash.xxh3_128_hexdigest(content) != digest:
                raise damaged_cache(self.path, "its fences do not match their hash")
            self._fences = np.frombuffer(content, "<u8").reshape(3, -1)
            if not _is_rising(self._fences):
                raise damaged_cache(self.path, "its fences are not in the order of their keys")
        self._firsts = self._fences[0], self._fences[1]
        self._checked = bytearray(blocks)

    def __len__(self) -> int:
        return int(self._rows.shape[1])

    @property
    def units(self) -> int:
        """Total units of all entries.

        Raises:
            CacheError: the index is damaged.
        """
        if isinstance(self._units, int):
            return self._units
        self.check_all()
        return int(self._rows[4].sum())

    def find(self, key: bytes) -> tuple[int, int, int, int] | None:
        """Find a text by its key.

        Args:
            key: the key, 16 bytes.

        Returns:
            (shard, entry, vectors before the entry, units), as in rows 2 to 4 of the index, or None if
            the key is missing.

        Raises:
            CacheError: the block of the key is damaged.
        """
        high, low = _HALVES.unpack(key)
        wanted = np.uint64(high)
        first, second = self._firsts
        block = int(first.searchsorted(wanted, "right")) - 1
        while block >= 0 and first.item(block) == high and second.item(block) > low:
            block -= 1
        if block < 0:
            return None
        if not self._checked[block]:
            self._check(block)
        start = block * self._size
        highs = self._rows[0, start : start + self._size]
        at = int(highs.searchsorted(wanted))
        while at < len(highs) and highs.item(at) == high:
            _, found, place, offset, units = self._rows[:, start + at].tolist()
            if found == low:
                return place >> 32, place & 0xFFFFFFFF, offset, units
            at += 1
        return None

    def has(self, keys: "bytes | NDArray[Any]") -> NDArray[np.bool_]:
        """Return which of many 16-byte keys are in the index, bool (keys,); raises as `places`."""
        found: NDArray[np.bool_] = self.places(keys)[0] != ABSENT
        return found

    def places(self, keys: "bytes | NDArray[Any]") -> Rows:
        """Return rows 2 to 4 of the index for each of many 16-byte keys, uint64 (3, keys).

        All are `ABSENT` for a key that is not in the index.

        Raises:
            CacheError: the block of a key is damaged.
        """
        array = np.frombuffer(keys, KEY) if isinstance(keys, bytes | bytearray) else keys
        high, low = halves(array)
        found = np.full((3, len(high)), ABSENT)
        blocks = self._last(self._fences, high, low, np.zeros(len(high), np.int64), self._blocks)
        inside = np.flatnonzero(blocks >= 0)
        blocks, high, low = blocks[inside], high[inside], low[inside]
        for block in np.unique(blocks).tolist():
            if not self._checked[block]:
                self._check(block)
        first = blocks * self._size
        at = self._last(self._rows, high, low, first, np.minimum(first + self._size, len(self)))
        equal = (at >= first) & (self._rows[0, at] == high) & (self._rows[1, at] == low)
        found[:, inside[equal]] = self._rows[2:, at[equal]]
        return found

    @property
    def _blocks(self) -> int:
        return int(self._fences.shape[1])

    @staticmethod
    def _last(
        rows: Rows, high: Rows, low: Rows, start: NDArray[np.int64], end: "NDArray[np.int64] | int"
    ) -> NDArray[np.int64]:
        """Return for each key the last column in [start, end) with a key not above it, or start - 1."""
        low_at, high_at = start - 1, np.broadcast_to(np.asarray(end, np.int64), start.shape).copy()
        while (open_ := high_at - low_at > 1).any():
            at = np.where(open_, (low_at + high_at) // 2, start)
            at = np.minimum(at, rows.shape[1] - 1)
            below = (rows[0, at] < high) | ((rows[0, at] == high) & (rows[1, at] <= low))
            low_at = np.where(open_ & below, at, low_at)
            high_at = np.where(open_ & ~below, at, high_at)
        return low_at

    def check_all(self) -> None:
        """Check all blocks.

        Raises:
            CacheError: a block is damaged.
        """
        for block in range(self._blocks):
            if not self._checked[block]:
                self._check(block)

    def problems(self) -> list[str]:
        """Return what is wrong with the index: blocks that were changed or are not sorted by key."""
        problems = [why for n in range(self._blocks) if (why := self._damage(n))]
        if (
            not problems
            and isinstance(self._units, int)
            and self._units != int(self._rows[4].sum())
        ):
            problems.append(f"it does not have {self._units:,} units, as the manifest states")
        return problems

    def _check(self, block: int) -> None:
        if damage := self._damage(block):
            raise damaged_cache(self.path, damage)
        self._checked[block] = 1

    def _damage(self, block: int) -> str:
        """Return what is wrong with a block, or "" if it is whole."""
        first = block * self._size
        # With the first key of the next block, which must be larger.
        rows = self._rows[:, first : first + self._size + 1]
        where = f"its entries {first:,} to {min(first + self._size, len(self)) - 1:,} "
        if not self._is_written(block, rows[:, : self._size]):
            return where + "do not match their hash"
        return "" if _is_rising(rows) else where + "are not in the order of their keys"

    def _is_written(self, block: int, rows: Rows) -> bool:
        if self._fenced:
            return fence(rows) == tuple(self._fences[:, block].tolist())
        records = self._files.records
        if records is None:
            return True
        return xxhash.xxh3_128_hexdigest(self._data) == records[self._name].xxh128


def _is_rising(rows: Rows) -> bool:
    """Return whether each key is larger than the one before it."""
    high, low = rows[0], rows[1]
    rising = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
    return bool(rising.all())
