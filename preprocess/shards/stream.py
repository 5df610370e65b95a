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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from preprocess.reading.mixing import PassPlan, seeded
from preprocess.shards.format import Corpus, Shard
from preprocess.tokenizers.base import BOS, EOS, UNKNOWN

Int64Ids = npt.NDArray[np.int64]

OPEN_SHARDS = 64
"""Shards that are held open, for reading in small pieces; of thousands, the handles would run out."""

OPEN_DOCUMENTS = 1 << 25
"""Documents of which an order is held, at 8 bytes each in most cases."""


def boundary_ids(boundary: Literal["eos", "bos_eos"]) -> tuple[int, int]:
    """The ids before and after a document."""
    return (EOS, EOS) if boundary == "eos" else (BOS, EOS)


def target_counts(
    corpus: Corpus, boundary: Literal["eos", "bos_eos"], directions: int, vocabulary: int
) -> npt.NDArray[np.uint64]:
    """(vocabulary,) counts of the train split's targets in all directions, in the order of ids.

    Every token is predicted in each direction, a document's end forward and its begin backward. Int64Ids
    from ``vocabulary`` on count as the unknown word.
    """
    counts = directions * corpus.counts()
    documents = corpus.totals("train")["documents"]
    for end in boundary_ids(boundary)[::-1][:directions]:
        counts[end] += documents
    counts[UNKNOWN] += counts[vocabulary:].sum()
    return counts[:vocabulary]


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

    def read(self, number: int, start: int, end: int) -> tuple[Int64Ids, Int64Ids]:
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
        self, order: _Order, shard: int, start: int, end: int, left: Int64Ids, right: Int64Ids
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
