"""A split as one endless stream whose every position is arithmetic on the manifest.

Documents stand back to back with boundary tokens between them. A *position* is a pair of
neighbouring tokens ``(left, right)``: the forward LM reads left and predicts right, the backward
LM reads right and predicts left. A document of n tokens has n + 1 positions:

    boundary eos:      </s> d1 ... dn </s>
    boundary bos_eos:  <s>  d1 ... dn </s>     <s> is never a forward target, </s> never its input

so a pass over the split has ``tokens + documents`` positions, whatever the order of documents, or
other numbers pass by pass where sources are repeated (`mixing.PassPlan`).
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.reading.mixing import PassPlan, seeded
from preprocess.shards.format import Shard
from preprocess.tokenizers.base import BOS, EOS

Ids = npt.NDArray[np.int64]

OPEN_SHARDS = 64
"""Shards that are held open, for reading in small pieces; of thousands, the handles would run out."""

OPEN_DOCUMENTS = 1 << 25
"""Documents of which an order is held, at 8 bytes each in most cases."""

HELD_POSITIONS = 1 << 14
"""Positions of a row read at once, for many windows: each row reads from shards of its own, and
there may be more of those than orders can be held."""


class CorpusTooSmall(UserError):  # noqa: N818
    """A split with less text than the batch needs."""


def boundary_ids(boundary: Literal["eos", "bos_eos"]) -> tuple[int, int]:
    """The ids before and after a document."""
    return (EOS, EOS) if boundary == "eos" else (BOS, EOS)


def resets(ids: Ids, boundary: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which inputs stand before a document in the direction they are read in.

    Args:
        ids: (directions, time, rows), [0] forward, [1] backward, of the shape returned.
        boundary: the ids before and after a document.
    """
    found: npt.NDArray[np.bool_] = ids == np.array(boundary)[: len(ids), None, None]
    return found


@dataclass(frozen=True)
class _Order:
    """The documents of a shard in one pass's order: where each begins, in tokens and positions."""

    starts: npt.NDArray[np.signedinteger[Any]]
    positions: npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class _Pass:
    """The shards of a pass in its order: which, as its how-manieth repeat, and where each begins."""

    shards: npt.NDArray[np.int64]
    repeats: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]


class TokenStream:
    """Random access to the positions of a split, pass after pass.

    Args:
        shards: the split's shards in the corpus's own order.
        boundary: what stands between documents.
        order: "shuffled" puts shards, and the documents of a shard, in an order drawn anew for
            each pass from ``seed``; "as-given" keeps the corpus's, a shard's repeats side by side.
        seed: of that order.
        factors: how often a pass holds each source on average; one that is not named: once. Of a
            shard that enters a pass again, the documents are shuffled anew.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        boundary: Literal["eos", "bos_eos"],
        order: Literal["shuffled", "as-given"] = "as-given",
        seed: int = 0,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        self._shards = tuple(shards)
        self._before, self._after = boundary_ids(boundary)
        self._shuffled = order == "shuffled"
        self._seed = seed
        self._sizes = np.array([s.tokens + s.documents for s in shards], np.int64)
        self._plan = PassPlan(self._sizes, [s.source for s in shards], factors or {}, seed)
        self.dtype = np.result_type(np.uint16, *(s.dtype for s in shards))
        self._open: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
        self._orders: OrderedDict[tuple[int, int, int], _Order] = OrderedDict()
        self._ordered = 0
        self._passes: dict[int, _Pass] = {}

    def __len__(self) -> int:
        """Positions of a pass: all of the split's, or the mean of all passes where factors differ."""
        return self._plan.mean_length

    def lengths(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """(end - first,) positions of each of the passes [first, end)."""
        return self._plan.lengths(first, end)

    def read(self, number: int, start: int, end: int) -> tuple[Ids, Ids]:
        """Left and right tokens, each (end - start,), of positions [start, end) of pass ``number``."""
        left, right = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
        plan = self._pass(number)
        place = start
        slot = int(np.searchsorted(plan.begins, start, "right")) - 1
        while place < end:
            shard, begin = int(plan.shards[slot]), int(plan.begins[slot])
            stop = min(end, begin + int(self._sizes[shard]))
            if stop > place:
                window = slice(place - start, stop - start)
                order = self._order(number, shard, int(plan.repeats[slot]))
                self._read_shard(
                    order, shard, place - begin, stop - begin, left[window], right[window]
                )
            place, slot = stop, slot + 1
        return left, right

    def _read_shard(
        self, order: _Order, shard: int, start: int, end: int, left: Ids, right: Ids
    ) -> None:
        ids = self._ids(shard)
        # Of the same type as what is searched, which would be converted whole.
        bounds = np.array([start, end - 1], order.positions.dtype)
        first, last = np.searchsorted(order.positions, bounds, "right") - 1
        begins = order.positions[first : last + 1]
        ends = order.positions[first + 1 : last + 2]
        spans = np.minimum(ends, end) - np.maximum(begins, start)
        # Of every position its right token; at a document's end that is another's, or none.
        tokens = np.arange(start, end) + np.repeat(order.starts[first : last + 1] - begins, spans)
        if len(ids):
            left[:] = ids.take(tokens - 1, mode="clip")
            right[:] = ids.take(tokens, mode="clip")
        left[begins[begins >= start] - start] = self._before
        right[ends[ends <= end] - 1 - start] = self._after

    def _ids(self, shard: int) -> npt.NDArray[Any]:
        """A shard's ids, from the few that are held open."""
        ids = self._open.pop(shard, None)
        if ids is None or not self._shards[shard].touch():
            ids = self._shards[shard].ids
            # A copy that was deleted to make room takes it until it is let go.
            for gone in [one for one in self._open if not self._shards[one].touch()]:
                del self._open[gone]
        self._open[shard] = ids
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)
        return ids

    def _pass(self, number: int) -> _Pass:
        if number not in self._passes:
            (counts,) = self._plan.counts(number, number + 1)
            shards = np.repeat(np.arange(len(counts)), counts)
            repeats = np.arange(len(shards)) - np.repeat(np.cumsum(counts) - counts, counts)
            if self._shuffled:
                order = seeded(self._seed, number).permutation(len(shards))
                shards, repeats = shards[order], repeats[order]
            begins = np.concatenate([[0], np.cumsum(self._sizes[shards])[:-1]])
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1}
            self._passes[number] = _Pass(shards, repeats, begins)
        return self._passes[number]

    def _order(self, number: int, shard: int, repeat: int) -> _Order:
        key = (number, shard, repeat) if self._shuffled else (0, shard, 0)
        if key not in self._orders:
            size = int(self._sizes[shard])
            lengths = self._shards[shard].lengths.astype(np.int32 if size < 1 << 31 else np.int64)
            starts = np.cumsum(lengths, dtype=lengths.dtype) - lengths
            if self._shuffled:
                again = (repeat,) if repeat else ()
                draw = seeded(self._seed, number, shard + 1, *again)
                order = draw.permutation(len(lengths))
                lengths, starts = lengths[order], starts[order]
            positions = np.zeros(len(lengths) + 1, lengths.dtype)
            np.cumsum(lengths + 1, out=positions[1:])
            self._orders[key] = _Order(starts, positions)
            self._ordered += len(lengths)
            while self._ordered > OPEN_DOCUMENTS and len(self._orders) > 1:
                self._ordered -= len(self._orders.popitem(last=False)[1].starts)
        self._orders.move_to_end(key)
        return self._orders[key]


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

    def batch(self, window: int) -> tuple[Ids, Ids]:
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
