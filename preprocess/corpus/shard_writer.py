"""Shards of a set size, written from parts of any size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.corpus.histograms import Histograms
from preprocess.files.storage import join, write_bytes
from preprocess.shards.format import DOCUMENT, shard_counts

COUNT = np.dtype([("id", "<u4"), ("count", "<u8")])
"""Dtype of a row of `ShardWriter.counts`: a token id and how often it occurs."""


@dataclass
class _Open:
    """The documents of a shard that is not written yet."""

    source: str = ""
    ids: list[npt.NDArray[Any]] = field(default_factory=list)
    rows: list[npt.NDArray[Any]] = field(default_factory=list)
    tokens: int = 0
    documents: int = 0


class ShardWriter:
    """Writer of the shards of consecutive units; call `close` at the end.

    A shard ends before the document with which it would have more than ``most`` tokens or documents, and
    where the source changes. A longer document is a shard of its own. Memory is proportional to ``most``,
    for each split.

    Args:
        output: folder or URL to write to.
        number: number of the group of units, which is part of the shards' names.
        dtype: dtype of the token ids.
        most: maximum number of tokens in a shard, and of documents.

    Attributes:
        files: manifest records of the files written so far, as JSON types.
        counts: how often each id occurs in the train split, `COUNT` (ids that occur,), ordered by id.
        histograms: of the documents written so far.
    """

    def __init__(self, output: str, number: int, dtype: np.dtype[Any], most: int) -> None:
        self._output, self._number, self._dtype, self._most = output, number, dtype, most
        self._open: dict[str, _Open] = {}
        self._closed: dict[str, int] = {}
        self.files: list[dict[str, Any]] = []
        self.counts = np.empty(0, COUNT)
        self.histograms = Histograms()

    def add(self, split: str, source: str, ids: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
        """Add consecutive documents.

        Args:
            split: their split.
            source: name of their source.
            ids: token ids of all documents, shape (tokens,).
            rows: the documents, of type `DOCUMENT`, shape (documents,).
        """
        while len(rows):
            shard = self._open.setdefault(split, _Open(source))
            if shard.source != source:
                self._write(split)
                continue
            ends = np.cumsum(rows["tokens"], dtype=np.int64)
            fitting = int(np.searchsorted(ends, self._most - shard.tokens, "right"))
            number = min(fitting, self._most - shard.documents)
            if not number and shard.documents:
                self._write(split)
                continue
            number = max(number, 1)
            tokens = int(ends[number - 1])
            shard.ids.append(ids[:tokens])
            shard.rows.append(rows[:number])
            shard.tokens += tokens
            shard.documents += number
            ids, rows = ids[tokens:], rows[number:]

    def close(self) -> None:
        """Write the shards that are not full."""
        for split in list(self._open):
            self._write(split)

    def _write(self, split: str) -> None:
        shard = self._open.pop(split)
        ids = np.concatenate(shard.ids) if shard.ids else np.empty(0, self._dtype)
        rows = np.concatenate([np.empty(0, DOCUMENT), *shard.rows])
        del shard.ids[:], shard.rows[:]
        sequence = self._closed.get(split, 0)
        self._closed[split] = sequence + 1
        name = f"{split}-{self._number:06d}-{sequence:03d}"
        counts = shard_counts(rows, split, shard.source, self._dtype)
        self._save(f"{name}.bin", ids.tobytes(), counts)
        self._save(f"{name}.len", rows["tokens"].tobytes(), {})
        self.histograms.add(rows)
        if split == "train":
            self.counts = _sum_counts(self.counts, _occurrences(ids))

    def _save(self, name: str, data: bytes, counts: Mapping[str, int | str]) -> None:
        write_bytes(join(self._output, name), data)
        self.files.append(file_row(name, data, counts))


def file_row(name: str, data: bytes, counts: Mapping[str, int | str]) -> dict[str, Any]:
    """Return a file's record for the manifest, as JSON types."""
    digest = xxhash.xxh3_128_hexdigest(data)
    return {"name": name, "bytes": len(data), "xxh128": digest, "counts": counts}


def _occurrences(ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return how often each id occurs, `COUNT` (ids that occur,), ordered by id.

    The memory is proportional to ``ids``, because a vocabulary may have millions of ids and a part
    two tokens.
    """
    seen: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    if ids.max(initial=0) < len(ids):  # the faster way, if its table is no longer than the ids
        counts = np.bincount(ids)
        seen = np.flatnonzero(counts)
        counts = counts[seen]
    else:
        seen, counts = np.unique(ids, return_counts=True)
    table = np.empty(len(seen), COUNT)
    table["id"], table["count"] = seen, counts
    return table


def _sum_counts(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Add the counts of equal ids of two tables of dtype `COUNT`."""
    both = np.concatenate([one, other])
    seen, row = np.unique(both["id"], return_inverse=True)
    table = np.zeros(len(seen), COUNT)
    table["id"] = seen
    np.add.at(table["count"], row, both["count"])
    return table
