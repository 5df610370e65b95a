"""The embed stage: model folder and text -> a new vector cache, or more texts in a finished one."""

import json
from dataclasses import dataclass
from typing import Any

from lightning_modules.config import ModelConfig
from lightning_modules.vectors.embedding import EmbedJob
from lightning_modules.vectors.gradients import needs_head
from lightning_modules.vectors.selection import Selection, SelectionError
from pipeline.beam.job import run_job
from pipeline.beam.transforms import EmbedTexts
from pipeline.config.former_keys import in_present_terms
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.inputs import list_inputs, stage_folder
from pipeline.lifecycle.registry import MODEL, STAGES
from pipeline.lifecycle.stage import Made, StageError, StageFolder
from pipeline.lifecycle.state import request_of
from pipeline.phases import CHECKING, COLLECTING, phase
from pipeline.stages.embedded_records import EARLIER, Sums, entries_of
from pipeline.stages.embedded_sample import draw_sample
from pipeline.training.device import with_a_worker_per_gpu
from preprocess.config import Source
from preprocess.corpus.dedup import key_buckets
from preprocess.corpus.rejects import PREFIX, side_files
from preprocess.files import storage
from preprocess.files.fingerprint import differing_keys
from preprocess.files.manifest import NAME, FileRecord, content_hash, read_manifest, recorded
from preprocess.reading.changed_inputs import warnings_of, write_inputs
from preprocess.reading.kinds.missing_text import why_no_text
from preprocess.reading.plan_file import write_plan
from preprocess.reading.reader import Limits
from preprocess.reading.units import Unit, plan_units
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.sample import unit_bytes
from preprocess.tokenizers.segmentation.segmenters import SEGMENTERS
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.files import shards_of
from preprocess.vectors.index import write_index
from preprocess.work.damage import check_made
from preprocess.work.folder import (
    read_record,
    sample_inputs_file,
)
from preprocess.work.records import check_sealed, seal

EFFORT = 100
"""Embedding a byte takes at least this many times as long as tokenising it."""

SMALLEST_UNIT, LARGEST_UNIT, MOST_UNITS = 1 << 16, 1 << 20, 4096
"""Limits of a unit in bytes, and of the number of units, after which units grow."""


@dataclass(frozen=True)
class _Finished:
    """A finished cache that is to be extended, or to be made again for a model that was trained further.

    Attributes:
        cache: the cache.
        is_kept: True if the vectors are kept, because the present model made them.
        has_other_texts: True if the cache has texts that are not in the present input, so that they
            must be read from the cache.
        held: requests of the earlier results whose texts the new cache will have, each with the
            present model. Version 0.1 recorded a request as its fingerprint.
    """

    cache: VectorCache
    is_kept: bool
    has_other_texts: bool
    held: list[Any]

    @classmethod
    def of(cls, config: Config, place: StageFolder) -> "_Finished | None":
        if not storage.exists(place.file(NAME)):
            return None
        cache = VectorCache.open(place.folder)
        request = request_of(STAGES["embed"], config)
        details, asked = cache.manifest.details, cache.manifest.asked
        if details["model"] == request[MODEL]:
            return cls(cache, True, False, [*details.get("held", ()), asked])
        # In the terms in which they were made: to translate a request, the one that it is compared
        # with must be known, which may name other texts than this one.
        held = [
            {**one, MODEL: request[MODEL]}
            for one in (*details.get("held", ()), asked)
            if isinstance(one, dict)
        ]
        others = [one for one in held if differing_keys(in_present_terms(one, request), request)]
        return cls(cache, False, bool(others), others)


def _earlier(cache: VectorCache, place: StageFolder) -> Source:
    """Write the texts of a cache to a file, and return it as a source."""
    path = storage.join(place.work, EARLIER)
    if storage.exists(path):
        check_sealed(path)
    else:
        with storage.atomic_writer(path) as file:
            for text in cache:
                line = json.dumps({"text": text if isinstance(text, str) else " ".join(text)})
                file.write(f"{line}\n".encode())
        seal(path)
    return Source(name="earlier", path=path, format="jsonl")


def make(config: Config, place: StageFolder, console: Console) -> Made:
    """Run the Beam job that embeds each distinct text, and write the index of the cache.

    A finished cache is extended if its model is the present one. If its model was trained further,
    all its texts are embedded again.

    Raises:
        StageError: there is no text to embed.
        UserError: the model, the input or the engine cannot be used.
    """
    finished = _Finished.of(config, place)
    sources = config.embed.sources or (draw_sample(config, place, console),)
    if finished and finished.has_other_texts:
        sources = (_earlier(finished.cache, place), *sources)
    _, listed, left_out = list_inputs(sources, console)
    units = plan_units(sources, listed, _unit_bytes(sum(f.bytes for fs in listed for f in fs)))
    total = sum(map(unit_bytes, units))
    job = _job(config, place, sources, units, finished)
    write_plan(place.work, units)
    runner, steps = with_a_worker_per_gpu(config.runner, job.device), EmbedTexts(job)
    run_job(runner, place.work, console, "embed", total, len(units), steps, EFFORT)
    with phase(COLLECTING, "units", len(units)) as collected:
        sums = Sums.of(place.work, len(units), collected.add)
    if finished and finished.is_kept:
        sums.precisions |= {*finished.cache.manifest.details.get("precision", ())}
    if not sums.entries and not (finished and finished.is_kept):
        raise StageError(f"no text to embed; check embed.input{why_no_text(units, sources)}")
    if sums.read != sums.entries + sums.repeated + sums.known + sums.dropped.total():
        raise StageError(
            f"{place.folder}: {sums.read:,} texts read, but {sums.entries:,} embedded, "
            f"{sums.repeated:,} repeated, {sums.known:,} known and {sums.dropped.total():,} dropped; "
            "this is a bug in biloom, please report it"
        )
    _show(console, sums)
    for warning in warnings_of(sums.inputs):
        console.warn(warning)
    return _made(config, place, job, finished, sums, left_out)


def _unit_bytes(total: int) -> int:
    """Return the bytes per unit: small enough for many workers, without too many units."""
    return max(SMALLEST_UNIT, min(LARGEST_UNIT, total // 16), total // MOST_UNITS)


def _job(
    config: Config,
    place: StageFolder,
    sources: tuple[Source, ...],
    units: list[Unit],
    finished: "_Finished | None",
) -> EmbedJob:
    embed = config.embed
    model = stage_folder(config, "export", embed.model)
    manifest = read_manifest(model, "export")
    selection = Selection(
        *(embed.layers, embed.unit, embed.chosen_pooling, embed.mix),
        segmenter=embed.segmenter,
        kind=embed.kind,
        path=embed.path,
    )
    layers = recorded(ModelConfig, manifest.details, "model").recurrent.layers
    selection.check(layers + 1)
    if embed.kind == "gradient" and not manifest.details.get("head", True):
        raise SelectionError(f"embed.{needs_head(layers)}")
    return EmbedJob(
        work=place.work,
        output=place.unpublished,
        known=place.folder if finished and finished.is_kept else "",
        sources=sources,
        cleaning=recorded(CleaningConfig, manifest.details, "cleaning"),
        model=model,
        model_content=manifest.content,
        selection=selection,
        words=embed.words,
        warm_up=embed.warm_up,
        dtype=embed.dtype,
        texts=embed.texts,
        batch_tokens=embed.batch_tokens,
        buckets=key_buckets(sum(map(unit_bytes, units))),
        units=len(units),
        device=config.embed.device or config.train.device,
        limits=Limits.of(config.prepare),
        first_unit=finished.cache.shards[-1][0] + 1 if finished else 0,
        precision=embed.precision,
        compiled=embed.compile == "on",
    )


def _made(
    config: Config,
    place: StageFolder,
    job: EmbedJob,
    finished: "_Finished | None",
    sums: Sums,
    left_out: dict[str, int],
) -> Made:
    files, generation = list(sums.files), 0
    with phase(CHECKING, "files", len(files)) as checked:
        for file in files:
            check_made(place.new_file(file.name), file)
            checked.add()
    # The index is made from all shards in one folder.
    place.publish(file.name for file in files)
    if finished:
        generation = finished.cache.generation + 1
        old = finished.cache.manifest.files
        files = [f for f in old if f.name.startswith(SHARDS) and finished.is_kept] + files
    shards = shards_of({file.name: file for file in files})
    with phase("writing the index"):
        files += write_index(place.folder, shards, generation, place.unpublished, files)
    is_sample = config.embed.input is None
    inputs = read_record(sample_inputs_file(place.work)) if is_sample else sums.inputs
    keep = finished and (finished.is_kept or finished.has_other_texts)
    write_inputs(place.unpublished, inputs, before=place.folder if keep else None)
    rejects = _side_files(place, finished)
    model = recorded(ModelConfig, read_manifest(job.model, "export").details, "model")
    recurrent = model.recurrent
    width = recurrent.direction_width * model.direction_count
    layers, dim = job.selection.shape(recurrent.layers + 1, width)
    details = {
        "layers": layers,
        "dim": dim,
        "dtype": job.dtype,
        "unit": job.selection.unit,
        "model": job.model_content,
        "vectors": _settings(config),
        "texts_kept": job.texts,
        "texts": entries_of(files),
        "tokens": sum(int(file.counts.get("tokens", 0)) for file in files),
        "held": finished.held if finished else [],
        **({"left_out": left_out} if left_out else {}),
        **({"precision": sorted(sums.precisions)} if config.embed.precision != "float32" else {}),
    }
    stats = {
        **details,
        "read": sums.read,
        "repeated": sums.repeated,
        "known": sums.known,
        "truncated_words": sums.truncated,
        "texts_without_spaces": sums.unspaced,
        "dropped": dict(sums.dropped),
    }
    return Made((*files, *rejects), details, stats=stats, content=content_hash(files))


def _side_files(place: StageFolder, finished: _Finished | None) -> list[FileRecord]:
    """Return the records of the files that describe the input of this and of earlier commands."""
    old = finished.cache.manifest.files if finished else ()
    kept = {file.name: file for file in old if file.name.startswith(PREFIX)}
    names = {*side_files(place.unpublished), *side_files(place.folder)} - kept.keys()
    return [*kept.values(), *(place.record(name) for name in sorted(names))]


SHARDS = ("entries-", "texts-", "vectors-")
"""Prefixes of the names of shard files."""


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that a reader of the cache needs to embed more text in the same way."""
    names = {"layers", "unit", "pooling", "mix", "words", "warm_up", "segmenter"}
    if config.embed.kind == "gradient":
        names |= {"kind", "path"}
    return config.embed.model_dump(include=names) | {"pooling": config.embed.chosen_pooling}


def _show(console: Console, sums: Sums) -> None:
    tokens = sum(int(file.counts.get("tokens", 0)) for file in sums.files)
    size = sum(file.bytes for file in sums.files)
    console.line(
        f"{sums.entries:,} texts, {count(tokens)} vectors per layer, {count(size)}B"
        + (f"; {sums.repeated:,} repeated texts are stored once" if sums.repeated else "")
        + (f"; {sums.known:,} were already in the cache" if sums.known else "")
    )
    if sums.truncated:
        console.warn(
            f"{sums.truncated:,} words are longer than model.input.max_characters and were truncated"
        )
    if sums.unspaced:
        console.warn(
            f"{sums.unspaced:,} of {sums.entries:,} texts have no spaces between words, so embed.unit=word "
            f"took whole sentences as words; set embed.segmenter ({', '.join(SEGMENTERS)})"
        )
    if len(sums.precisions) > 1:
        console.warn(
            "some vectors of the cache were computed with matrix products in bf16 and some in float32, and "
            "differ by up to a percent; set embed.precision to float32 or bf16 for the same every time"
        )
    elif len(sums.devices) > 1:
        console.warn(
            "some texts were embedded on the CPU and some on GPUs, whose vectors differ in the last "
            "digits; set embed.device to cpu or cuda for the same vectors every time"
        )
    if sums.dropped:
        reasons = ", ".join(f"{number:,} {why}" for why, number in sorted(sums.dropped.items()))
        console.warn(f"texts without vectors: {reasons}")
