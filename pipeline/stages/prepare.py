"""The prepare stage: raw text -> token shards."""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from pipeline.beam.job import run_job
from pipeline.beam.transforms import PrepareCorpus
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.inputs import (
    check_tokenizer,
    input_sources,
    known_folders,
    no_documents,
    stage_folder,
)
from pipeline.lifecycle.stage import STATS, Made, StageError, StageFolder, read_stats
from pipeline.phases import COLLECTING, Phase, phase
from pipeline.reports.corpus_page import corpus_page
from pipeline.reports.corpus_summary import show_benchmarks, show_corpus
from preprocess.config import PrepareConfig
from preprocess.corpus.dedup import key_buckets, read_copies
from preprocess.corpus.held_out import with_limited_shares
from preprocess.corpus.job import Job, group_units
from preprocess.corpus.known import KEYS, KnownCorpus, key_settings, open_known, text_filters
from preprocess.corpus.last_pass import read_counts
from preprocess.corpus.near.blocks import Blocks
from preprocess.corpus.rejects import side_files
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.bulk.at_once import at_once
from preprocess.files.manifest import FileRecord, content_hash, read_manifest
from preprocess.quality.contents import filters_without_paths
from preprocess.quality.report import Report
from preprocess.reading.changed_inputs import (
    encodings_found,
    read_inputs,
    warnings_of,
    write_inputs,
)
from preprocess.reading.kinds.missing_text import why_no_text
from preprocess.reading.mixing import has_natural_shares, shares
from preprocess.reading.plan_file import write_plan
from preprocess.reading.units import Unit, plan_units
from preprocess.shards.format import SUMS
from preprocess.text.config import SPLITS
from preprocess.tokenizers.load import cached_tokenizer
from preprocess.work.done import read_group_records

PAGE = "corpus.html"
"""Page that describes the corpus."""
CONTENT = (".bin", ".len", "counts.npy")
"""Endings of the names of the files that the content hash depends on."""


def make(config: Config, place: StageFolder, console: Console) -> Made:
    """Run the Beam job that cleans, deduplicates and tokenises the corpus, and sum up its records.

    Raises:
        StageError: no document is left, or the tokenizer was made from other contents of the files.
        UserError: the input, the output or the engine cannot be used.
    """
    sources, files, left_out = input_sources(config, console)
    check_tokenizer(config, [file for group in files for file in group])
    show_benchmarks(console, config.prepare.decontamination)
    units = plan_units(sources, files, config.prepare.unit_bytes)
    total = sum(r.end - r.start for unit in units for r in unit.ranges)
    console.line(f"{count(sum(map(len, files)))} files, {count(total)}B in {len(units)} units")
    prepare = with_limited_shares(config.prepare, place.work, files)
    job = _job(config, prepare, place, console, total, len(units))
    write_plan(place.work, units)
    steps = PrepareCorpus(job)
    run_job(config.runner, place.work, console, "prepare", total, len(units), steps)
    with phase(COLLECTING, "groups of units", job.groups) as collected:
        return _collect(config, place, console, job, units, left_out, collected)


def _job(
    config: Config,
    prepare: PrepareConfig,
    place: StageFolder,
    console: Console,
    total: int,
    units: int,
) -> Job:
    folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    content = read_manifest(folder, "tokenizer").content
    vocabulary = cached_tokenizer(folder, content).vocabulary
    return Job(
        work=place.work,
        output=place.unpublished,
        config=prepare,
        tokenizer=folder,
        tokenizer_content=content,
        vocabulary=vocabulary,
        buckets=key_buckets(total),
        band_buckets=key_buckets(total, "bands"),
        units=units,
        group_units=group_units(units, total, config.prepare.shard_tokens),
        blocks=Blocks.of(units, total),
        known=_known(config, console),
    )


def _known(config: Config, console: Console) -> tuple[KnownCorpus, ...]:
    """Return the known corpora; print a warning for each whose near-duplicates are not dropped.

    Raises:
        UserError: one cannot be used.
    """
    prepare = config.prepare
    mask = {f"prepare.mask.{kind}": text for kind, text in prepare.mask.model_dump().items()}
    cleaning = [
        {
            **prepare.cleaning_of(source).model_dump(),
            **mask,
            **text_filters(prepare.filters_of(source).model_dump(exclude_defaults=True)),
        }
        for source in prepare.sources
    ]
    found = []
    for folder in known_folders(config):
        corpus, reason = open_known(folder, cleaning, prepare.near_duplicates)
        if reason:
            console.warn(f"prepare.known: {folder}: {reason}")
        found.append(corpus)
    return tuple(found)


def _collect(
    config: Config,
    place: StageFolder,
    console: Console,
    job: Job,
    units: Sequence[Unit],
    left_out: dict[str, int],
    collected: Phase,
) -> Made:
    """Sum up the units' records, and write the tables and pages of the whole corpus.

    Raises:
        StageError: no document is left, or documents read and written do not add up.
    """
    files: list[FileRecord] = []
    origins: list[FileRecord] = []
    keys: list[FileRecord] = []
    has_keys = config.prepare.keep_keys
    known = [Counter[str]() for _ in job.known]
    inputs: list[dict[str, Any]] = []
    sums: dict[str, Counter[str]] = {name: Counter() for name in ("dropped", "changed", "scripts")}
    histograms: dict[str, Counter[str]] = {}
    screening = Report()
    read = replaced = 0
    counts = np.zeros(job.vocabulary, np.uint64)
    groups = map(job.units_of, range(job.groups))
    for record in read_group_records(place.work, groups):
        collected.add()
        read += record["read"]
        replaced += record["replaced"]
        for name, counter in sums.items():
            counter.update(record[name])
        screening.add(record["report"])
        for name, bins in record["histograms"].items():
            histograms.setdefault(name, Counter()).update(bins)
        files += [FileRecord(**row) for row in record["files"]]
        origins += [FileRecord(**row) for row in record["origins"]]
        # Units that a former version began have no keys.
        kept = record["keys"]
        has_keys &= kept is not None
        keys += [FileRecord(**row) for row in kept or ()]
        for counter, counts_of in zip(known, record["known"], strict=True):
            counter.update(counts_of)
        inputs += record["inputs"]
        table = read_counts(place.work, record)
        counts[table["id"]] += table["count"]
    # Unary plus removes the reasons with a count of 0.
    dropped = +sums["dropped"]
    written = sum(int(f.counts["documents"]) for f in files if "documents" in f.counts)
    if read != written + dropped.total():
        raise StageError(
            f"{place.folder}: {read:,} documents read, but {written:,} written and "
            f"{dropped.total():,} dropped; this is a bug in biloom, please report it"
        )
    if not written:
        # What was dropped can be inspected in the stage's folder.
        place.publish(side_files(place.unpublished))
        why = why_no_text(units, config.prepare.sources)
        raise _nothing_left(config, read, dropped, why) if read else no_documents(config)
    buffer = io.BytesIO()
    np.save(buffer, counts)
    storage.write_bytes(place.new_file("counts.npy"), buffer.getvalue())
    write_inputs(place.unpublished, inputs)
    sources = _sources(config, files)
    details = {
        "tokenizer": job.tokenizer_content,
        "vocabulary": job.vocabulary,
        "group_units": job.group_units,
        "cleaning": config.prepare.cleaning.model_dump(),
        "sources": sources,
        "splits": {split: _sums(files, split=split) for split in SPLITS},
        "documents": {
            "read": read,
            "written": written,
            "replaced": replaced,
            "dropped": dict(sorted(dropped.items())),
            "changed": dict(sorted(sums["changed"].items())),
        },
    }
    if left_out:
        details["left_out"] = left_out
    if has_keys:
        details[KEYS] = key_settings(config.prepare.near_duplicates)
    if job.known:
        details["known"] = [
            {"content": corpus.content, "units": corpus.units, "dropped": dict(counter)}
            for corpus, counter in zip(job.known, known, strict=True)
        ]
    if found := encodings_found(inputs):
        details["encodings"] = found
    if report := screening.summary():
        details["screening"] = {name: value for name, value in report.items() if name != "examples"}
    made = [*files, place.record("counts.npy")]
    content = content_hash([*made, *_mixture(config, sources)])
    stats = {
        **details,
        **({"screening": report} if report else {}),
        "scripts": dict(sums["scripts"].most_common()),
        "histograms": {name: _by_number(bins) for name, bins in histograms.items()},
        "copies": _copies(job) if config.prepare.deduplicate else None,
    }
    kind = cached_tokenizer(job.tokenizer, job.tokenizer_content).kind
    _write_page(place, stats, inputs, kind)
    show_corpus(console, details, place.file(PAGE), config.prepare.keep_keys)
    for warning in warnings_of(inputs):
        console.warn(warning)
    # Also in the folder, if an earlier run was killed while it published the result.
    side = {*side_files(place.unpublished), *side_files(place.folder)}
    extra = [*at_once(place.folder, place.record, (PAGE, *sorted(side)))]
    kept_keys = keys if has_keys else []
    return Made((*made, *extra, *origins, *kept_keys), details, stats=stats, content=content)


def restate(config: Config, place: StageFolder, console: Console) -> Made:
    """Return a finished corpus with the present weights and licences of its sources.

    Raises:
        StageError: stats.json is missing.
    """
    manifest = read_manifest(place.folder, "prepare")
    try:
        stats = read_stats(place.folder, manifest)
    except FileNotFoundError as error:
        raise StageError(
            f"{place.file(STATS)} is missing; make the corpus again with `biloom prepare --overwrite`"
        ) from error
    # The content does not depend on the other files, which describe the corpus and its input.
    made = [file for file in manifest.files if file.name.endswith(CONTENT)]
    sources = _sources(config, made)
    stats["sources"] = sources
    folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    kind = cached_tokenizer(folder, manifest.details["tokenizer"]).kind
    _write_page(place, stats, read_inputs(place.folder, manifest), kind)
    kept = [file for file in manifest.files if not file.name.endswith((PAGE, *CONTENT))]
    content = content_hash([*made, *_mixture(config, sources)])
    details = {**manifest.details, "sources": sources}
    return Made((*made, place.record(PAGE), *kept), details, stats=stats, content=content)


def _write_page(
    place: StageFolder, stats: dict[str, Any], inputs: Sequence[dict[str, Any]], kind: str
) -> None:
    page = corpus_page(stats, inputs, kind).encode("utf-8", "replace")
    storage.write_bytes(place.new_file(PAGE), page)


def _sources(config: Config, files: Sequence[FileRecord]) -> list[dict[str, Any]]:
    """Return the contents of each source, and its share of the training text."""
    sources = config.prepare.sources
    train = [_sums(files, split="train", source=source.name) for source in sources]
    sizes = [sums["tokens"] + sums["documents"] for sums in train]
    weights = [source.weight for source in sources]
    source_shares = shares(sizes, weights, config.prepare.sampling_alpha)
    return [
        {
            "name": source.name,
            "license": source.license,
            "share": share,
            "cleaning": config.prepare.cleaning_of(source).model_dump(),
            "filters": filters_without_paths(config.prepare.filters_of(source)),
            **_sums(files, source=source.name),
        }
        for source, share in zip(sources, source_shares, strict=True)
    ]


def _mixture(config: Config, sources: Sequence[dict[str, Any]]) -> list[FileRecord]:
    """Return the shares as a record for the content hash, unless they follow the sources' sizes.

    Training mixes the sources by their shares, so another mixture is another corpus.
    """
    if has_natural_shares(
        [source.weight for source in config.prepare.sources], config.prepare.sampling_alpha
    ):
        return []
    table = json.dumps([[source["name"], source["share"]] for source in sources])
    return [FileRecord("shares", len(table), xxhash.xxh3_128_hexdigest(table.encode()))]


def _copies(job: Job) -> dict[str, int]:
    return _by_number(read_copies(job.work, "hashes", job.layout("hashes")))


def _by_number(bins: Mapping[Any, int]) -> dict[str, int]:
    return {str(least): bins[least] for least in sorted(bins, key=float)}


def _sums(files: Sequence[FileRecord], **columns: str) -> dict[str, int]:
    chosen = [file.counts for file in files if columns.items() <= file.counts.items()]
    return {key: sum(int(counts[key]) for counts in chosen) for key in SUMS}


def _nothing_left(config: Config, read: int, dropped: Counter[str], why: str) -> StageError:
    paths = ", ".join(path for source in config.prepare.sources for path in source.paths)
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(dropped.items()))
    return StageError(
        f"{one_line(paths)}: all {read:,} documents were dropped ({reasons})"
        f"{why or '; check the text'}"
    )
