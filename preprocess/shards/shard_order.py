"""The orders that read one shard after another."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.reading.mixing import Occurrences, PassPlan, seeded
from preprocess.shards.documents import Documents, Indices, cumulated
from preprocess.shards.format import Shard

OPEN_SHARDS = 64
"""Maximum number of open shards; the operating system limits the open files of a process."""

OPEN_DOCUMENTS = 1 << 25
"""Number of documents above which the orders of the least recently used shards are dropped from
memory. A document takes 8 bytes, or 16 in a shard of 2^31 or more positions."""


class ShardOrder:
    """The documents of a pass, one shard after another.

    Args:
        shards: the shards of a split.
        plan: how often each shard occurs in a pass.
        is_shuffled: whether the shards of a pass, and the documents of each, are permuted.
    """

    def __init__(self, shards: Sequence[Shard], plan: PassPlan, is_shuffled: bool) -> None:
        self._shards, self._plan, self._is_shuffled = tuple(shards), plan, is_shuffled
        self._open: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
        self._orders: OrderedDict[tuple[int, int, int], Documents] = OrderedDict()
        self._ordered = 0
        self._passes: dict[int, Occurrences] = {}

    def begins(self, number: int) -> npt.NDArray[np.int64]:
        """Return the positions before each shard of a pass, and of all, shape (occurrences + 1,)."""
        return cumulated(self._plan.sizes[self._of_pass(number).shards])

    def text(self, number: int, index: int) -> tuple[npt.NDArray[Any], Documents]:
        """Return the token ids of the shard at an index of a pass, and the order of its documents."""
        occurrences = self._of_pass(number)
        shard = int(occurrences.shards[index])
        documents = self._documents(number, shard, int(occurrences.repeats[index]))
        return self._ids(shard), documents

    def _of_pass(self, number: int) -> Occurrences:
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1}
            self._passes[number] = self._plan.occurrences(number, self._is_shuffled)
        return self._passes[number]

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

    def _documents(self, number: int, shard: int, repeat: int) -> Documents:
        key = (number, shard, repeat) if self._is_shuffled else (0, shard, 0)
        if key not in self._orders:
            size = int(self._plan.sizes[shard])
            dtype = np.int32 if size < 1 << 31 else np.int64
            lengths: Indices = self._shards[shard].lengths.astype(dtype)
            order = None
            if self._is_shuffled:
                again = (repeat,) if repeat else ()
                draw = seeded(self._plan.seed, number, shard + 1, *again)
                order = draw.permutation(len(lengths))
            self._orders[key] = Documents.of(lengths, order)
            self._ordered += len(lengths)
            while self._ordered > OPEN_DOCUMENTS and len(self._orders) > 1:
                self._ordered -= len(self._orders.popitem(last=False)[1].starts)
        self._orders.move_to_end(key)
        return self._orders[key]
