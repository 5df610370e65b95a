"""A split as an endless token stream with random access.

Documents are concatenated with boundary tokens between them. A *position* is a pair of neighbouring
tokens ``(left, right)``: the forward LM reads left and predicts right, the backward LM reads right
and predicts left. A document of n tokens has n + 1 positions:

    boundary eos:      </s> d1 ... dn </s>
    boundary bos_eos:  <s>  d1 ... dn </s>     <s> is never a forward target, </s> never an input

A *pass* (epoch) over the split has ``tokens + documents`` positions for any order of documents. If
sources are repeated, its length differs between passes (`preprocess.reading.mixing.PassPlan`).
Every position is computed from the sizes in the manifest, so reading can start anywhere.
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
"""Maximum number of open shards; the operating system limits the open files of a process."""

OPEN_DOCUMENTS = 1 << 25
"""Number of documents above which the orders of the least recently used shards are dropped from
memory. A document takes 8 bytes, or 16 in a shard of 2^31 or more positions."""


def boundary_ids(boundary: Literal["eos", "bos_eos"]) -> tuple[int, int]:
    """Return the ids before and after each document."""
    return (EOS, EOS) if boundary == "eos" else (BOS, EOS)


def target_counts(
    corpus: Corpus, boundary: Literal["eos", "bos_eos"], directions: int, vocabulary: int
) -> npt.NDArray[np.uint64]:
    """Count how often each id is a target in one pass over the train split.

    Every token is a target in each direction; so is the boundary after a document in the forward
    direction, and the one before it in the backward direction.

    Args:
        corpus: the corpus.
        boundary: "eos" or "bos_eos", see the module.
        directions: 1 for the forward LM only, 2 for both LMs.
        vocabulary: number of ids that can be predicted; higher ids count as `UNKNOWN`.

    Returns:
        The counts, shape (vocabulary,).
    """
    counts = directions * corpus.counts()
    documents = corpus.totals("train")["documents"]
    for end in boundary_ids(boundary)[::-1][:directions]:
        counts[end] += documents
    counts[UNKNOWN] += counts[vocabulary:].sum()
    return counts[:vocabulary]


@dataclass(frozen=True)
class _Order:
    """The documents of a shard in the order of one pass.

    Attributes:
        starts: index in the shard of the first token of each document, shape (documents,).
        positions: index in the reordered shard of the first position of each document, and the
            shard's number of positions, shape (documents + 1,).
    """

    starts: npt.NDArray[np.signedinteger[Any]]
    positions: npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class _Pass:
    """The shards of a pass in its order; a repeated shard has one entry per repeat.

    Attributes:
        shards: index of the shard, shape (entries,).
        repeats: repeat index of the shard within the pass, shape (entries,).
        begins: index in the pass of the first position of each entry, shape (entries,).
    """

    shards: npt.NDArray[np.int64]
    repeats: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]


class TokenStream:
    """Random access to the positions of a split, pass after pass.

    Args:
        shards: the shards of the split, in the order of the manifest.
        boundary: "eos" or "bos_eos", see the module.
        order: "shuffled" permutes shards, and documents within a shard, differently in each pass;
            "as-given" keeps the order of the corpus, with repeats of a shard next to each other.
        seed: seed of the permutations.
        factors: repeat factor of each source by name: how often it occurs in a pass on average, 1 if
            not given. Each repeat of a shard has its own permutation.

    Attributes:
        dtype: narrowest dtype that holds the ids of all shards.
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
        """Return the number of positions per pass, or its mean if passes differ."""
        return self._plan.mean_length

    def lengths(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the number of positions of each of the passes [first, end), shape (end - first,)."""
        return self._plan.lengths(first, end)

    def documents(self, number: int) -> Int64Ids:
        """Return where each document of pass ``number`` starts, and the length of the pass.

        Returns:
            Positions, int64, shape (documents + 1,).
        """
        plan = self._pass(number)
        # Not strict: a pass without shards has a begin.
        entries = zip(plan.shards.tolist(), plan.repeats.tolist(), plan.begins, strict=False)
        starts = [
            self._order(number, *entry).positions[:-1].astype(np.int64) + begin
            for *entry, begin in entries
        ]
        return np.concatenate([*starts, self.lengths(number, number + 1)])

    def read(self, number: int, start: int, end: int) -> tuple[Int64Ids, Int64Ids]:
        """Return the left and right tokens of positions [start, end) of pass ``number``, from 0.

        Returns:
            Two arrays, int64, shape (end - start,).
        """
        left, right = np.empty(end - start, np.int64), np.empty(end - start, np.int64)
        plan = self._pass(number)
        position = start
        entry = int(np.searchsorted(plan.begins, start, "right")) - 1
        while position < end:
            shard, begin = int(plan.shards[entry]), int(plan.begins[entry])
            stop = min(end, begin + int(self._sizes[shard]))
            if stop > position:
                window = slice(position - start, stop - start)
                order = self._order(number, shard, int(plan.repeats[entry]))
                self._read_shard(
                    order, shard, position - begin, stop - begin, left[window], right[window]
                )
            position, entry = stop, entry + 1
        return left, right

    def _read_shard(
        self, order: _Order, shard: int, start: int, end: int, left: Int64Ids, right: Int64Ids
    ) -> None:
        ids = self._ids(shard)
        # With the dtype of the array, because searchsorted would otherwise convert the array.
        bounds = np.array([start, end - 1], order.positions.dtype)
        first, last = np.searchsorted(order.positions, bounds, "right") - 1
        begins = order.positions[first : last + 1]
        ends = order.positions[first + 1 : last + 2]
        spans = np.minimum(ends, end) - np.maximum(begins, start)
        # Index of the right token of each position; meaningless at the end of a document.
        tokens = np.arange(start, end) + np.repeat(order.starts[first : last + 1] - begins, spans)
        if len(ids):
            left[:] = ids.take(tokens - 1, mode="clip")
            right[:] = ids.take(tokens, mode="clip")
        left[begins[begins >= start] - start] = self._before
        right[ends[ends <= end] - 1 - start] = self._after

    def _ids(self, shard: int) -> npt.NDArray[Any]:
        """Return the ids of a shard, which stays open until other shards replace it."""
        ids = self._open.pop(shard, None)
        if ids is None or not self._shards[shard].touch():
            ids = self._shards[shard].ids
            # A deleted copy takes disk space until it is closed.
            for deleted in [other for other in self._open if not self._shards[other].touch()]:
                del self._open[deleted]
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
