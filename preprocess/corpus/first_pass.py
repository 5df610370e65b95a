"""The first pass of prepare: reads, cleans, filters, hashes and tokenises the text of a unit.

This is the only pass that reads text. It writes the unit in segments (`preprocess.corpus.segment`),
and at the end the unit record. A rerun skips units that have a record, and resumes an unfinished unit
after its last segment. The output does not depend on how the reader divides the input into blocks.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.corpus.batch import Batch
from preprocess.corpus.job import Job
from preprocess.corpus.rejects import RejectsWriter
from preprocess.corpus.segment import Segment
from preprocess.errors import UserError, one_line
from preprocess.files.durability import synced_together
from preprocess.quality.report import EXAMPLE_CHARACTERS
from preprocess.quality.screening import EMPTY, Screened, Screener
from preprocess.reading.block import Block
from preprocess.reading.byte_range import RangeRead
from preprocess.reading.changed_inputs import has_read, ranges_read
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import Unit
from preprocess.shards.format import token_dtype
from preprocess.text.minhash import Bands
from preprocess.text.scripts import count_scripts
from preprocess.text.splits import splits_of
from preprocess.tokenizers.load import cached_tokenizer
from preprocess.work import folder
from preprocess.work.progress import Progress

SPACE = ord(" ")
SCRIPTS_EVERY = 8
"""Scripts are counted in one of this many batches, because counting costs a tenth of tokenising."""


@dataclass
class _Counts:
    """Counts of a unit up to its last closed segment, saved as JSON in the segments record."""

    seen: int = 0
    """Documents from the reader."""
    kept: int = 0
    """Documents that were not dropped."""
    tokens: int = 0
    batches: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    """Documents changed by each cleaning step."""
    report: dict[str, Any] = field(default_factory=dict)
    """Counts and examples of filters and masks, as in `Report.saved`."""
    scripts: Counter[str] = field(default_factory=Counter)
    """Characters by script (`count_scripts`), in the kept documents of every eighth batch."""
    parts: list[dict[str, str]] = field(default_factory=list)
    """For each closed segment, the result of `Segment.write`."""
    files_aside: int = 0
    """Files of rejects completed."""
    rejected_aside: int = 0
    """Rejected records in these files."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Checksum of each file of the closed segments, by name."""
    versions: str = ""
    """Hash of the versions of the raw files when the unit was started."""
    read: list[RangeRead] = field(default_factory=list)
    """What was read of the unit's first ranges, as in `UnitReader.read_so_far`."""


class Documents(Protocol):
    """The documents of a unit; the reader of a unit is one."""

    def __iter__(self) -> Iterator[Block]: ...

    def read_so_far(self) -> list[RangeRead]: ...


def tokenize_unit(job: Job, unit: Unit, documents: Documents | None = None) -> int:
    """Run the first pass on a unit, unless its record exists, and return its index.

    Args:
        job: settings.
        unit: the unit.
        documents: its documents; None means that they are read from the files of the unit.

    Raises:
        DamagedFile: a raw file cannot be read completely.
        UserError: a raw file changed after a killed run started to read the unit.
    """
    if not folder.is_done(job.work, folder.unit_record(job.work, unit.index)):
        _FirstPass(job, unit, documents).run()
    return unit.index


class _FirstPass:
    def __init__(self, job: Job, unit: Unit, documents: Documents | None) -> None:
        self._job, self._unit, self._config = job, unit, job.config
        self._source = job.config.sources[unit.source]
        self._tokenizer = cached_tokenizer(job.tokenizer, job.tokenizer_content)
        cleaning = job.config.cleaning_of(self._source)
        self._progress = Progress(job.work, unit.index)
        self._reader = documents or read_unit(
            unit, self._source, cleaning, Limits.of(job.config), alive=self._progress.write
        )
        self._screener = Screener(job.config, self._source)
        # With collapsed whitespace, counting spaces gives the number of words.
        self._collapsed = cleaning.whitespace == "collapse"
        near = job.config.near_duplicates
        self._bands = Bands(near.similarity, near.seed) if near.similarity is not None else None
        self._record = folder.segments_record(job.work, unit.index)
        self._counts = self._resume()
        self._screener.resume(self._counts.changed, self._counts.report)
        self._rejects_writer = RejectsWriter(
            job.output, unit.index, self._counts.files_aside, self._counts.rejected_aside
        )
        self._rejected: Counter[str] = Counter()
        self._replaced = 0
        self._segment = self._new_segment()

    def run(self) -> None:
        for batch in self._batches():
            self._add(batch)
            self._counts.seen += len(batch.texts)
            # Documents count too, because documents without tokens also take memory.
            if max(self._segment.tokens, self._segment.documents) >= self._config.part_tokens:
                self._close()
                # A rerun resumes here.
                folder.write_done(self._job.work, self._record, vars(self._counts))
            self._report()
        if self._segment.documents:
            self._close()
        self._rejects_writer.flush()
        counts = self._counts
        dropped = counts.dropped + self._rejected
        assert counts.seen == counts.kept + counts.dropped.total(), "a document is unaccounted for"
        record = {
            "read": counts.kept + dropped.total(),
            "dropped": dict(sorted(dropped.items())),
            "replaced": self._replaced,
            "changed": dict(sorted(self._screener.changed.items())),
            "report": self._screener.report.saved(),
            "scripts": dict(sorted(counts.scripts.items())),
            "parts": counts.parts,
            "hashes": counts.hashes,
            "source": self._unit.source,
            "inputs": ranges_read(self._unit, self._reader.read_so_far()),
        }
        self._report(final=True)
        folder.write_done(
            self._job.work, folder.unit_record(self._job.work, self._unit.index), record
        )

    def _resume(self) -> _Counts:
        """Return the counts of the segments that a killed run has closed."""
        ranges = self._unit.ranges
        versions = xxhash.xxh3_128_hexdigest("\n".join(r.version for r in ranges).encode())
        try:
            record = folder.read_done(self._job.work, self._record)
        except FileNotFoundError:
            return _Counts(versions=versions)
        # Closed segments have the old contents of the files, later ones would have the new ones.
        same = record["versions"] == versions and all(r.version for r in ranges)
        read = [RangeRead(*row) for row in record.get("read", ())]
        if not (same or (read and has_read(ranges, read))):
            raise UserError(
                f"one of the files from '{one_line(ranges[0].name)}' to "
                f"'{one_line(ranges[-1].name)}' changed after an "
                f"unfinished run started to read them; delete {self._job.work} to start again"
            )
        for name in ("dropped", "changed", "scripts"):
            record[name] = Counter(record[name])
        return _Counts(**{**record, "versions": versions})

    def _new_segment(self) -> Segment:
        dtype = token_dtype(self._job.vocabulary)
        keep_keys = self._config.keep_keys
        return Segment(dtype, self._source.name, self._counts.kept, keep_keys)

    def _batches(self) -> Iterator[Batch]:
        """Yield the documents after the closed segments, in batches independent of the blocks."""
        batch, skip = Batch(), self._counts.seen
        for block in self._reader:
            self._rejected.update(one.reason for one in block.rejected)
            self._rejects_writer.add_rejected(
                replace(one, excerpt=self._screener.hidden_excerpt(one.excerpt))
                for one in block.rejected
            )
            self._replaced += block.replaced
            begin = min(skip, len(block.documents))
            skip -= begin
            while begin < len(block.documents):
                begin = batch.fill(block, begin)
                if batch.full:
                    yield batch
                    batch = Batch()
            self._progress.bytes += block.raw_bytes
            self._report()
        if batch.texts:
            yield batch

    def _add(self, batch: Batch) -> None:
        self._counts.batches += 1
        texts, numbers = self._kept(batch, self._screener.screen(batch.texts, batch.ids))
        if not texts:
            return
        if self._counts.batches % SCRIPTS_EVERY == 1:
            self._counts.scripts.update(count_scripts(texts))
        data = [*map(str.encode, texts)]
        ids = self._tokenizer.encode(texts)
        near = self._bands.keys(texts) if self._bands else None
        before = self._segment.tokens
        words, origins = self._words(texts, data), batch.locations_of(numbers)
        self._segment.add(texts, data, words, ids, near, origins)
        self._counts.tokens += self._segment.tokens - before
        self._counts.kept += len(texts)

    def _kept(self, batch: Batch, screened: Screened) -> tuple[list[str], npt.NDArray[np.intp]]:
        """Return the cleaned texts to keep, and their numbers in the batch.

        The others are counted and, if configured, saved.
        """
        texts, reasons = screened.texts, screened.reasons
        numbers = np.arange(len(texts))
        if self._config.drop_empty and not all(texts):
            reasons = [
                reason if text or reason else EMPTY
                for reason, text in zip(reasons, texts, strict=True)
            ]
        if not any(reasons):
            return texts, numbers
        for number, reason in enumerate(reasons):
            if reason:
                self._counts.dropped[reason] += 1
                self._save_dropped(batch, screened, number, reason)
        kept = [text for text, reason in zip(texts, reasons, strict=True) if not reason]
        return kept, numbers[[not reason for reason in reasons]]

    def _save_dropped(self, batch: Batch, screened: Screened, number: int, reason: str) -> None:
        """Save a dropped document if configured, and a match of a benchmark always."""
        match = screened.matches.get(number)
        if not (match or (self._config.keep_dropped and reason != EMPTY)):
            return
        text = screened.texts[number]
        line: dict[str, Any] = {"reason": reason, "text": self._screener.hidden(text)}
        if match:
            line |= {"benchmark": match.benchmark, "item": match.item, "ngram": match.ngram}
            if not self._config.keep_dropped:
                line["text"] = self._screener.hidden(text, EXAMPLE_CHARACTERS)
        self._rejects_writer.add({**line, "where": batch.where(number)})

    def _words(self, texts: list[str], data: list[bytes]) -> npt.NDArray[np.uint32]:
        """Return the number of words of each text, shape (texts,)."""
        if not self._collapsed or not all(data):
            return np.array([len(text.split()) for text in texts], np.uint32)
        spaces = np.frombuffer(b"".join(data), np.uint8) == SPACE
        sizes = np.fromiter(map(len, data), np.int64, len(data))
        begins = np.cumsum(sizes) - sizes
        gaps = np.add.reduceat(spaces.view(np.uint8), begins, dtype=np.uint32)
        return gaps + np.uint32(1)

    def _close(self) -> None:
        """Write the segment and start the next one."""
        job, counts = self._job, self._counts
        number = len(counts.parts)
        find_splits = partial(
            splits_of,
            valid_fraction=self._config.valid_fraction,
            test_fraction=self._config.test_fraction,
            source_split=self._source.split,
        )
        with synced_together():
            counts.parts.append(
                self._segment.write(
                    *(job.work, self._unit.index, number, find_splits),
                    *(job.layout("hashes"), job.layout("bands")),
                )
            )
            self._rejects_writer.flush()
        counts.hashes |= self._segment.hashes
        counts.read = self._reader.read_so_far()
        counts.changed = self._screener.changed
        counts.report = self._screener.report.saved()
        counts.files_aside, counts.rejected_aside = (
            self._rejects_writer.files,
            self._rejects_writer.rejected,
        )
        self._segment = self._new_segment()

    def _report(self, final: bool = False) -> None:
        self._progress.documents = self._counts.kept
        self._progress.tokens = self._counts.tokens
        self._progress.dropped = (self._counts.dropped, self._rejected)
        self._progress.write(final)
