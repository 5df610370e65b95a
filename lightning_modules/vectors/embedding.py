"""A unit of text -> shards of the vector cache, in parts that a killed job keeps."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from lightning_modules.allocator import memory_kept
from lightning_modules.vectors.pretrained import BiLM, window_characters
from lightning_modules.vectors.selection import Selection
from preprocess.config import Source
from preprocess.corpus.dedup import hash_keys, read_drops, write_keys
from preprocess.corpus.rejects import KeptAside
from preprocess.files.storage import exists
from preprocess.reading.changed_inputs import ranges_read
from preprocess.reading.reader import read_unit
from preprocess.reading.units import Unit
from preprocess.text.config import CleaningConfig
from preprocess.text.splits import hash_halves
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.shard import Text, VectorShardWriter, text_key
from preprocess.work import folder
from preprocess.work.progress import Progress

PART_BYTES = 1 << 29
PART_CHARACTERS = 1_600_000
"""A part is closed after text of about so many bytes of vectors, and of so many characters at most: a
killed job does that much again."""
CHARACTERS_A_VECTOR = 4


@dataclass(frozen=True)
class EmbedJob:
    """What every worker must know to embed a unit.

    words: each text is a list of words, as its whitespace separates them; first_unit: number of the
    first unit's shards, above 0 where they are added to a finished cache in `output`.
    """

    work: str
    output: str
    sources: tuple[Source, ...]
    cleaning: CleaningConfig
    model: str
    model_content: str
    selection: Selection
    words: bool
    warm_up: bool
    dtype: Literal["float32", "float16", "int8"]
    texts: bool
    batch_tokens: int
    buckets: int
    device: str
    first_unit: int = 0


class _Window(NamedTuple):
    """Texts to embed; ``end``: texts of the unit up to here, ``known``: of these in the cache before."""

    texts: list[Text]
    end: int
    known: int


@lru_cache(maxsize=1)
def _model(path: str, content: str, device: str) -> BiLM:
    if device == "cpu":
        # Sums come out alike only for one number of threads: workers share the units instead.
        torch.set_num_threads(1)
    return BiLM.from_pretrained(path).to(device)


def hash_texts(job: EmbedJob, unit: Unit) -> int:
    """Write the keys of a unit's texts, so that each text is embedded once; returns its index."""
    if not exists(folder.unit_record(job.work, unit.index)):
        keys = bytearray()
        dropped: Counter[str] = Counter()
        aside = KeptAside(job.output, job.first_unit + unit.index)
        reader = read_unit(unit, job.sources[unit.source], job.cleaning)
        for block in reader:
            keys += _keys(_as_asked(job, block.documents))
            dropped.update(one.reason for one in block.rejected)
            aside.add_rejected(block.rejected)
        aside.flush()
        # (texts, 2): text_key gives 16 bytes, the high half first.
        hashes = hash_halves(keys)
        write_keys(job.work, "hashes", unit.index, 0, hash_keys(hashes, 0), job.buckets)
        record = {
            "read": len(hashes) + dropped.total(),
            "dropped": dropped,
            "inputs": ranges_read(unit, reader.digests),
        }
        folder.write_record(folder.unit_record(job.work, unit.index), record)
    return unit.index


def embed_unit(job: EmbedJob, unit: Unit) -> int:
    """Embed the texts of ``unit`` that no text before repeats; returns its index."""
    if exists(folder.finished_record(job.work, unit.index)):
        return unit.index
    repeated = set(read_drops(job.work, "hashes", unit.index, job.buckets).tolist())
    progress = Progress(job.work, unit.index)
    parts = list(_closed_parts(job, unit))
    model = _model(job.model, job.model_content, job.device)
    shape = job.selection.shape(model.depth, model.dim)
    # Batches are planned within a window, so they depend on the unit only.
    most = window_characters(*shape)
    windows = _windows(job, unit, repeated, parts[-1]["end"] if parts else 0, most)
    total = sum(piece.end - piece.start for piece in unit.ranges)
    for first in windows:
        if not first.texts:
            parts.append({"end": first.end, "files": [], "known": first.known, "truncated": 0})
            break
        some = chain([first], islice(windows, _windows_a_part(most, *shape) - 1))
        with memory_kept(large=False):
            parts.append(_embed_part(job, unit, len(parts), model, some, progress, total))
        folder.write_record(folder.part_record(job.work, unit.index, len(parts) - 1), parts[-1])
    progress.bytes = total
    progress.tell(final=True)
    record = {
        "files": [file for part in parts for file in part["files"]],
        "duplicates": len(repeated),
        **{name: sum(part[name] for part in parts) for name in ("known", "truncated")},
    }
    folder.write_record(folder.finished_record(job.work, unit.index), record)
    return unit.index


def _embed_part(
    job: EmbedJob,
    unit: Unit,
    number: int,
    model: BiLM,
    windows: Iterator[_Window],
    progress: Progress,
    total: int,
) -> dict[str, Any]:
    """One shard; what is known of the part when it is closed."""
    shape = job.selection.shape(model.depth, model.dim)
    name = (job.first_unit + unit.index, number)
    end = known = truncated = 0
    with VectorShardWriter(job.output, name, *shape, job.dtype, job.texts) as shard:
        for window in windows:
            found = model.embed_selection(
                window.texts, job.selection, job.batch_tokens, job.warm_up
            )
            for text, embedding in zip(window.texts, found, strict=True):
                spellings = [token.spelling for token in embedding.tokens]
                shard.add(text, spellings, embedding.vectors)
                progress.tokens += len(embedding.tokens)
                truncated += embedding.truncated
            end, known = window.end, known + window.known
            progress.documents += len(window.texts)
            progress.bytes = min(progress.bytes + sum(map(_bytes, window.texts)), total)
            progress.tell()
        files = [vars(record) for record in shard.close()]
    return {"end": end, "files": files, "known": known, "truncated": truncated}


def _bytes(text: Text) -> int:
    joined = text if isinstance(text, str) else " ".join(text)
    return len(joined.encode("utf-8", "surrogatepass")) + 1


def _windows_a_part(window: int, layers: int, dim: int) -> int:
    """window: characters."""
    a_character = layers * dim * 2 / CHARACTERS_A_VECTOR
    return max(1, int(min(PART_CHARACTERS, PART_BYTES / a_character) / window))


def _closed_parts(job: EmbedJob, unit: Unit) -> Iterator[dict[str, Any]]:
    """What a former run has written for good, in order."""
    part = 0
    while exists(path := folder.part_record(job.work, unit.index, part)):
        yield folder.read_record(path)
        part += 1


def _as_asked(job: EmbedJob, texts: list[str]) -> list[Text]:
    return [text.split() for text in texts] if job.words else list(texts)


def _keys(texts: list[Text]) -> bytes:
    return b"".join(map(text_key, texts))


@lru_cache(maxsize=1)
def _former(folder: str, model_content: str) -> VectorCache:
    return VectorCache.open(folder, model_content)


def _windows(
    job: EmbedJob, unit: Unit, repeated: set[int], begin: int, most: int
) -> Iterator[_Window]:
    """The texts of a unit from the one with the number ``begin`` on that are to be embedded."""
    texts: list[Text] = []
    characters = number = known = 0
    for block in read_unit(unit, job.sources[unit.source], job.cleaning):
        asked = _as_asked(job, block.documents)
        held = np.zeros(len(asked), bool)
        if job.first_unit and asked:
            held = _former(job.output, job.model_content).has(_keys(asked))
        for text, as_read, in_cache in zip(asked, block.documents, held.tolist(), strict=True):
            number += 1
            if number <= begin or number - 1 in repeated:
                continue
            known += in_cache
            if not in_cache:
                texts.append(text)
                characters += len(as_read)
            if characters >= most or len(texts) >= most:
                yield _Window(texts, number, known)
                texts, characters, known = [], 0, 0
    if texts or known:
        yield _Window(texts, number, known)
