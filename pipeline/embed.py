"""Stage: model folder + text -> vector cache."""

import json
from collections import Counter
from typing import Any

from lightning_modules.embedding import EmbedJob
from pipeline.beam_job import run_job
from pipeline.config import Config
from pipeline.console import Console, count
from pipeline.device import resolve_device
from pipeline.stage import Made, Place, StageError
from pipeline.stages import embed_sources, input_sources, stage_folder
from pipeline.transforms import EmbedTexts
from preprocess import storage
from preprocess.config import CleaningConfig, Source
from preprocess.corpus_sample import READ_BYTES, draw_documents, draw_units, unit_bytes
from preprocess.dedup import count_buckets
from preprocess.first_pass import read_done
from preprocess.last_pass import read_finished
from preprocess.manifest import FileRecord, content_hash, hash_file, read_manifest
from preprocess.raw_inputs import beside, write_inputs
from preprocess.sources import list_source
from preprocess.unit_plan import write_plan
from preprocess.units import plan_units
from preprocess.vector_shard import write_index


def make(config: Config, place: Place, console: Console) -> Made:
    sources = embed_sources(config) or (_sample(config, place, console),)
    units = plan_units(sources, [list_source(source) for source in sources], None)
    total = sum(map(unit_bytes, units))
    model = stage_folder(config, "export", config.embed.model)
    manifest = read_manifest(model, "export")
    job = EmbedJob(
        work=place.work,
        output=place.folder,
        sources=sources,
        cleaning=CleaningConfig.model_validate(manifest.details["cleaning"]),
        model=model,
        model_content=manifest.content,
        dtype=config.embed.dtype,
        batch_tokens=config.embed.batch_tokens,
        buckets=count_buckets(total),
        device=str(resolve_device(config.train.device)),
    )
    write_plan(place.work, units)
    steps = EmbedTexts(job, len(units))
    run_job(config.runner, place.work, console, "embed", total, len(units), steps)
    files: list[FileRecord] = []
    inputs: list[dict[str, Any]] = []
    read = duplicates = 0
    dropped: Counter[str] = Counter()
    for unit in units:
        done = read_done(place.work, unit.index)
        read += done["read"]
        dropped.update(done["dropped"])
        inputs += done["inputs"]
        finished = read_finished(place.work, unit.index)
        duplicates += finished["duplicates"]
        files += [FileRecord(**row) for row in finished["files"]]
    entries = sum(int(file.counts.get("entries", 0)) for file in files)
    if not entries:
        raise StageError("there is no text to embed; look at embed.input")
    if read != entries + duplicates + dropped.total():
        raise StageError(
            f"{place.folder}: {read:,} texts read, but {entries:,} embedded, {duplicates:,} "
            f"repeated and {dropped.total():,} dropped; this is a fault of biloom, please report it"
        )
    files.append(write_index(place.folder, [unit.index for unit in units]))
    if config.embed.input is not None:
        write_inputs(place.folder, inputs)
    tellers = [FileRecord(n, *hash_file(place.file(n))) for n in beside(place.folder)]
    depth = manifest.details["model"]["recurrent"]["layers"] + 1
    tokens = sum(int(file.counts.get("tokens", 0)) for file in files)
    size = sum(file.bytes for file in files)
    console.line(
        f"{entries:,} texts, {count(tokens)} tokens, {count(size)}B"
        + (f"; {duplicates:,} repeated texts are stored once" if duplicates else "")
    )
    if dropped:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(dropped.items()))
        console.warn(f"without vectors, since they hold no text that can be read: {reasons}")
    details = {
        "layers": depth,
        "dim": _dim(manifest.details["model"]["recurrent"]),
        "dtype": config.embed.dtype,
        "unit": "token",
        "model": manifest.content,
        "texts": entries,
        "tokens": tokens,
    }
    stats = {**details, "read": read, "repeated": duplicates, "dropped": dict(dropped)}
    return Made((*files, *tellers), details, stats=stats, content=content_hash(files))


def _dim(recurrent: dict[str, int]) -> int:
    return 2 * (recurrent["projection"] or recurrent["hidden"])


def _sample(config: Config, place: Place, console: Console) -> Source:
    """A file of documents drawn from the corpus by the seed, as given."""
    path = storage.join(place.work, "sample.jsonl")
    source = Source(name="sample", path=path, format="jsonl")
    if not storage.exists(path):
        sources, files = input_sources(config)
        units = plan_units(sources, files, config.prepare.unit_bytes)
        seed = config.embed.seed
        drawn = draw_units(units, READ_BYTES, seed)
        texts = draw_documents(drawn, config.prepare, config.embed.sample, seed)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        storage.write_bytes(path, lines.encode())
        console.line(f"a sample of {len(texts):,} of the corpus's documents")
    return source
