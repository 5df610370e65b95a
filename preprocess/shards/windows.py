"""The windows of truncated BPTT: the inputs and targets of every row at every training step."""

from collections.abc import Iterator

import numpy as np

from preprocess.errors import UserError
from preprocess.shards.stream import Int64Ids, TokenStream

HELD_POSITIONS = 1 << 14
"""Maximum positions of a row to read at once, for several windows.

Each row reads from its own shards, and `TokenStream` may not hold the document order of all of them;
so reading every window separately would compute these orders again and again."""


class CorpusTooSmall(UserError):  # noqa: N818
    """A split with fewer positions than the batch has rows."""


class TrainingWindows:
    """Truncated BPTT windows over a stream, with random access by window number.

    Each pass is divided into ``rows`` contiguous stretches of L = positions // rows positions. Row r
    reads stretch r of pass 0, then of pass 1, and so on: forward from the left end of each stretch,
    backward from its right end. So a window is computed without reading earlier windows. The last
    ``positions mod rows`` positions of a pass are left out; if the order is shuffled, these differ
    between passes. A pass with fewer positions than rows is left out completely; this can occur if a
    source is not in every pass.

    Args:
        stream: the train split.
        rows: rows of a batch, summed over all devices.
        unroll: positions of a row per window.
        local_rows: indices of the rows that this process reads; None means all. A row reads the same
            text in any process.
        directions: 1 for the forward LM only, 2 for both LMs.

    Attributes:
        stretch: mean positions of a row per pass.

    Raises:
        CorpusTooSmall: there are fewer positions than rows.
    """

    def __init__(
        self,
        stream: TokenStream,
        rows: int,
        unroll: int,
        local_rows: range | None = None,
        directions: int = 2,
    ) -> None:
        self._stream, self._rows, self._unroll = stream, rows, unroll
        self._local_rows = range(rows) if local_rows is None else local_rows
        assert all(0 <= row < rows for row in self._local_rows), "a row is not in the batch"
        self.stretch = len(stream) // rows
        if not self.stretch:
            raise CorpusTooSmall(
                f"the train split has {len(stream):,} positions (tokens and document ends), fewer "
                f"than train.rows = {rows}; add text or lower train.rows"
            )
        self._ends = np.zeros(0, np.int64)
        # A ring buffer of windows for every row: window w is in slot w mod number of slots.
        count = len(self._local_rows)
        self._windows = max(1, min(HELD_POSITIONS, self.stretch) // unroll)
        shape = (2, directions, count, self._windows * unroll)  # 2: inputs, targets
        self._ring = np.empty(shape, stream.dtype)
        # Rows are refilled at different windows, so that no window waits for all of them.
        self._phases = np.arange(count) * self._windows // max(1, count)
        self._firsts = np.zeros(count, np.int64)
        self._afters = np.zeros(count, np.int64)

    def passes(self, windows: int) -> float:
        """Return how many passes of mean length this many windows cover."""
        return windows * self._unroll / self.stretch

    def batch(self, window: int) -> tuple[Int64Ids, Int64Ids]:
        """Return the inputs and targets of window number ``window``, from 0.

        Both are int64 ids, shape (directions, unroll, local rows).
        Index 0 of the first axis is the forward direction, index 1 the backward direction.
        """
        missing = (window < self._firsts) | (window >= self._afters)
        for index in np.flatnonzero(missing).tolist():
            self._read_row(index, window)
        start = window % self._windows * self._unroll
        read = self._ring[..., start : start + self._unroll].swapaxes(2, 3)
        ids, targets = read.astype(np.int64, order="C")  # (2, directions, unroll, rows)
        return ids, targets

    def _read_row(self, index: int, window: int) -> None:
        """Fill the ring buffer of local row ``index`` from ``window`` to its next refill."""
        after = window + self._windows - int(window + self._phases[index]) % self._windows
        self._afters[index] = 0  # if reading fails, the row stays invalid
        row, ring = self._local_rows[index], self._ring[:, :, index]  # (2, directions, ring)
        for slot, size, number, offset, stretch in self._pieces(window, after):
            first, last = row * stretch + offset, (row + 1) * stretch - offset
            ring[:, 0, slot : slot + size] = self._stream.read(number, first, first + size)
            if ring.shape[1] == 2:
                left, right = self._stream.read(number, last - size, last)
                ring[:, 1, slot : slot + size] = right[::-1], left[::-1]
        self._firsts[index], self._afters[index] = window, after

    def _pieces(self, window: int, after: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Cut windows [window, after) of a row where a stretch or the ring buffer ends.

        Yields:
            (slot in the ring, positions, pass, offset in the row's stretch, length of the stretch).
        """
        position, end, ring = window * self._unroll, after * self._unroll, self._ring.shape[-1]
        while position < end:
            number, begin, stretch = self._pass_at(position)
            size = min(end - position, begin + stretch - position, ring - position % ring)
            yield position % ring, size, number, position - begin, stretch
            position += size

    def _pass_at(self, position: int) -> tuple[int, int, int]:
        """Return the pass of a row's ``position``, the row's first position in it, and its stretch."""
        while not len(self._ends) or self._ends[-1] <= position:
            first = len(self._ends)
            # Double the number, so that far windows of a small corpus are found quickly.
            lengths = self._stream.lengths(first, 2 * first + 1)
            begin = self._ends[-1] if first else 0
            self._ends = np.concatenate([self._ends, begin + np.cumsum(lengths // self._rows)])
        number = int(np.searchsorted(self._ends, position, "right"))
        begin = int(self._ends[number - 1]) if number else 0
        return number, begin, int(self._ends[number]) - begin
