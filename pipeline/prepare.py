"""Stage: raw text -> token shards and their manifest."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from pipeline.config import Config
from pipeline.console import Console, count
from pipeline.runners import make_pipeline
from pipeline.stage import Made, Place, StageError
from pipeline.stages import input_sources, stage_folder
from pipeline.transforms import PrepareCorpus, user_errors
from pipeline.unit_bar import unit_bar
from preprocess import storage
from preprocess.config import SPLITS
from preprocess.dedup import count_buckets
from preprocess.first_pass import Job, read_done
from preprocess.last_pass import read_counts, read_finished
from preprocess.manifest import FileRecord, content_hash, hash_file, read_manifest
from preprocess.raw_inputs import beside, write_inputs
from preprocess.token_shard import SUMS
from preprocess.tokenizer import cached_tokenizer
from preprocess.units import Unit, plan_units


def make(config: Config, place: Place, console: Console) -> Made:
    sources, files = input_sources(config)
    units = plan_units(sources, files, config.prepare.unit_bytes)
    total = sum(r.end - r.start for unit in units for r in unit.ranges)
    console.line(f"{count(sum(map(len, files)))} files, {count(total)}B in {len(units)} units")
    job = _job(config, place, total)
    with (
        unit_bar(place, console, "prepare", total),
        user_errors(place.work),
        make_pipeline(config.runner, total) as pipeline,
    ):
        _ = pipeline | PrepareCorpus(job, units) | "finished" >> beam.Map(int)
    return _collect(config, place, console, job, units)


def _job(config: Config, place: Place, total: int) -> Job:
    folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    content = read_manifest(folder, "tokenizer").content
    vocabulary = cached_tokenizer(folder, content).vocabulary
    return Job(
        work=place.work,
        output=place.folder,
        config=config.prepare,
        tokenizer=folder,
        tokenizer_content=content,
        vocabulary=vocabulary,
        buckets=count_buckets(total),
    )


def _collect(
    config: Config, place: Place, console: Console, job: Job, units: Sequence[Unit]
) -> Made:
    """Sum up the units' records; refuse where a document is unaccounted for."""
    files: list[FileRecord] = []
    inputs: list[dict[str, Any]] = []
    read = replaced = written = 0
    drops: Counter[str] = Counter()
    counts = np.zeros(job.vocabulary, np.uint64)
    for unit in units:
        done, finished = read_done(place.work, unit.index), read_finished(place.work, unit.index)
        read += done["read"]
        replaced += done["replaced"]
        drops.update(done["dropped"])
        drops["duplicate"] += finished["duplicates"]
        files += [FileRecord(**row) for row in finished["files"]]
        inputs += done["inputs"]
        table = read_counts(place.work, unit.index)
        counts[table["id"]] += table["count"]
    drops = Counter({reason: number for reason, number in drops.items() if number})
    written = sum(int(f.counts["documents"]) for f in files if "documents" in f.counts)
    if read != written + sum(drops.values()):
        raise StageError(
            f"{place.folder}: {read:,} documents read, but {written:,} written and "
            f"{sum(drops.values()):,} dropped; this is a fault of biloom, please report it"
        )
    if not written:
        raise StageError(_nothing_left(config, read, drops))
    buffer = io.BytesIO()
    np.save(buffer, counts)
    storage.write_bytes(place.file("counts.npy"), buffer.getvalue())
    content = content_hash([*files, _record(place, "counts.npy")])
    write_inputs(place.folder, inputs)
    extra = [_record(place, name) for name in ("counts.npy", *beside(place.folder))]
    splits = {split: _sums(files, "split", split) for split in SPLITS}
    details = {
        "tokenizer": job.tokenizer_content,
        "vocabulary": job.vocabulary,
        "cleaning": config.prepare.cleaning.model_dump(),
        "sources": [
            {"name": source.name, "license": source.license, **_sums(files, "source", source.name)}
            for source in config.prepare.sources
        ],
        "splits": splits,
        "documents": {"read": read, "written": written, "replaced": replaced, "dropped": drops},
    }
    _show(console, details)
    return Made(tuple(files + extra), details, stats=details, content=content)


def _record(place: Place, name: str) -> FileRecord:
    return FileRecord(name, *hash_file(place.file(name)))


def _sums(files: Sequence[FileRecord], column: str, value: str) -> dict[str, int]:
    chosen = [file.counts for file in files if file.counts.get(column) == value]
    return {key: sum(int(counts[key]) for counts in chosen) for key in SUMS}


def _nothing_left(config: Config, read: int, drops: Counter[str]) -> str:
    paths = ", ".join(path for source in config.prepare.sources for path in source.paths)
    if not read:
        return f"{paths}: holds no document; give prepare.input some text"
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(drops.items()))
    return f"{paths}: no document is left of {read:,} ({reasons}); look at the text"


def _show(console: Console, details: dict[str, Any]) -> None:
    rows = [
        [split, *(f"{sums[key]:,}" for key in SUMS)]
        for split, sums in details["splits"].items()
        if sums["documents"]
    ]
    console.table("corpus", ["split", *SUMS], rows)
    documents = details["documents"]
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(documents["dropped"].items()))
    console.line(
        f"documents: {documents['read']:,} read, {documents['written']:,} written"
        + (f", dropped: {reasons}" if reasons else "")
        + (f"; {documents['replaced']:,} held invalid bytes" if documents["replaced"] else "")
    )
