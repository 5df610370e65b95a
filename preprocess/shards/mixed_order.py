"""The order in which the documents of all sources and shards are mixed.

A pass is divided into n parts of at most `PART_POSITIONS` positions. The shards of a source are laid
end to end in the order of the pass, and each part takes the next 1/n of every source. The documents of a
part are permuted together, so the documents of all sources alternate at random. The documents of a shard
stay within its part, or within consecutive parts if the shard is cut.

Where a part begins is computed from the sizes in the manifest, so it may cut a document. What is in a
part is read from its shards, one after another, so an object store is read once per pass.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.reading.mixing import PassPlan, seeded
from preprocess.shards.documents import Documents, Indices, cumulated
from preprocess.shards.format import Shard

PART_POSITIONS = 1 << 25
"""Maximum positions of a part. It is in memory with 2 bytes per token, or 4 if the vocabulary has more
than 65,536 ids, and 10 bytes per document."""

HELD_PARTS = 2
"""Parts of the largest size that are in memory at once: where one ends, some rows already read the next."""


@dataclass(frozen=True)
class _Pass:
    """The shards of a pass, source after source; a repeated shard has one entry per repeat.

    Attributes:
        shards: index of the shard of each entry, shape (entries,).
        begins: number of positions before each entry, and of all, shape (entries + 1,).
        sources: number of positions before each source, and of all, shape (sources + 1,).
        parts: number of parts.
    """

    shards: npt.NDArray[np.int64]
    begins: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int64]
    parts: int

    @property
    def bounds(self) -> npt.NDArray[np.int64]:
        """Positions before each part, and of all; by source, shape (sources, parts + 1)."""
        sizes = np.diff(self.sources)[:, None]
        return sizes * np.arange(self.parts + 1) // self.parts


@dataclass(frozen=True)
class _Piece:
    """A range of the positions of a shard.

    Attributes:
        tokens: the tokens of its positions, shape (tokens,).
        starts: as in `Documents`, relative to ``tokens``.
        sizes: number of positions of each document or piece, shape (documents,).
        opens: as in `Documents`, for the first document; all others begin in this range.
        closes: as in `Documents`, for the last document.
    """

    tokens: npt.NDArray[Any]
    starts: Indices
    sizes: Indices
    opens: bool
    closes: bool

    @classmethod
    def of(cls, ids: npt.NDArray[Any], positions: Indices, start: int, end: int) -> "_Piece":
        """Return the positions [start, end) of a shard.

        Args:
            ids: tokens of the shard.
            positions: `Documents.positions` of its documents in their own order.
            start: first position.
            end: end of the positions, greater than ``start``.
        """
        first, last = np.searchsorted(positions, [start, end - 1], "right") - 1
        begins, ends = positions[first : last + 1], positions[first + 1 : last + 2]
        opens, closes = bool(begins[0] == start), bool(ends[-1] == end)
        # Position p of document d has the right token p - d, and d has begins[d] - d tokens before it.
        low, high = start - first - (not opens), end - last - closes
        firsts = np.maximum(begins, start)
        starts = firsts - np.arange(first, last + 1) - low
        return cls(ids[low:high], starts, np.minimum(ends, end) - firsts, opens, closes)


class MixedOrder:
    """The documents of a pass in the order of the module.

    Args:
        shards: the shards of a split.
        plan: how often each shard occurs in a pass.
        dtype: dtype that holds the ids of all shards.
    """

    def __init__(self, shards: Sequence[Shard], plan: PassPlan, dtype: np.dtype[Any]) -> None:
        self._shards, self._plan, self._dtype = tuple(shards), plan, dtype
        self._passes: dict[int, _Pass] = {}
        self._held: OrderedDict[tuple[int, int], tuple[npt.NDArray[Any], Documents]] = OrderedDict()

    def begins(self, number: int) -> npt.NDArray[np.int64]:
        """Return the positions before each part of a pass, and of all, shape (parts + 1,)."""
        begins: npt.NDArray[np.int64] = self._of_pass(number).bounds.sum(0)
        return begins

    def text(self, number: int, index: int) -> tuple[npt.NDArray[Any], Documents]:
        """Return the token ids of a part of a pass, and the order of its documents."""
        key = (number, index)
        if key not in self._held:
            sizes = [documents.positions[-1] for _, documents in self._held.values()]
            while sum(sizes) > (HELD_PARTS - 1) * PART_POSITIONS:
                self._held.popitem(last=False)
                del sizes[0]
            self._held[key] = self._make(number, index)
        self._held.move_to_end(key)
        return self._held[key]

    def _of_pass(self, number: int) -> _Pass:
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1}
            shards = self._plan.occurrences(number, is_shuffled=True).shards
            shards = shards[np.argsort(self._plan.sources[shards], kind="stable")]
            begins = cumulated(self._plan.sizes[shards])
            sources = np.arange(self._plan.sources.max(initial=-1) + 2)
            firsts = np.searchsorted(self._plan.sources[shards], sources)
            self._passes[number] = _Pass(
                shards, begins, begins[firsts], int(part_counts(begins[-1]))
            )
        return self._passes[number]

    def _make(self, number: int, part: int) -> tuple[npt.NDArray[Any], Documents]:
        pieces = list(self._pieces(self._of_pass(number), part))
        documents = sum(len(piece.starts) for piece in pieces)
        tokens = np.empty(sum(len(piece.tokens) for piece in pieces), self._dtype)
        starts, sizes = np.empty(documents, np.int32), np.empty(documents, np.int32)
        opens, closes = np.ones(documents, bool), np.ones(documents, bool)
        token = document = 0
        for piece in pieces:
            tokens[token : token + len(piece.tokens)] = piece.tokens
            end = document + len(piece.starts)
            starts[document:end] = piece.starts + token
            sizes[document:end] = piece.sizes
            opens[document], closes[end - 1] = piece.opens, piece.closes
            token, document = token + len(piece.tokens), end
        # Shards are numbered from 1 in the seeds of the order by shard.
        order = seeded(self._plan.seed, number, 0, part).permutation(documents)
        positions = cumulated(sizes[order])
        return tokens, Documents(starts[order], positions, opens[order], closes[order])

    def _pieces(self, of_pass: _Pass, part: int) -> Iterator[_Piece]:
        positions: dict[int, Indices] = {}
        ranges = of_pass.sources[:-1, None] + of_pass.bounds[:, part : part + 2]
        for start, end in ranges.tolist():
            entry = int(np.searchsorted(of_pass.begins, start, "right")) - 1
            while start < end:
                shard, begin = int(of_pass.shards[entry]), int(of_pass.begins[entry])
                stop = min(end, int(of_pass.begins[entry + 1]))
                if stop > start:
                    if shard not in positions:
                        lengths = self._shards[shard].lengths.astype(np.int64)
                        positions[shard] = cumulated(lengths + 1)
                    yield _Piece.of(
                        self._shards[shard].ids, positions[shard], start - begin, stop - begin
                    )
                start, entry = stop, entry + 1


def part_counts(positions: Any) -> Any:
    """Return the number of parts of passes with these numbers of positions, at least 1."""
    return np.maximum(1, -(-positions // PART_POSITIONS))
