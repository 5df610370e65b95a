"""The windows of truncated BPTT: the inputs and targets of every row at every training step."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.reading.mixing import seeded
from preprocess.shards.stream import Int64Ids, Parts, TokenStream

HELD_POSITIONS = 1 << 14
"""Maximum positions of a row to read at once, for several windows.

Unless the order is mixed, each row reads from its own shards, and `TokenStream` may not hold the document
order of all of them; so reading every window separately would compute these orders again and again."""


class CorpusTooSmall(UserError):  # noqa: N818
    """A split with fewer positions than the batch has rows."""


class TokenWindow(NamedTuple):
    """A window of token ids. Index 0 of the first axis is the forward direction, 1 the backward one.

    Attributes:
        ids: inputs, int64 (directions, unroll, rows).
        targets: the id to predict after each input, int64 (directions, unroll, rows).
        resets: True where a document starts from the zero state, bool (directions, unroll, rows); None
            means nowhere.
    """

    ids: Int64Ids
    targets: Int64Ids
    resets: npt.NDArray[np.bool_] | None

    def rows(self, first: int, end: int) -> "TokenWindow":
        """Return the rows [first, end), copied."""
        resets = None if self.resets is None else self.resets[..., first:end].copy()
        return TokenWindow(
            self.ids[..., first:end].copy(), self.targets[..., first:end].copy(), resets
        )


class TrainingWindows:
    """Truncated BPTT windows over a stream, with random access by window number.

    Each part of a pass (`TokenStream.parts`) is divided into ``rows`` contiguous stretches of
    L = positions // rows positions. Row r reads stretch r of the first part, then of the second, and so
    on: forward from the left end of each stretch, backward from its right end. So a window is computed
    without reading earlier windows. The last ``positions mod rows`` positions of a part are left out;
    unless the order is as given, these differ between passes. A part with fewer positions than rows is
    left out completely; this can occur if a source is not in every pass.

    Args:
        stream: the train split.
        rows: rows of a batch, summed over all devices.
        unroll: positions of a row per window.
        local_rows: indices of the rows that this process reads; None means all. A row reads the same
            text in any process.
        directions: 1 for the forward LM only, 2 for both LMs.
        reset_state: probability that a document starts from the zero state. It is drawn for each
            document, pass and direction on its own, from the seed of the stream.

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
        reset_state: float = 0.0,
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
        self._passes = 0  # number of passes whose parts are known
        self._parts = stream.parts(0, 0)
        self._ends = np.zeros(0, np.int64)
        # A ring buffer of windows for every row: window w is in slot w mod number of slots.
        count = len(self._local_rows)
        # No more than a part, because `TokenStream` holds two parts at once.
        held = min(HELD_POSITIONS, self.stretch // len(stream.parts(0, 1).lengths))
        self._windows = max(1, held // unroll)
        shape = (2, directions, count, self._windows * unroll)  # 2: inputs, targets
        self._ring = np.empty(shape, stream.dtype)
        self._reset_state = reset_state
        self._resets = np.zeros(shape[1:] if reset_state else (directions, count, 0), bool)
        # Rows are refilled at different windows, so that no window waits for all of them.
        self._phases = np.arange(count) * self._windows // max(1, count)
        self._firsts = np.zeros(count, np.int64)
        self._afters = np.zeros(count, np.int64)

    def passes(self, windows: int) -> float:
        """Return how many passes of mean length this many windows cover."""
        return windows * self._unroll / self.stretch

    def batch(self, window: int) -> TokenWindow:
        """Return window number ``window``, from 0, of the local rows."""
        missing = (window < self._firsts) | (window >= self._afters)
        for index in np.flatnonzero(missing).tolist():
            self._read_row(index, window)
        start = window % self._windows * self._unroll
        slots = slice(start, start + self._unroll)
        read = self._ring[..., slots].swapaxes(2, 3)
        ids, targets = read.astype(np.int64, order="C")  # (2, directions, unroll, rows)
        resets = None
        if self._reset_state:
            resets = self._resets[..., slots].swapaxes(1, 2).copy(order="C")
        return TokenWindow(ids, targets, resets)

    def _read_row(self, index: int, window: int) -> None:
        """Fill the ring buffer of local row ``index`` from ``window`` to its next refill."""
        after = window + self._windows - int(window + self._phases[index]) % self._windows
        self._afters[index] = 0  # if reading fails, the row stays invalid
        row, ring = self._local_rows[index], self._ring[:, :, index]  # (2, directions, ring)
        for slot, size, part, offset, stretch in self._pieces(window, after):
            number, begin = int(self._parts.passes[part]), int(self._parts.begins[part])
            first, last = begin + row * stretch + offset, begin + (row + 1) * stretch - offset
            slots = slice(slot, slot + size)
            ring[:, 0, slots] = self._stream.read(number, first, first + size)
            if ring.shape[1] == 2:
                left, right = self._stream.read(number, last - size, last)
                ring[:, 1, slots] = right[::-1], left[::-1]
            if self._reset_state:
                for direction, mark in enumerate(self._stream.marks[: ring.shape[1]]):
                    begins = np.flatnonzero(ring[0, direction, slots] == mark)
                    positions = last - 1 - begins if direction else first + begins
                    resets = self._resets[direction, index, slots]
                    resets[:] = False
                    resets[begins] = self._draw(number, direction, positions)
        self._firsts[index], self._afters[index] = window, after

    def _draw(
        self, number: int, direction: int, positions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Return True with probability ``reset_state`` for each of these positions of a pass.

        A position's number is that of SplitMix64 (Steele et al. 2014) at this index.
        """
        # Non-negative keys are those of orders, and -1 is that of `PassPlan`.
        salt = seeded(self._stream.seed, -2, number, direction).randint(0, 1 << 62, dtype=np.int64)
        bits = (positions + salt).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
        drawn: npt.NDArray[np.bool_] = (bits >> np.uint64(11)) < self._reset_state * 2.0**53
        return drawn

    def _pieces(self, window: int, after: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Cut windows [window, after) of a row where a stretch or the ring buffer ends.

        Yields:
            (slot in the ring, positions, part, offset in the row's stretch, length of the stretch).
        """
        position, end, ring = window * self._unroll, after * self._unroll, self._ring.shape[-1]
        while position < end:
            part, begin, stretch = self._part_at(position)
            size = min(end - position, begin + stretch - position, ring - position % ring)
            yield position % ring, size, part, position - begin, stretch
            position += size

    def _part_at(self, position: int) -> tuple[int, int, int]:
        """Return the part of a row's ``position``, the row's first position in it, and its stretch."""
        while not len(self._ends) or self._ends[-1] <= position:
            # Double the number, so that far windows of a small corpus are found quickly.
            first, self._passes = self._passes, 2 * self._passes + 1
            parts = self._stream.parts(first, self._passes)
            self._parts = Parts(*map(np.concatenate, zip(self._parts, parts, strict=True)))
            self._ends = np.cumsum(self._parts.lengths // self._rows)
        part = int(np.searchsorted(self._ends, position, "right"))
        begin = int(self._ends[part - 1]) if part else 0
        return part, begin, int(self._ends[part]) - begin
