"""The loader of held-out text for validations."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightning_modules.evaluation.perplexity import window_of
from lightning_modules.nn.window import Window
from lightning_modules.nn.window_maker import WindowMaker
from preprocess.shards.held_out_rows import Row
from preprocess.shards.held_out_windows import HeldOutIds, HeldOutWindows
from preprocess.shards.stream import TokenStream

UNROLL = 64
"""Most positions of a row per window."""
POSITIONS = 4096
"""Most positions of a window, as in training with 200 rows, so that evaluating needs no more memory."""
KEPT_POSITIONS = 1 << 21
"""If a rank has at most so many positions, its windows are kept in memory (about 60 bytes a position), because
reading them takes 2 us a token each time, as long as a GPU trains on one."""


class HeldOutBatch(NamedTuple):
    """A window of the rows of a block.

    Attributes:
        window: the window.
        block: number of the block, over all ranks; -1 for padding. Its first window starts from the zero
            state.
        blocks: number of blocks of all ranks.
    """

    window: Window
    block: int
    blocks: int


class HeldOutLoader:
    """The windows of held-out text that a rank evaluates; each item is a `HeldOutBatch` of tensors.

    Rows are computed in blocks, because the last bits of a product of matrices depend on their shapes: if
    the blocks are the same on any number of ranks, so are the losses. Each rank reads every world-th block,
    all windows of a block one after another. All ranks have the same number of windows, because some
    strategies of Lightning communicate at each window. Missing windows are padding of one position.

    Args:
        stream: the split.
        blocks: rows of each block of all ranks.
        share: (rank, world size).
        make: converts ids and targets to the network's window.
        directions: directions of the network.
        marks: ids before and after a document, if the state is reset at its start; None means that the
            state is carried over.
    """

    def __init__(
        self,
        stream: TokenStream,
        blocks: Sequence[Sequence[Row]],
        share: tuple[int, int],
        make: WindowMaker,
        directions: int,
        marks: tuple[int, int] | None = None,
    ) -> None:
        rank, world = share
        self._blocks = max(1, len(blocks))
        every = [_windows(stream, rows) for rows in blocks]
        self._windows = {n: every[n] for n in range(rank, len(blocks), world)}
        self._size = max(1, *(sum(map(len, every[first::world])) for first in range(world)))
        self._padding = HeldOutWindows(stream, [], 1)
        self._make, self._directions, self._marks = make, directions, marks
        positions = sum(row.length for n in self._windows for row in blocks[n])
        self._kept: list[HeldOutBatch] | None = [] if positions <= KEPT_POSITIONS else None

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[HeldOutBatch]:
        if self._kept is None:
            return self._read()
        if not self._kept:
            self._kept = list(self._read())
        return iter(self._kept)

    def _read(self) -> Iterator[HeldOutBatch]:
        size = 0
        for block, windows in self._windows.items():
            for read in windows:
                yield self._batch(read, block)
            size += len(windows)
        for _ in range(self._size - size):
            yield self._batch(self._padding[0], -1)

    def _batch(self, read: HeldOutIds, block: int) -> HeldOutBatch:
        window = window_of(read, self._make, self._directions, self._marks)
        return HeldOutBatch(window, block, self._blocks)


def _windows(stream: TokenStream, rows: Sequence[Row]) -> HeldOutWindows:
    """Return windows of equal length, so that the last one has little padding."""
    unroll = max(1, min(UNROLL, POSITIONS // len(rows)))
    longest = max(row.length for row in rows)
    windows = -(-longest // unroll)
    return HeldOutWindows(stream, rows, -(-longest // windows))
