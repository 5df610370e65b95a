"""The last pass of prepare: removes duplicates from the tokenised parts and writes the shards."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.corpus.dedup import read_drops
from preprocess.corpus.first_pass import Job
from preprocess.corpus.histograms import Histograms
from preprocess.corpus.rejects import RejectsWriter
from preprocess.files import storage
from preprocess.files.durability import synced_together
from preprocess.files.storage import join, read_bytes, write_bytes
from preprocess.reading.units import Unit
from preprocess.shards.format import DOCUMENT, shard_counts, token_dtype
from preprocess.tokenizers.load import cached_tokenizer
from preprocess.work import folder

COUNT = np.dtype([("id", "<u4"), ("count", "<u8")])
"""Dtype of a row of `read_counts`: a token id and how often it occurs."""


def read_counts(work: str, unit: int) -> npt.NDArray[Any]:
    """Return how often each id occurs in the train split of a finished unit.

    Returns:
        An array of type `COUNT`, shape (ids that occur,), ordered by id.
    """
    return np.frombuffer(read_bytes(folder.counts_file(work, unit)), COUNT)


def finish_unit(job: Job, unit: Unit) -> int:
    """Turn the parts of a unit into shards, unless it is finished, and return its index.

    The drop lists that the settings require must have been written
    (`preprocess.corpus.dedup.deduplicate_bucket`).
    """
    if not folder.is_done(job.work, folder.finished_record(job.work, unit.index)):
        _LastPass(job, unit).run()
    return unit.index


class _LastPass:
    def __init__(self, job: Job, unit: Unit) -> None:
        self._job, self._unit = job, unit
        self._source = job.config.sources[unit.source].name
        self._dtype = token_dtype(job.vocabulary)
        self._files: list[dict[str, Any]] = []
        self._counts = np.empty(0, COUNT)
        self._histograms = Histograms()
        self._rejects_writer = RejectsWriter(job.output, unit.index, kind="duplicates-")

    def run(self) -> None:
        job, index = self._job, self._unit.index
        parts = folder.read_unit_record(job.work, index)["parts"]
        drops = self._drops() if parts else {}
        with synced_together():
            for segment in parts:
                for split, name in segment.items():
                    self._finish_part(name, split, drops)
            self._rejects_writer.flush()
            write_bytes(folder.counts_file(job.work, index), self._counts.tobytes())
        record = {
            "files": self._files,
            "dropped": {reason: len(numbers) for reason, numbers in drops.items()},
            "histograms": self._histograms.to_dict(),
        }
        folder.write_done(job.work, folder.finished_record(job.work, index), record)

    def _drops(self) -> dict[str, npt.NDArray[np.uint32]]:
        """Return the numbers of the documents to drop, by reason."""
        job, index = self._job, self._unit.index
        drops = {}
        if job.config.deduplicate:
            drops["duplicate"] = read_drops(job.work, "hashes", index, job.buckets)
        if job.config.near_duplicates.similarity is not None:
            near = read_drops(job.work, "bands", index, job.band_buckets)
            exact = drops.get("duplicate", np.empty(0, np.uint32))
            drops["near_duplicate"] = np.setdiff1d(near, exact, assume_unique=True)
        return drops

    def _finish_part(self, name: str, split: str, drops: dict[str, npt.NDArray[np.uint32]]) -> None:
        part = folder.part_file(self._job.work, name)
        data = read_bytes(f"{part}.bin")
        ids = np.frombuffer(data, self._dtype)
        rows = np.load(io.BytesIO(read_bytes(f"{part}.npy")))
        assert rows.dtype == DOCUMENT
        keep = np.ones(len(rows), bool)
        for reason, numbers in drops.items():
            dropped = _among(rows["number"], numbers)
            if self._job.config.keep_dropped and dropped.any():
                self._save_dropped(ids, rows, dropped, reason)
            keep &= ~dropped
        if not keep.any():
            return
        target = join(self._job.output, f"{name}.bin")
        if keep.all():
            storage.copy(f"{part}.bin", target)
        else:
            ids, rows = ids[np.repeat(keep, rows["tokens"])], rows[keep]
            data = ids.tobytes()
            write_bytes(target, data)
        lengths = rows["tokens"].tobytes()
        write_bytes(join(self._job.output, f"{name}.len"), lengths)
        self._record(f"{name}.bin", data, shard_counts(rows, split, self._source, self._dtype))
        self._record(f"{name}.len", lengths, {})
        self._histograms.add(rows)
        if split == "train":
            self._counts = _sum_counts(self._counts, _occurrences(ids))

    def _record(self, name: str, data: bytes, counts: Any) -> None:
        digest = xxhash.xxh3_128_hexdigest(data)
        row = {"name": name, "bytes": len(data), "xxh128": digest, "counts": counts}
        self._files.append(row)

    def _save_dropped(
        self, ids: npt.NDArray[Any], rows: npt.NDArray[Any], dropped: npt.NDArray[Any], reason: str
    ) -> None:
        tokenizer = cached_tokenizer(self._job.tokenizer, self._job.tokenizer_content)
        ends = np.cumsum(rows["tokens"], dtype=np.int64)
        for row in np.flatnonzero(dropped):
            text = tokenizer.decode(ids[ends[row] - rows["tokens"][row] : ends[row]])
            self._rejects_writer.add({"reason": reason, "text": text})


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


def _among(numbers: npt.NDArray[np.uint32], drops: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Return which of the sorted ``numbers`` are among the sorted ``drops``, bool (numbers,)."""
    if not len(drops) or not len(numbers):
        return np.zeros(len(numbers), bool)
    nearest = np.searchsorted(drops, numbers).clip(max=len(drops) - 1)
    among: npt.NDArray[np.bool_] = drops[nearest] == numbers
    return among
