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
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.mixing import PassPlan, seeded
from preprocess.token_shard import Shard
from preprocess.tokens import BOS, EOS

Ids = npt.NDArray[np.int64]
IGNORE = -100
"""Target of a position that is padding."""

OPEN_ORDERS = 128

BLOCK_POSITIONS = 4096
"""Positions of a row read at once, for many steps: each row reads from shards of its own, and there
may be more of those than orders are held."""


class CorpusTooSmall(UserError):  # noqa: N818
    """A split with less text than the batch needs."""


def boundary_ids(boundary: Literal["eos", "bos_eos"]) -> tuple[int, int]:
    """The ids before and after a document."""
    return (EOS, EOS) if boundary == "eos" else (BOS, EOS)


@dataclass(frozen=True)
class _Order:
    """The documents of a shard in one pass's order: where each begins, in tokens and positions."""

    starts: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]


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
        self._orders: OrderedDict[tuple[int, int, int], _Order] = OrderedDict()
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
        ids = self._shards[shard].ids
        first, last = np.searchsorted(order.positions, [start, end - 1], "right") - 1
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
            lengths = self._shards[shard].lengths.astype(np.int64)
            starts = np.cumsum(lengths) - lengths
            if self._shuffled:
                again = (repeat,) if repeat else ()
                draw = seeded(self._seed, number, shard + 1, *again)
                order = draw.permutation(len(lengths))
                lengths, starts = lengths[order], starts[order]
            positions = np.concatenate([[0], np.cumsum(lengths + 1)])
            self._orders[key] = _Order(starts, positions)
            while len(self._orders) > OPEN_ORDERS:
                self._orders.popitem(last=False)
        self._orders.move_to_end(key)
        return self._orders[key]


class TrainingWindows:
    """What every row reads at every step: truncated BPTT's windows as a function of the step.

    Row r owns the stretch ``[r L, (r + 1) L)`` of each pass, L = the pass's positions // rows:
    forward it reads the stretches of pass 0, 1, ... from their left end, backward from their right
    end, so that a step is exact without reading what went before. The ``positions mod rows`` last
    positions of a pass are left out, other ones each pass where the order is shuffled; of a pass of
    fewer positions than rows (where a source comes in some passes only), that is all.

    Raises:
        CorpusTooSmall: there are fewer positions than rows.
    """

    def __init__(self, stream: TokenStream, rows: int, unroll: int) -> None:
        self._stream, self._rows, self._unroll = stream, rows, unroll
        self.stretch = len(stream) // rows
        if not self.stretch:
            raise CorpusTooSmall(
                f"the train split has {len(stream):,} positions (tokens and document ends), fewer "
                f"than train.rows = {rows}; give it more text or lower train.rows"
            )
        self._ends = np.zeros(0, np.int64)
        self._steps = max(1, min(BLOCK_POSITIONS, self.stretch) // unroll)
        self._ids = np.empty((2, self._steps * unroll, rows), np.int64)
        self._targets = np.empty_like(self._ids)
        self._held = -1

    def passes(self, steps: int) -> float:
        """Passes over the corpus in that many steps, of the mean length where lengths differ."""
        return steps * self._unroll / self.stretch

    def batch(self, step: int) -> tuple[Ids, Ids]:
        """Inputs and targets of a step, each (2, unroll, rows) int64; [0] forward, [1] backward."""
        block, place = divmod(step, self._steps)
        if block != self._held:
            self._read_block(block)
        window = slice(place * self._unroll, (place + 1) * self._unroll)
        return self._ids[:, window].copy(), self._targets[:, window].copy()

    def _read_block(self, block: int) -> None:
        self._held = -1
        size = self._steps * self._unroll
        for begin, end, number, offset, stretch in self._pieces(block * size, size):
            for row in range(self._rows):
                first, last = row * stretch + offset, (row + 1) * stretch - offset
                left, right = self._stream.read(number, first, first + end - begin)
                self._ids[0, begin:end, row], self._targets[0, begin:end, row] = left, right
                left, right = self._stream.read(number, last - (end - begin), last)
                self._ids[1, begin:end, row] = right[::-1]
                self._targets[1, begin:end, row] = left[::-1]
        self._held = block

    def _pieces(self, start: int, size: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(first, end) in the block, pass, offset in its stretch, stretch; more across passes."""
        done = 0
        while done < size:
            number, begin, stretch = self._pass_at(start + done)
            offset = start + done - begin
            end = min(size, done + stretch - offset)
            yield done, end, number, offset, stretch
            done = end

    def _pass_at(self, place: int) -> tuple[int, int, int]:
        """The pass that holds a row's position ``place``, where it begins, and its stretch."""
        while not len(self._ends) or self._ends[-1] <= place:
            first = len(self._ends)
            # As many again, so that far steps of a small corpus are found in little time.
            lengths = self._stream.lengths(first, 2 * first + 1)
            begin = self._ends[-1] if first else 0
            self._ends = np.concatenate([self._ends, begin + np.cumsum(lengths // self._rows)])
        number = int(np.searchsorted(self._ends, place, "right"))
        begin = int(self._ends[number - 1]) if number else 0
        return number, begin, int(self._ends[number]) - begin


def evaluation_windows(stream: TokenStream, rows: int, unroll: int) -> Iterator[tuple[Ids, Ids]]:
    """Inputs and targets, each (2, unroll, rows), that hold every position of one pass once.

    Rows are cut as evenly as can be; where a row is at its end, inputs are 0 and targets IGNORE.
    """
    bounds = [len(stream) * row // rows for row in range(rows + 1)]
    longest = max(b - a for a, b in pairwise(bounds))
    for offset in range(0, longest, unroll):
        ids = np.zeros((2, unroll, rows), np.int64)
        targets = np.full((2, unroll, rows), IGNORE, np.int64)
        for row, (first, end) in enumerate(pairwise(bounds)):
            size = min(unroll, end - first - offset)
            if size > 0:
                left, right = stream.read(0, first + offset, first + offset + size)
                ids[0, :size, row], targets[0, :size, row] = left, right
                left, right = stream.read(0, end - offset - size, end - offset)
                ids[1, :size, row], targets[1, :size, row] = right[::-1], left[::-1]
        yield ids, targets
