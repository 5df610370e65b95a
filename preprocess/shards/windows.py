"""The windows of truncated BPTT: what every row reads at every step."""

from collections.abc import Iterator

import numpy as np

from preprocess.errors import UserError
from preprocess.shards.stream import Int64Ids, TokenStream

HELD_POSITIONS = 1 << 14
"""Positions of a row read at once, for many windows: each row reads from shards of its own, and
there may be more of those than orders can be held."""


class CorpusTooSmall(UserError):  # noqa: N818
    """A split with less text than the batch needs."""


class TrainingWindows:
    """What every row reads in every window: truncated BPTT's windows as a function of their number.

    Row r owns the stretch ``[r L, (r + 1) L)`` of each pass, L = the pass's positions // rows:
    forward it reads the stretches of pass 0, 1, ... from their left end, backward from their right
    end, so that a window is exact without reading what went before. The ``positions mod rows`` last
    positions of a pass are left out, other ones each pass where the order is shuffled; of a pass of
    fewer positions than rows (where a source comes in some passes only), that is all.

    Args:
        stream: the text.
        rows: of a batch, over all devices and passes over rows.
        unroll: tokens a row reads in a window.
        own: the rows that are read here; none: all. What a row reads does not depend on it.
        directions: 2, or 1 for the forward one alone.

    Raises:
        CorpusTooSmall: there are fewer positions than rows.
    """

    def __init__(
        self,
        stream: TokenStream,
        rows: int,
        unroll: int,
        own: range | None = None,
        directions: int = 2,
    ) -> None:
        self._stream, self._rows, self._unroll = stream, rows, unroll
        self._own = range(rows) if own is None else own
        assert all(0 <= row < rows for row in self._own), "rows of another batch"
        self.stretch = len(stream) // rows
        if not self.stretch:
            raise CorpusTooSmall(
                f"the train split has {len(stream):,} positions (tokens and document ends), fewer "
                f"than train.rows = {rows}; give it more text or lower train.rows"
            )
        self._ends = np.zeros(0, np.int64)
        # A ring of windows: number w lies in place w mod their number, for every row.
        count, self._windows = len(self._own), max(1, min(HELD_POSITIONS, self.stretch) // unroll)
        shape = (2, directions, count, self._windows * unroll)  # ids and targets
        self._ring = np.empty(shape, stream.dtype)
        # Rows are read again one after the other and not all before one window, which would wait.
        self._phases = np.arange(count) * self._windows // max(1, count)
        self._firsts = np.zeros(count, np.int64)
        self._afters = np.zeros(count, np.int64)

    def passes(self, windows: int) -> float:
        """Passes over the corpus in that many windows, of the mean length where lengths differ."""
        return windows * self._unroll / self.stretch

    def batch(self, window: int) -> tuple[Int64Ids, Int64Ids]:
        """Inputs and targets, each (directions, unroll, own rows) int64; [0] forward, [1] backward."""
        missing = (window < self._firsts) | (window >= self._afters)
        for place in np.flatnonzero(missing).tolist():
            self._read_row(place, window)
        start = window % self._windows * self._unroll
        read = self._ring[..., start : start + self._unroll].swapaxes(2, 3)
        ids, targets = read.astype(np.int64, order="C")  # (2, directions, unroll, rows)
        return ids, targets

    def _read_row(self, place: int, window: int) -> None:
        """Read a row from ``window`` up to where it is due again."""
        after = window + self._windows - int(window + self._phases[place]) % self._windows
        self._afters[place] = 0
        row, ring = self._own[place], self._ring[:, :, place]  # (2, directions, ring)
        for slot, size, number, offset, stretch in self._pieces(window, after):
            first, last = row * stretch + offset, (row + 1) * stretch - offset
            ring[:, 0, slot : slot + size] = self._stream.read(number, first, first + size)
            if ring.shape[1] == 2:
                left, right = self._stream.read(number, last - size, last)
                ring[:, 1, slot : slot + size] = right[::-1], left[::-1]
        self._firsts[place], self._afters[place] = window, after

    def _pieces(self, window: int, after: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(place in the ring, positions, pass, offset in its stretch, stretch), none across an end."""
        place, end, ring = window * self._unroll, after * self._unroll, self._ring.shape[-1]
        while place < end:
            number, begin, stretch = self._pass_at(place)
            size = min(end - place, begin + stretch - place, ring - place % ring)
            yield place % ring, size, number, place - begin, stretch
            place += size

    def _pass_at(self, place: int) -> tuple[int, int, int]:
        """The pass that holds a row's position ``place``, where it begins, and its stretch."""
        while not len(self._ends) or self._ends[-1] <= place:
            first = len(self._ends)
            # As many again, so that far windows of a small corpus are found in little time.
            lengths = self._stream.lengths(first, 2 * first + 1)
            begin = self._ends[-1] if first else 0
            self._ends = np.concatenate([self._ends, begin + np.cumsum(lengths // self._rows)])
        number = int(np.searchsorted(self._ends, place, "right"))
        begin = int(self._ends[number - 1]) if number else 0
        return number, begin, int(self._ends[number]) - begin
