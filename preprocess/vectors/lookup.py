"""Look-ups in the index of a vector cache (files: `preprocess.vectors.index_file`)."""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.files.bulk.at_once import THREADS, at_once
from preprocess.vectors.files import KEY, index_place
from preprocess.vectors.index_file import (
    ABSENT,
    Places,
    Rows,
    WholeFile,
    entries_of,
    halves,
    record_of,
)
from preprocess.vectors.index_ranges import RangedFile, RecentBlocks, Wanted, look_up
from preprocess.vectors.stored import CacheFiles, most_maps

WHOLE_FILES = 256
"""Files that are mapped at most, or in memory if they are small; fewer if the process may map few."""

RANGED_FILES = 512
"""Files whose fences are kept in memory at most, 98 KB each."""

_HALVES = struct.Struct(">QQ")


class VectorIndex:
    """The index of a cache; ``len`` is its number of texts.

    Whatever a look-up reads is checked first, so neither a wrong place nor a wrong "not found" is
    returned. Files on a disk are mapped. Of a file in a store, ranges are read: the fences and the
    blocks of the keys. After as many bytes as the file has, the file is copied to this machine, if the
    copies may have the size of the whole index twice. Memory is bounded whatever the size of the index.

    Args:
        files: the files of the cache.
        names: names of the files of the index, in order.

    Attributes:
        sizes: number of entries of each file, int64 (files,).

    Raises:
        CacheError: a file on a disk is missing or has another size; or the cache is closed.
    """

    def __init__(self, files: CacheFiles, names: Sequence[str]) -> None:
        files.check_open()
        self._files, self._names = files, names
        self._bits = len(names).bit_length() - 1
        self._records = [record_of(files, name) for name in names]
        sizes = map(entries_of, map(files.name, names), self._records)
        self.sizes = np.fromiter(sizes, np.int64, len(names))
        place = index_place(names[0])
        # The blocks of a former version are not contiguous.
        self._is_ranged = files.is_ranged and place is not None and place.number is not None
        if not files.is_remote:
            for name in names:
                files.open(name)
        self._recent = RecentBlocks()
        self._can_copy = files.can_copy(sum(record.bytes for record in self._records))
        # Not bound methods, because their caches would keep this object alive.
        self._whole = lru_cache(min(WHOLE_FILES, most_maps() // 2))(partial(WholeFile, files))
        self._ranged = lru_cache(RANGED_FILES)(partial(RangedFile, files, self._recent))

    def __len__(self) -> int:
        return int(self.sizes.sum())

    @property
    def units(self) -> int:
        """Total units of all entries.

        Raises:
            CacheError: the index is damaged.
        """
        units = [record.counts.get("units") for record in self._records]
        # Version 0.1 did not record them.
        known = [n for n in units if isinstance(n, int)]
        if len(known) == len(units):
            return sum(known)
        return sum(self._whole(name).units for name in self._names)

    def file_of(self, key: bytes) -> str:
        """Return the path of the file where a key belongs, for messages."""
        return self._files.name(self._names[self._number(_HALVES.unpack(key)[0])])

    def files_of(self, keys: NDArray[Any]) -> Places:
        """Return the number of the file where each of many 16-byte keys belongs, int64 (keys,)."""
        return self._numbers(halves(keys)[0])

    def _number(self, high: int) -> int:
        return high >> (64 - self._bits)

    def _numbers(self, high: Rows) -> Places:
        # A shift by all 64 bits is undefined.
        shifted = high >> np.uint64(64 - self._bits) if self._bits else np.zeros_like(high)
        return shifted.astype(np.int64)

    def _is_copied(self, number: int) -> bool:
        """Return whether a file is read as a whole."""
        if not self._is_ranged:
            return True
        fetched = self._recent.fetched[self._names[number]]
        return self._can_copy and fetched >= self._records[number].bytes

    def find(self, key: bytes) -> tuple[int, int, int, int] | None:
        """Find a text by its key.

        Args:
            key: the key, 16 bytes.

        Returns:
            (shard, entry, vectors before the entry, units), as in columns 2 to 4 of the index, or None
            if the key is missing.

        Raises:
            CacheError: the part of the index where the key belongs is damaged.
        """
        high, low = _HALVES.unpack(key)
        number = self._number(high)
        read = self._whole if self._is_copied(number) else self._ranged
        found = read(self._names[number]).find(high, low)
        if found is None:
            return None
        place, offset, units = found
        return place >> 32, place & 0xFFFFFFFF, offset, units

    def has(self, keys: "bytes | NDArray[Any]") -> NDArray[np.bool_]:
        """Return which of many 16-byte keys are in the index, bool (keys,); raises as `places`."""
        found: NDArray[np.bool_] = self.places(keys)[0] != ABSENT
        return found

    def places(self, keys: "bytes | NDArray[Any]") -> Rows:
        """Return columns 2 to 4 of the index for each of many 16-byte keys, uint64 (3, keys).

        All are `ABSENT` for a key that is not in the index.

        Raises:
            CacheError: a part of the index where a key belongs is damaged.
        """
        array = np.frombuffer(keys, KEY) if isinstance(keys, bytes | bytearray) else keys
        high, low = halves(array)
        found = np.full((3, len(high)), ABSENT)
        ranged: list[tuple[int, Places]] = []
        for number, own in self._by_file(high):
            if self._is_copied(number):
                file = self._whole(self._names[number])
                found[:, own] = file.places(high[own], low[own])
            else:
                ranged.append((number, own))
        for first in range(0, len(ranged), THREADS):
            batch = ranged[first : first + THREADS]
            names = [self._names[number] for number, _ in batch]
            files = at_once(self._files.path, self._ranged, names)
            wanted = [
                Wanted(file, high[own], low[own])
                for file, (_, own) in zip(files, batch, strict=True)
            ]
            for (_, own), places in zip(batch, look_up(self._files, wanted), strict=True):
                found[:, own] = places
        return found

    def _by_file(self, high: Rows) -> Iterator[tuple[int, Places]]:
        """Yield the number of each file where keys belong, and the indexes of these keys."""
        if not self._bits:
            yield 0, np.arange(len(high))
            return
        numbers = self._numbers(high)
        order = np.argsort(numbers, kind="stable")
        found, first = np.unique(numbers[order], return_index=True)
        yield from zip(found.tolist(), np.split(order, first[1:]), strict=True)
