"""A unit of text -> one shard of the vector cache."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch

from lightning_modules.pretrained import BiLM
from preprocess.config import CleaningConfig, Source
from preprocess.dedup import halves, hash_keys, read_drops, write_keys
from preprocess.documents import read_unit
from preprocess.first_pass import done_record, ranges_read
from preprocess.kept_aside import KeptAside
from preprocess.last_pass import finished_record
from preprocess.progress import Progress
from preprocess.storage import exists, write_bytes
from preprocess.units import Unit
from preprocess.vector_shard import VectorShardWriter, text_key

WINDOW_CHARACTERS = 200_000
"""Text embedded between two writes. Batches are planned within it, so they depend on the unit only."""


@dataclass(frozen=True)
class EmbedJob:
    """What every worker must know to embed a unit."""

    work: str
    output: str
    sources: tuple[Source, ...]
    cleaning: CleaningConfig
    model: str
    model_content: str
    dtype: Literal["float32", "float16"]
    batch_tokens: int
    buckets: int
    device: str


@lru_cache(maxsize=1)
def _model(path: str, content: str, device: str) -> BiLM:
    if device == "cpu":
        # Sums come out alike only for one number of threads: workers share the units instead.
        torch.set_num_threads(1)
    return BiLM.from_pretrained(path).to(device)


def hash_texts(job: EmbedJob, unit: Unit) -> int:
    """Write the keys of a unit's texts, so that each text is embedded once; returns its index."""
    if not exists(done_record(job.work, unit.index)):
        keys = bytearray()
        dropped: Counter[str] = Counter()
        aside = KeptAside(job.output, unit.index)
        reader = read_unit(unit, job.sources[unit.source], job.cleaning)
        for block in reader:
            keys += b"".join(map(text_key, block.documents))
            dropped.update(one.reason for one in block.rejected)
            aside.add_rejected(block.rejected)
        aside.flush()
        # (texts, 2): text_key gives 16 bytes, the high half first.
        hashes = halves(keys)
        write_keys(job.work, "hashes", unit.index, 0, hash_keys(hashes, 0), job.buckets)
        record = {
            "read": len(hashes) + dropped.total(),
            "dropped": dropped,
            "inputs": ranges_read(unit, reader.digests),
        }
        write_bytes(done_record(job.work, unit.index), json.dumps(record).encode())
    return unit.index


def embed_unit(job: EmbedJob, unit: Unit) -> int:
    """Embed the texts of ``unit`` that no text before repeats; returns its index."""
    if exists(finished_record(job.work, unit.index)):
        return unit.index
    model = _model(job.model, job.model_content, job.device)
    repeated = set(read_drops(job.work, "hashes", unit.index, job.buckets).tolist())
    progress = Progress(job.work, unit.index)
    total = sum(piece.end - piece.start for piece in unit.ranges)
    read = 0
    with VectorShardWriter(job.output, unit.index, model.depth, model.dim, job.dtype) as shard:
        for window in _windows(job, unit, repeated):
            for text, found in zip(window, model.embed(window, job.batch_tokens), strict=True):
                shard.add(text, [token.spelling for token in found.tokens], found.vectors)
                progress.tokens += len(found.tokens)
            progress.documents += len(window)
            read += sum(len(text.encode("utf-8", "surrogatepass")) + 1 for text in window)
            progress.bytes = min(read, total)
            progress.tell()
    progress.bytes = total
    progress.tell(final=True)
    files: list[dict[str, Any]] = [vars(record) for record in shard.close()]
    record = {"files": files, "duplicates": len(repeated)}
    write_bytes(finished_record(job.work, unit.index), json.dumps(record).encode())
    return unit.index


def _texts(job: EmbedJob, unit: Unit) -> Iterator[str]:
    for block in read_unit(unit, job.sources[unit.source], job.cleaning):
        yield from block.documents


def _windows(job: EmbedJob, unit: Unit, repeated: set[int]) -> Iterator[list[str]]:
    window: list[str] = []
    characters = 0
    for number, text in enumerate(_texts(job, unit)):
        if number in repeated:
            continue
        window.append(text)
        characters += len(text)
        if characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window
