"""The last pass of prepare: removes duplicates from the tokenised parts and writes the shards.

It works on a *group* of consecutive units (`preprocess.corpus.job.group_units`), whose parts are joined and
divided to shards of a set size. The group's record, written last, also has the sums of the units' records, so that
the driver reads one record per group.
"""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.corpus.dedup import read_unit_duplicates
from preprocess.corpus.job import Job
from preprocess.corpus.known import first_units, locate
from preprocess.corpus.near.duplicates import read_near_duplicates
from preprocess.corpus.rejects import RejectsWriter
from preprocess.corpus.segment import KEYS, ORIGINS
from preprocess.corpus.shard_writer import COUNT, ShardWriter, file_row
from preprocess.errors import UserError
from preprocess.files.durability import synced_together
from preprocess.files.manifest import FileRecord
from preprocess.files.storage import join, read_bytes, write_bytes
from preprocess.quality.report import Report
from preprocess.reading.plan_file import read_planned
from preprocess.shards.document_keys import DocumentKeys
from preprocess.shards.format import DOCUMENT, token_dtype
from preprocess.shards.npy import parse_npy
from preprocess.shards.origins import FATES, KNOWN_FATES, Origins
from preprocess.text.config import SPLITS
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

SUMMED = ("dropped", "changed", "scripts")
"""Entries of a unit's record whose counts are summed."""


def read_counts(work: str, record: dict[str, Any]) -> npt.NDArray[Any]:
    """Return how often each id occurs in the train split of a finished group.

    Args:
        work: folder of unfinished work.
        record: record of the group.

    Returns:
        An array of type `COUNT`, shape (ids that occur,), ordered by id.

    Raises:
        DamagedWork: the file is damaged.
    """
    path = folder.counts_file(work, record["group"])
    data = read_bytes(path)
    compare_checksum(path, data, record["counts"])
    return np.frombuffer(data, COUNT)


def finish_group(job: Job, group: int) -> int:
    """Turn the parts of a group of units into shards, unless it is finished, and return its number.

    If a file that an earlier run wrote is damaged, the group is finished again.

    The drops that the settings require must have been written
    (`preprocess.corpus.dedup.collect_drops`).
    """
    path = folder.group_record(job.work, job.units_of(group))
    if not folder.is_done(job.work, path) or _has_damaged_files(job, path):
        _LastPass(job, group).run(path)
    return group


def _has_damaged_files(job: Job, path: str) -> bool:
    """Return True if a file that an earlier run finished has changed since."""
    record = folder.read_done(job.work, path)
    try:
        columns = (record.get(name) or () for name in ("origins", "keys"))
        for row in (*record["files"], *chain(*columns)):
            file = FileRecord(**row)
            check_made(join(job.output, file.name), file)
    except DamagedWork:
        return True
    return False


class _LastPass:
    def __init__(self, job: Job, group: int) -> None:
        self._job, self._group = job, group
        self._dtype = token_dtype(job.vocabulary)
        self._shards = ShardWriter(job.output, group, self._dtype, job.config.shard_tokens)
        self._origins: list[dict[str, Any]] = []
        self._keys: list[dict[str, Any]] | None = []
        self._known = [Counter[str]() for _ in job.known]
        self._sums: dict[str, Counter[str]] = {name: Counter() for name in SUMMED}
        self._read = self._replaced = 0
        self._inputs: list[dict[str, Any]] = []
        self._report = Report()
        self._progress = Progress(job.work, group, "last-pass")

    def run(self, path: str) -> None:
        """Write the shards and the record of the group."""
        job = self._job
        units = job.units_of(self._group)
        with synced_together():
            drops = self._drops(units)
            for unit in units:
                unit_pass = _UnitPass(job, unit, drops[unit - units.start], self._shards)
                unit_pass.run()
                self._add(unit_pass)
                self._progress.write()
            self._shards.close()
            counts = self._shards.counts.tobytes()
            write_bytes(folder.counts_file(job.work, self._group), counts)
        record = {
            "group": self._group,
            "read": self._read,
            "replaced": self._replaced,
            **{name: dict(sorted(sums.items())) for name, sums in self._sums.items()},
            "inputs": self._inputs,
            "report": self._report.saved(),
            "counts": checksum(counts),
            "files": self._shards.files,
            "origins": self._origins,
            # None if a segment lacks them: its documents could not be recognised.
            "keys": self._keys,
            "known": [dict(counter) for counter in self._known],
            "histograms": self._shards.histograms.to_dict(),
        }
        self._progress.write(final=True)
        folder.write_done(job.work, path, record)

    def _add(self, unit: "_UnitPass") -> None:
        """Add the record of a unit, the documents that it drops now, and the records of its files."""
        self._read += unit.record["read"]
        self._replaced += unit.record["replaced"]
        for name, sums in self._sums.items():
            sums.update(unit.record[name])
        self._sums["dropped"].update({reason: len(d) for reason, (d, _) in unit.drops.items()})
        for counter, counts in zip(self._known, _of_known(self._job, unit.drops), strict=True):
            counter.update(counts)
        self._inputs += unit.record["inputs"]
        # Units that a former version read have no report.
        self._report.add(unit.record.get("report", {}))
        self._origins += unit.origins
        if self._keys is not None and len(unit.keys) == len(unit.record["parts"]):
            self._keys += unit.keys
        else:
            self._keys = None

    def _drops(self, units: range) -> list[Drops]:
        """Return the documents to drop of each unit."""
        job = self._job
        every: list[Drops] = [{} for _ in units]
        for kind in job.kinds:
            reason = "duplicate"
            if kind == "hashes":
                every_found = read_unit_duplicates(job.work, kind, units, job.layout(kind))
            else:
                reason = "near_duplicate"
                every_found = read_near_duplicates(job.work, job.blocks, units)
            for drops, found in zip(every, every_found, strict=True):
                self._add_drops(drops, reason, *found)
        return every

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


class _UnitPass:
    """The last pass over one unit of a group.

    Attributes:
        record: record of the unit's first pass.
        drops: documents to drop.
        origins: records of the files of origins.
        keys: records of the files of keys.
    """

    def __init__(self, job: Job, unit: int, drops: Drops, shards: ShardWriter) -> None:
        self._job, self._shards = job, shards
        self.drops, self.origins, self.keys = drops, list[dict[str, Any]](), list[dict[str, Any]]()
        self.record = folder.read_unit_record(job.work, unit)
        # Former versions did not record it.
        source = self.record.get("source")
        number = read_planned(job.work, unit).source if source is None else source
        self._source = job.config.sources[number].name
        self._dtype = token_dtype(job.vocabulary)
        self._rejects_writer = RejectsWriter(job.output, unit, kind="duplicates-")

    def run(self) -> None:
        """Add the documents of the unit to the shards."""
        for segment in self.record["parts"]:
            names = dict(segment)
            # Segments that version 0.1 closed have no origins.
            name = names.pop(ORIGINS, None)
            self._finish_keys(names.pop(KEYS, None))
            origins = self._finish_origins(name) if name else None
            for split, name in names.items():
                self._finish_part(name, split, origins)
        self._rejects_writer.flush()

    def _finish_keys(self, name: str | None) -> None:
        """Write the keys of a segment's documents that are not dropped, if they are kept."""
        if name is None:
            return
        path = folder.packed_part(self._job.work, name)
        keys = DocumentKeys.decode(self._read(path), path)
        for numbers, _ in self.drops.values():
            keys = keys.without(numbers)
        data = keys.encode()
        write_bytes(join(self._job.output, f"{name}.zst"), data)
        self.keys.append(file_row(f"{name}.zst", data, {}))

    def _finish_origins(self, name: str) -> Origins:
        """Write the origins of a segment with the documents to drop marked, and return them."""
        path = folder.packed_part(self._job.work, name)
        origins = Origins.decode(self._read(path), path)
        for reason, (numbers, originals) in self.drops.items():
            low, high = np.searchsorted(numbers, (origins.first, origins.first + len(origins)))
            dropped = np.zeros(len(origins), bool)
            dropped[numbers[low:high] - origins.first] = True
            origins = origins.drop(dropped, reason, originals[low:high])
        data = origins.encode()
        write_bytes(join(self._job.output, f"{name}.zst"), data)
        documents: dict[str, int | str] = {split: len(origins.in_split(split)) for split in SPLITS}
        self.origins.append(file_row(f"{name}.zst", data, documents))
        return origins

    def _finish_part(self, name: str, split: str, origins: Origins | None) -> None:
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
        for reason, (numbers, _) in self.drops.items():
            dropped = _among(rows["number"], numbers)
            if self._job.config.keep_dropped and dropped.any():
                self._save_dropped(ids, rows, dropped, reason, origins)
            keep &= ~dropped
        if not keep.all():
            ids, rows = ids[np.repeat(keep, rows["tokens"])], rows[keep]
        self._shards.add(split, self._source, ids, rows)

    def _read(self, path: str) -> bytes:
        """Return the content of a part, compared with the checksum in the unit's record.

        Raises:
            DamagedWork: the file is damaged or missing.
        """
        try:
            data = read_bytes(path)
        except FileNotFoundError as error:
            raise damaged_work(path, "it is missing") from error
        hashes = self.record.get("hashes", {})
        compare_checksum(path, data, hashes.get(path.rpartition("/")[2]))
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


def _of_known(job: Job, drops: Drops) -> list[dict[str, int]]:
    """Return how many documents are dropped for each known corpus, by reason."""
    starts = first_units(job.known)
    found: list[dict[str, int]] = [{} for _ in job.known]
    for reason in KNOWN_FATES:
        if reason in drops:
            counts, _ = np.histogram(drops[reason][1][:, 0], starts)
            for corpus, number in zip(found, counts.tolist(), strict=True):
                corpus[reason] = number
    return found


def _among(numbers: npt.NDArray[np.uint32], drops: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Return which of the sorted ``numbers`` are among the sorted ``drops``, bool (numbers,)."""
    if not len(drops) or not len(numbers):
        return np.zeros(len(numbers), bool)
    nearest = np.searchsorted(drops, numbers).clip(max=len(drops) - 1)
    among: npt.NDArray[np.bool_] = drops[nearest] == numbers
    return among
