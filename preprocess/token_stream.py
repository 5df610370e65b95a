"""A split as one endless stream whose every position is arithmetic on the manifest.

Documents stand back to back with boundary tokens between them. A *position* is a pair of
neighbouring tokens ``(left, right)``: the forward LM reads left and predicts right, the backward
LM reads right and predicts left. A document of n tokens has n + 1 positions:

    boundary eos:      </s> d1 ... dn </s>
    boundary bos_eos:  <s>  d1 ... dn </s>     <s> is never a forward target, </s> never its input

so a pass over the split has ``tokens + documents`` positions, whatever the order of documents.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.token_shard import Shard
from preprocess.tokenizer import BOS, EOS

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


class TokenStream:
    """Random access to the positions of a split, pass after pass.

    Args:
        shards: the split's shards in the corpus's own order.
        boundary: what stands between documents.
        order: "shuffled" puts shards, and the documents of a shard, in an order drawn anew for
            each pass from ``seed``; "as-given" keeps the corpus's.
        seed: of that order.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        boundary: Literal["eos", "bos_eos"],
        order: Literal["shuffled", "as-given"] = "as-given",
        seed: int = 0,
    ) -> None:
        self._shards = tuple(shards)
        self._before, self._after = boundary_ids(boundary)
        self._shuffled = order == "shuffled"
        self._seed = seed
        self._sizes = np.array([s.tokens + s.documents for s in shards], np.int64)
        self._orders: OrderedDict[tuple[int, int], _Order] = OrderedDict()
        self._passes: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        """Positions of one pass."""
        return int(self._sizes.sum())

    def read(self, number: int, start: int, end: int) -> tuple[Ids, Ids]:
        """Left and right tokens, each (end - start,), of positions [start, end) of pass ``number``."""
        left, right = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
        sequence, begins = self._pass(number)
        place = start
        slot = int(np.searchsorted(begins, start, "right")) - 1
        while place < end:
            shard, begin = int(sequence[slot]), int(begins[slot])
            stop = min(end, begin + int(self._sizes[shard]))
            if stop > place:
                window = slice(place - start, stop - start)
                self._read_shard(
                    number, shard, place - begin, stop - begin, left[window], right[window]
                )
            place, slot = stop, slot + 1
        return left, right

    def _read_shard(
        self, number: int, shard: int, start: int, end: int, left: Ids, right: Ids
    ) -> None:
        order = self._order(number, shard)
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

    def _pass(self, number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if number not in self._passes:
            sequence = np.arange(len(self._shards))
            if self._shuffled:
                sequence = _draw(self._seed, number).permutation(len(self._shards))
            begins = np.concatenate([[0], np.cumsum(self._sizes[sequence])[:-1]])
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1}
            self._passes[number] = (sequence, begins)
        return self._passes[number]

    def _order(self, number: int, shard: int) -> _Order:
        key = (number if self._shuffled else 0, shard)
        if key not in self._orders:
            lengths = self._shards[shard].lengths.astype(np.int64)
            starts = np.cumsum(lengths) - lengths
            if self._shuffled:
                order = _draw(self._seed, number, shard + 1).permutation(len(lengths))
                lengths, starts = lengths[order], starts[order]
            positions = np.concatenate([[0], np.cumsum(lengths + 1)])
            self._orders[key] = _Order(starts, positions)
            while len(self._orders) > OPEN_ORDERS:
                self._orders.popitem(last=False)
        self._orders.move_to_end(key)
        return self._orders[key]


def _draw(*seed: int) -> np.random.RandomState:
    # The legacy generator's stream is frozen by NumPy's policy: an order outlives an upgrade.
    # It takes 32 bits a number, any of which a user may have written as below 0.
    return np.random.RandomState([number & 0xFFFFFFFF for number in seed])


class TrainingWindows:
    """What every row reads at every step: truncated BPTT's windows as a function of the step.

    Row r owns the stretch ``[r L, (r + 1) L)`` of each pass, L = positions // rows: forward it
    reads the stretches of pass 0, 1, ... from their left end, backward from their right end, so
    that a step is exact without reading what went before. The ``positions mod rows`` last
    positions of a pass are left out, other ones each pass where the order is shuffled.

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
        self._steps = max(1, min(BLOCK_POSITIONS, self.stretch) // unroll)
        self._ids = np.empty((2, self._steps * unroll, rows), np.int64)
        self._targets = np.empty_like(self._ids)
        self._held = -1

    def passes(self, steps: int) -> float:
        """Passes over the corpus in that many steps."""
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
        for begin, end, number, offset in self._pieces(block * size, size):
            for row in range(self._rows):
                first, last = row * self.stretch + offset, (row + 1) * self.stretch - offset
                left, right = self._stream.read(number, first, first + end - begin)
                self._ids[0, begin:end, row], self._targets[0, begin:end, row] = left, right
                left, right = self._stream.read(number, last - (end - begin), last)
                self._ids[1, begin:end, row] = right[::-1]
                self._targets[1, begin:end, row] = left[::-1]
        self._held = block

    def _pieces(self, start: int, size: int) -> Iterator[tuple[int, int, int, int]]:
        """(first, end) in the block, pass, offset in the stretch; more than one across passes."""
        done = 0
        while done < size:
            number, offset = divmod(start + done, self.stretch)
            end = min(size, done + self.stretch - offset)
            yield done, end, number, offset
            done = end


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
