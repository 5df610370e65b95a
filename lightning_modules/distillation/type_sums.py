"""Sums of the contextual vectors of each type of a vocabulary."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

ADDED_AT_ONCE = 4096
"""Vectors that are converted to float64 at once."""


class Uses(NamedTuple):
    """Tokens of a text and their vectors.

    Attributes:
        ids: id of each token, int64 (tokens,).
        vectors: (tokens, dim) float32.
    """

    ids: Ids
    vectors: Floats


class TypeSums:
    """The number of uses of each id, and the sum of their vectors.

    Sums are float64, so a mean differs by less than 1e-12 of the largest value if the same uses are added
    in another order. The same order gives the same bits. The memory is ``8 * types * dim`` bytes.

    Args:
        types: number of ids.
        dim: size of a vector.

    Attributes:
        counts: uses of each id, int64 (types,).
        sums: sum of the vectors of each id, float64 (types, dim).
    """

    def __init__(self, types: int, dim: int) -> None:
        self.counts: Ids = np.zeros(types, np.int64)
        self.sums: Doubles = np.zeros((types, dim))
        self._waiting: list[Uses] = []
        self._size = 0

    def add(self, uses: Uses) -> None:
        """Add the tokens of a text. Call `flush` after the last text."""
        self._waiting.append(uses)
        self._size += len(uses.ids)
        if self._size >= ADDED_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Add the tokens that are held back because few tokens at once are slow to add."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        ids = np.concatenate([np.zeros(0, np.int64), *(uses.ids for uses in waiting)])
        if not len(ids):
            return
        vectors = np.concatenate([uses.vectors for uses in waiting])
        for start in range(0, len(ids), ADDED_AT_ONCE):
            part = slice(start, start + ADDED_AT_ONCE)
            self._add(ids[part], vectors[part])

    def _add(self, ids: Ids, vectors: Floats) -> None:
        order = np.argsort(ids, kind="stable")
        types, starts, counts = np.unique(ids[order], return_index=True, return_counts=True)
        self.counts[types] += counts
        self.sums[types] += np.add.reduceat(vectors[order].astype(np.float64), starts, 0)
