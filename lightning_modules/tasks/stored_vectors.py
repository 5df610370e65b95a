"""Storage of the vectors of many texts: in memory, in temporary files, or in a vector cache."""

import numpy as np
import numpy.typing as npt

from lightning_modules.vectors.scratch import allocate
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.shard import Text

Floats = npt.NDArray[np.float32]

BLOCK_BYTES = 1 << 26
"""Vectors of one temporary file."""


class StoredVectors:
    """The vectors of distinct texts, in memory, in temporary files, or in a cache.

    Args:
        memory_bytes: size of the vectors that are kept in memory.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._left = memory_bytes
        self._arrays: list[Floats | tuple[VectorCache, Text]] = []
        self._lengths: list[int] = []
        self._waiting: list[int] = []
        self._waiting_bytes = 0
        self.lengths = np.zeros(0, np.int64)

    def add(self, array: Floats) -> None:
        """Store the vectors of a text."""
        self._append(array, array.shape[1])
        if isinstance(array, np.memmap):  # A very long text has a file of its own.
            return
        self._left -= array.nbytes
        if self._left < 0:
            self._waiting.append(len(self._arrays) - 1)
            self._waiting_bytes += array.nbytes
            if self._waiting_bytes >= BLOCK_BYTES:
                self._write()

    def refer(self, cache: VectorCache, text: Text, units: int) -> None:
        """Read the vectors of a text from a cache whenever they are requested."""
        self._append((cache, text), units)

    def finish(self) -> None:
        """Must be called when all texts are stored."""
        self._write()
        self.lengths = np.array(self._lengths, np.int64)

    def get(self, slot: int) -> Floats:
        """Return the vectors of the text that was added at this position."""
        found = self._arrays[slot]
        if isinstance(found, tuple):
            return found[0][found[1]].astype(np.float32, copy=False)
        return found

    def _append(self, array: Floats | tuple[VectorCache, Text], units: int) -> None:
        self._arrays.append(array)
        self._lengths.append(units)

    def _write(self) -> None:
        """Move the vectors that do not fit into memory to a temporary file."""
        arrays = {slot: self.get(slot) for slot in self._waiting}
        total = sum(array.size for array in arrays.values())
        if total:
            block, start = allocate((1, 1, total), memory_bytes=0)[0, 0], 0
            for slot, array in arrays.items():
                part = block[start : start + array.size].reshape(array.shape)
                part[...] = array
                self._arrays[slot], start = part, start + array.size
        self._waiting, self._waiting_bytes = [], 0
