"""Which shard holds a document, from the manifest alone.

The segments of a group of units (`preprocess.corpus.job.group_units`) and the shards of the group have the
same documents of a split in the same order. In corpora of former versions, each segment has a shard
of its own.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from itertools import accumulate
from typing import Any, NamedTuple

from preprocess.files.manifest import Manifest
from preprocess.shards.origins import PREFIX
from preprocess.text.config import SPLITS

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-(\d+)-(\d+)\.bin", re.ASCII)
_ORIGINS = re.compile(rf"{PREFIX}(\d+)-(\d+)\.zst", re.ASCII)

Group = tuple[int, ...]
"""A group of units: its number, or unit and segment in a corpus of a former version."""


class Segment(NamedTuple):
    """A segment of a unit: number of the unit, and of the segment in the unit."""

    unit: int
    number: int


class ShardRun(NamedTuple):
    """Consecutive documents of a shard: its name, the number of the first one, and how many."""

    shard: str
    first: int
    documents: int


class _Column(NamedTuple):
    """The segments or shards of a group and split: keys, and documents before each one and in all."""

    keys: list[Any]
    starts: list[int]


class ShardPlaces:
    """The shards and segments of a corpus.

    Args:
        manifest: manifest of the corpus.

    Attributes:
        segments: numbers of the segments of each unit that have origins.
        untraced: names of the shards whose documents have no origins, because version 0.1 read them.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._units: int = manifest.details.get("group_units") or 0
        shards: dict[tuple[Group, str], dict[int, tuple[str, int]]] = defaultdict(dict)
        for record in manifest.files:
            if match := _SHARD.fullmatch(record.name):
                number, sequence = int(match[2]), int(match[3])
                group: Group = (number,) if self._units else (number, sequence)
                documents = int(record.counts.get("documents", 0))
                name = record.name.removesuffix(".bin")
                shards[group, match[1]][sequence] = name, documents
        segments: dict[tuple[Group, str], list[tuple[Segment, int]]] = defaultdict(list)
        self.segments: dict[int, list[int]] = defaultdict(list)
        found = (match for r in manifest.files if (match := _ORIGINS.fullmatch(r.name)))
        for segment in sorted(Segment(int(match[1]), int(match[2])) for match in found):
            self.segments[segment.unit].append(segment.number)
            counts = manifest.records[f"{PREFIX}{segment.unit:06d}-{segment.number:03d}.zst"].counts
            for split in SPLITS:
                group = self._group_of(segment)
                own = shards.get((group, split), {}).get(segment.number, ("", 0))[1]
                documents = int(counts.get(split, 0)) if self._units else own
                segments[group, split].append((segment, documents))
        self._shards = {
            key: _column([column[sequence] for sequence in sorted(column)])
            for key, column in shards.items()
        }
        self._segments = {key: _column(column) for key, column in segments.items()}
        none = _Column([], [0])
        self.untraced = sorted(
            name
            for key, column in self._shards.items()
            if column.starts[-1] != self._segments.get(key, none).starts[-1]
            for name in column.keys
        )

    def documents(self, segment: Segment, split: str) -> int:
        """Return how many documents of a segment are in the shards of a split."""
        column = self._segments[self._group_of(segment), split]
        at = column.keys.index(segment)
        return column.starts[at + 1] - column.starts[at]

    def runs(self, segment: Segment, split: str) -> list[ShardRun]:
        """Return where the documents of a segment are, in order; empty if that is unknown."""
        group = self._group_of(segment)
        column, shards = self._segments[group, split], self._shards.get((group, split))
        at = column.keys.index(segment)
        begin, end = column.starts[at], column.starts[at + 1]
        runs: list[ShardRun] = []
        while shards and shards.starts[-1] == column.starts[-1] and begin < end:
            number = bisect_right(shards.starts, begin) - 1
            start = shards.starts[number]
            documents = min(end, shards.starts[number + 1]) - begin
            runs.append(ShardRun(shards.keys[number], begin - start, documents))
            begin += documents
        return runs

    def place(self, segment: Segment, split: str, rank: int) -> tuple[str, int]:
        """Return the shard of a segment's document and its number there; the inverse of `find`.

        The name is empty if other documents of the group have no origins, so that the place is unknown.
        """
        for run in self.runs(segment, split):
            if rank < run.documents:
                return run.shard, run.first + rank
            rank -= run.documents
        return "", 0

    def find(self, shard: str, number: int) -> tuple[Segment, int] | None:
        """Return the segment of a document and its number among the segment's documents of the split.

        Args:
            shard: name of the shard.
            number: number of the document in the shard.

        Returns:
            None if there is no such shard or document.
        """
        match = _SHARD.fullmatch(f"{shard}.bin")
        if not match:
            return None
        group = (int(match[2]),) if self._units else (int(match[2]), int(match[3]))
        key = group, match[1]
        shards, segments = self._shards.get(key), self._segments.get(key)
        if not shards or not segments or shard not in shards.keys:
            return None
        at = shards.keys.index(shard)
        place = shards.starts[at] + number
        if not 0 <= number < shards.starts[at + 1] - shards.starts[at]:
            return None
        own = bisect_right(segments.starts, place) - 1
        return segments.keys[own], place - segments.starts[own]

    def documents_of(self, shard: str) -> int | None:
        """Return the number of documents of a shard, or None if there is no such shard."""
        for column in self._shards.values():
            if shard in column.keys:
                at = column.keys.index(shard)
                return column.starts[at + 1] - column.starts[at]
        return None

    def _group_of(self, segment: Segment) -> Group:
        return (segment.unit // self._units,) if self._units else tuple(segment)


def _column(items: list[tuple[Any, int]]) -> _Column:
    return _Column([key for key, _ in items], [0, *accumulate(n for _, n in items)])
