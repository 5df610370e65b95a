"""The last pass of prepare: removes duplicates from the tokenised parts and writes the shards."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.corpus.dedup import read_duplicates
from preprocess.corpus.first_pass import Job
from preprocess.corpus.histograms import Histograms
from preprocess.corpus.known import first_units, locate
from preprocess.corpus.near_duplicates import read_near_duplicates
from preprocess.corpus.rejects import RejectsWriter
from preprocess.corpus.segment import KEYS, ORIGINS
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.durability import synced_together
from preprocess.files.manifest import FileRecord
from preprocess.files.storage import join, read_bytes, write_bytes
from preprocess.reading.units import Unit
from preprocess.shards.document_keys import DocumentKeys
from preprocess.shards.format import DOCUMENT, shard_counts, token_dtype
from preprocess.shards.npy import parse_npy
from preprocess.shards.origins import FATES, KNOWN_FATES, Origins
from preprocess.tokenizers.load import cached_tokenizer
from preprocess.work import folder
from preprocess.work.damage import (
    DamagedWork,
    check_made,
    checksum,
    compare_checksum,
    damaged_work,
)
from preprocess.work.progress import Progress

Drops = dict[str, tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]
"""Documents to drop by reason: their numbers, sorted, shape (documents,), and unit and number of the
earlier document, shape (documents, 2). For `KNOWN_FATES`, units are counted over all known corpora."""

_KNOWN = dict(zip(("duplicate", "near_duplicate"), KNOWN_FATES, strict=True))

COUNT = np.dtype([("id", "<u4"), ("count", "<u8")])
"""Dtype of a row of `read_counts`: a token id and how often it occurs."""


def read_counts(work: str, unit: int) -> npt.NDArray[Any]:
    """Return how often each id occurs in the train split of a finished unit.

    Returns:
        An array of type `COUNT`, shape (ids that occur,), ordered by id.

    Raises:
        DamagedWork: the file is damaged.
    """
    path = folder.counts_file(work, unit)
    data = read_bytes(path)
    compare_checksum(path, data, folder.read_finished_record(work, unit).get("counts"))
    return np.frombuffer(data, COUNT)


def finish_unit(job: Job, unit: Unit) -> int:
    """Turn the parts of a unit into shards, unless it is finished, and return its index.

    If a file that an earlier run wrote is damaged, the unit is finished again.

    The drops that the settings require must have been written
    (`preprocess.corpus.dedup.collect_drops`).
    """
    is_done = folder.is_done(job.work, folder.finished_record(job.work, unit.index))
    if not is_done or _has_damaged_files(job, unit.index):
        _LastPass(job, unit).run()
    return unit.index


def _has_damaged_files(job: Job, unit: int) -> bool:
    """Return True if a file that an earlier run finished has changed since."""
    record = folder.read_finished_record(job.work, unit)
    try:
        columns = (record.get(name) or () for name in ("origins", "keys"))
        for row in (*record["files"], *chain(*columns)):
            file = FileRecord(**row)
            check_made(join(job.output, file.name), file)
    except DamagedWork:
        return True
    return False


class _LastPass:
    def __init__(self, job: Job, unit: Unit) -> None:
        self._job, self._unit = job, unit
        self._source = job.config.sources[unit.source].name
        self._dtype = token_dtype(job.vocabulary)
        self._files: list[dict[str, Any]] = []
        self._origins: list[dict[str, Any]] = []
        self._keys: list[dict[str, Any]] = []
        self._counts = np.empty(0, COUNT)
        self._hashes: dict[str, str] = {}
        self._histograms = Histograms()
        self._rejects_writer = RejectsWriter(job.output, unit.index, kind="duplicates-")

    def run(self) -> None:
        job, index = self._job, self._unit.index
        record = folder.read_unit_record(job.work, index)
        parts, self._hashes = record["parts"], record.get("hashes", {})
        drops = self._drops() if parts else {}
        # A compressed file of any size is one unit.
        progress = Progress(job.work, index, "last-pass")
        with synced_together():
            for segment in parts:
                names = dict(segment)
                # Segments that version 0.1 closed have no origins.
                name = names.pop(ORIGINS, None)
                self._finish_keys(names.pop(KEYS, None), drops)
                origins = self._finish_origins(name, drops) if name else None
                for split, name in names.items():
                    self._finish_part(name, split, drops, origins)
                    progress.write()
            self._rejects_writer.flush()
            counts = self._counts.tobytes()
            write_bytes(folder.counts_file(job.work, index), counts)
        record = {
            "counts": checksum(counts),
            "files": self._files,
            "origins": self._origins,
            # Only whole: a document without keys could not be recognised.
            "keys": self._keys if len(self._keys) == len(parts) else None,
            "dropped": {reason: len(numbers) for reason, (numbers, _) in drops.items()},
            "known": self._known(drops),
            "histograms": self._histograms.to_dict(),
        }
        progress.write(final=True)
        folder.write_done(job.work, folder.finished_record(job.work, index), record)

    def _drops(self) -> Drops:
        job, index = self._job, self._unit.index
        drops: Drops = {}
        if "hashes" in job.kinds:
            exact = read_duplicates(job.work, "hashes", index, job.layout("hashes"))
            self._add_drops(drops, "duplicate", *exact)
        if "bands" in job.kinds:
            near = read_near_duplicates(job.work, job.blocks, index)
            self._add_drops(drops, "near_duplicate", *near)
        return drops

    def _add_drops(
        self,
        drops: Drops,
        reason: str,
        numbers: npt.NDArray[np.uint32],
        originals: npt.NDArray[np.uint32],
    ) -> None:
        """Add documents to drop, unless they are to be dropped already, by whether they are known."""
        for earlier, _ in [*drops.values()]:
            new = ~_among(numbers, earlier)
            numbers, originals = numbers[new], originals[new]
        own = self._job.units
        is_known = originals[:, 0] >= own
        drops[reason] = numbers[~is_known], originals[~is_known]
        if self._job.known:
            first = np.array([own, 0], np.uint32)
            drops[_KNOWN[reason]] = numbers[is_known], originals[is_known] - first

    def _known(self, drops: Drops) -> list[dict[str, int]]:
        """Return how many documents are dropped for each known corpus, by reason."""
        starts = first_units(self._job.known)
        found: list[dict[str, int]] = [{} for _ in self._job.known]
        for reason in KNOWN_FATES:
            if reason in drops:
                counts, _ = np.histogram(drops[reason][1][:, 0], starts)
                for corpus, number in zip(found, counts.tolist(), strict=True):
                    corpus[reason] = number
        return found

    def _finish_keys(self, name: str | None, drops: Drops) -> None:
        """Write the keys of a segment's documents that are not dropped, if they are kept."""
        if name is None:
            return
        path = folder.packed_part(self._job.work, name)
        keys = DocumentKeys.decode(self._read(path), path)
        for numbers, _ in drops.values():
            keys = keys.without(numbers)
        data = keys.encode()
        write_bytes(join(self._job.output, f"{name}.zst"), data)
        self._keys.append(_record(f"{name}.zst", data))

    def _finish_origins(self, name: str, drops: Drops) -> Origins:
        """Write the origins of a segment with the documents to drop marked, and return them."""
        path = folder.packed_part(self._job.work, name)
        origins = Origins.decode(self._read(path), path)
        for reason, (numbers, originals) in drops.items():
            low, high = np.searchsorted(numbers, (origins.first, origins.first + len(origins)))
            dropped = np.zeros(len(origins), bool)
            dropped[numbers[low:high] - origins.first] = True
            origins = origins.drop(dropped, reason, originals[low:high])
        data = origins.encode()
        write_bytes(join(self._job.output, f"{name}.zst"), data)
        self._origins.append(_record(f"{name}.zst", data))
        return origins

    def _finish_part(self, name: str, split: str, drops: Drops, origins: Origins | None) -> None:
        part = folder.part_file(self._job.work, name)
        data = self._read(f"{part}.bin")
        try:
            rows = parse_npy(self._read(f"{part}.npy"), DOCUMENT)
            ids = np.frombuffer(data, self._dtype)
            if len(ids) != rows["tokens"].sum(dtype=np.int64):
                raise ValueError("its documents have other tokens")
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise damaged_work(f"{part}.npy", str(error)) from error
        keep = np.ones(len(rows), bool)
        for reason, (numbers, _) in drops.items():
            dropped = _among(rows["number"], numbers)
            if self._job.config.keep_dropped and dropped.any():
                self._save_dropped(ids, rows, dropped, reason, origins)
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
        counts = shard_counts(rows, split, self._source, self._dtype)
        self._files += [_record(f"{name}.bin", data, counts), _record(f"{name}.len", lengths)]
        self._histograms.add(rows)
        if split == "train":
            self._counts = _sum_counts(self._counts, _occurrences(ids))

    def _read(self, path: str) -> bytes:
        """Return the content of a part, compared with the checksum in the unit's record.

        Raises:
            DamagedWork: the file is damaged or missing.
        """
        try:
            data = read_bytes(path)
        except FileNotFoundError as error:
            raise damaged_work(path, "it is missing") from error
        compare_checksum(path, data, self._hashes.get(path.rpartition("/")[2]))
        return data

    def _save_dropped(
        self,
        ids: npt.NDArray[Any],
        rows: npt.NDArray[Any],
        dropped: npt.NDArray[Any],
        reason: str,
        origins: Origins | None,
    ) -> None:
        tokenizer = cached_tokenizer(self._job.tokenizer, self._job.tokenizer_content)
        ends = np.cumsum(rows["tokens"], dtype=np.int64)
        for row in np.flatnonzero(dropped):
            text = tokenizer.decode(ids[ends[row] - rows["tokens"][row] : ends[row]])
            line = {"reason": reason, "text": text}
            if origins:
                index = int(rows["number"][row]) - origins.first
                line |= {"where": origins.where(index), **self._original(origins, index)}
            self._rejects_writer.add(line)

    def _original(self, origins: Origins, index: int) -> dict[str, str]:
        """Return the earlier document for which one is dropped; a known one with its corpus."""
        original = origins.original_of(index)
        if FATES[origins.fates[index]] not in KNOWN_FATES:
            return {"of": str(original)}
        corpus, document = locate(self._job.known, original)
        return {"of": str(document), "known": self._job.known[corpus].content}


def _record(name: str, data: bytes, counts: Mapping[str, int | str] = {}) -> dict[str, Any]:
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


def _among(numbers: npt.NDArray[np.uint32], drops: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Return which of the sorted ``numbers`` are among the sorted ``drops``, bool (numbers,)."""
    if not len(drops) or not len(numbers):
        return np.zeros(len(numbers), bool)
    nearest = np.searchsorted(drops, numbers).clip(max=len(drops) - 1)
    among: npt.NDArray[np.bool_] = drops[nearest] == numbers
    return among
