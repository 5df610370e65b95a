"""Windows over rows of held-out text for evaluation."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.shards.held_out_rows import Row
from preprocess.shards.stream import Int64Ids, TokenStream
from preprocess.tokenizers.base import IGNORE

READ_AT_ONCE = 1024
"""Positions of a row that are read at once, because each reading takes longer than those of a window."""


class HeldOutIds(NamedTuple):
    """A window of held-out text, both directions.

    Attributes:
        ids: inputs, int64 (2, unroll, rows); 0 after the end of a row.
        targets: targets, int64 (2, unroll, rows); `IGNORE` where nothing is scored.
        resets: True where the state must be set to zero before the input is read, because it does not
            follow the input before it, bool (2, unroll, rows); None means nowhere. The starts of rows
            are not marked.
    """

    ids: Int64Ids
    targets: Int64Ids
    resets: npt.NDArray[np.bool_] | None


class HeldOutWindows:
    """Windows over rows of a split, with random access by window number.

    A window has the next ``unroll`` positions of each row. There is at least one window. Without rows, it
    has a row of padding.

    Args:
        stream: the split.
        rows: the rows, see `preprocess.shards.held_out_rows`.
        unroll: positions of a row per window.

    Attributes:
        rows: number of rows of a window.

    Raises:
        ShardError: a shard is missing or damaged.
    """

    def __init__(self, stream: TokenStream, rows: Sequence[Row], unroll: int) -> None:
        self._stream, self._rows, self._unroll = stream, rows, unroll
        self._windows = max([1, *(-(-row.length // unroll) for row in rows)])
        self.rows = max(1, len(rows))

    def __len__(self) -> int:
        return self._windows

    def __getitem__(self, window: int) -> HeldOutIds:
        """Return a window."""
        if not 0 <= window < self._windows:
            raise IndexError(f"window {window} of {self._windows}")
        return self._read(window * self._unroll, self._unroll)

    def __iter__(self) -> Iterator[HeldOutIds]:
        together = max(1, READ_AT_ONCE // self._unroll)
        for first in range(0, self._windows, together):
            windows = min(together, self._windows - first)
            read = self._read(first * self._unroll, windows * self._unroll)
            for start in range(0, windows * self._unroll, self._unroll):
                yield _part(read, slice(start, start + self._unroll))

    def _read(self, start: int, size: int) -> HeldOutIds:
        """Return the next ``size`` positions of each row after the first ``start`` ones."""
        ids = np.zeros((2, size, self.rows), np.int64)
        targets = np.full_like(ids, IGNORE)
        resets = np.zeros_like(ids, bool)
        for number, row in enumerate(self._rows):
            for direction in (0, 1):
                read = row.read(self._stream, direction, start, start + size)
                held = (direction, slice(len(read.ids)), number)
                ids[held], targets[held], resets[held] = read
        if start == 0:
            resets[:, 0] = False
        return HeldOutIds(ids, targets, resets if resets.any() else None)


def _part(read: HeldOutIds, part: slice) -> HeldOutIds:
    resets = None if read.resets is None else read.resets[:, part]
    return HeldOutIds(
        np.ascontiguousarray(read.ids[:, part]),
        np.ascontiguousarray(read.targets[:, part]),
        resets if resets is not None and resets.any() else None,
    )
