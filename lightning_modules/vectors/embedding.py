"""The work of `biloom embed` on one unit of input: its texts become shards of the vector cache.

A unit is embedded in parts. A closed part is a finished shard, so a resumed job embeds only the texts
after the last closed part. While a window of texts is written, a GPU computes the next one.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, count, islice
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import torch

from lightning_modules.allocator import keep_memory
from lightning_modules.vectors.batches import BATCH_TOKENS, GPU_FACTOR, window_characters
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Embedding, Selection
from lightning_modules.vectors.worker_device import (
    DeviceName,
    Precision,
    matmul_dtype,
    worker_device,
)
from preprocess.config import Source
from preprocess.corpus.dedup import hash_keys, read_drops, write_keys
from preprocess.corpus.rejects import RejectsWriter
from preprocess.reading.changed_inputs import ranges_read
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import Unit
from preprocess.text.config import CleaningConfig
from preprocess.text.splits import hash_halves
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.shard import Text, VectorShardWriter, text_key
from preprocess.work import folder
from preprocess.work.progress import Progress
from preprocess.work.shuffle import Layout

PART_BYTES = 1 << 29
"""Approximate bytes of vectors after which a part is closed; a resumed job repeats at most one part."""
PART_CHARACTERS = 1_600_000
"""Characters of text after which a part is closed."""
CHARACTERS_A_VECTOR = 4
"""Assumed characters of text per vector; a wrong guess changes only the size of a part."""
SUMS = ("known", "truncated", "unspaced")
"""Counts of a part's record that are summed in the unit's record."""


@dataclass(frozen=True)
class EmbedJob:
    """Settings of an embed stage, as sent to every worker.

    Attributes:
        work: folder of unfinished work.
        output: folder to write shards to.
        sources: sources of the texts.
        cleaning: cleaning applied when a text is read. `BiLM` then applies the model's own cleaning.
        model: model folder.
        model_content: content hash of the model.
        selection: which vectors to store.
        words: whether to split each text into words at whitespace.
        warm_up: whether to start each text from the state after the model's warm-up text.
        dtype: format of the stored vectors.
        texts: whether to store the texts.
        batch_tokens: tokens per batch; None means a number for the kind of device.
        buckets: number of hash buckets for finding repeated texts.
        units: number of units.
        device: device of each worker, from `worker_device`.
        limits: limits of the reader.
        first_unit: shard number of unit 0; above 0 if a finished cache has shards already.
        known: folder of a finished cache whose texts are left out; empty if there is none.
        precision: dtype of matrix products.
        compiled: whether the recurrent cell is compiled.
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
    batch_tokens: int | None
    buckets: int
    units: int
    device: DeviceName
    limits: Limits = field(default_factory=Limits)
    first_unit: int = 0
    known: str = ""
    precision: Precision = "float32"
    compiled: bool = False

    @property
    def layout(self) -> Layout:
        """Layout of the keys of the texts."""
        return Layout(self.units, self.buckets)


class _Window(NamedTuple):
    """Texts that are embedded together."""

    texts: list[Text]
    end: int  # texts of the unit up to the end of the window
    known: int  # texts of the window that are left out because the cache has them


T = TypeVar("T")
_Embedded = Iterator[tuple[_Window, list[Embedding]]]


@lru_cache(maxsize=1)
def _model(
    path: str, content: str, device: str, products: torch.dtype | None, compiled: bool
) -> BiLM:
    if device == "cpu":
        # The order of summation depends on the number of threads; workers share the units instead.
        torch.set_num_threads(1)
    model = BiLM.from_pretrained(path).to(device)
    model.matmul_dtype = products
    if compiled:
        model.network.recurrent.compile_cell("on")
    return model


def hash_texts(job: EmbedJob, unit: Unit) -> int:
    """Write the hashes of a unit's texts, by which repeated texts are found; return the unit's index.

    A unit that has its record from an earlier run is skipped.
    """
    if not folder.is_done(job.work, folder.unit_record(job.work, unit.index)):
        keys = bytearray()
        dropped: Counter[str] = Counter()
        aside = RejectsWriter(job.output, job.first_unit + unit.index)
        progress = Progress(job.work, unit.index, "keys")
        source = job.sources[unit.source]
        reader = read_unit(unit, source, job.cleaning, job.limits, alive=progress.write)
        for block in reader:
            keys += _keys(_texts(job, block.documents))
            dropped.update(one.reason for one in block.rejected)
            aside.add_rejected(block.rejected)
        aside.flush()
        progress.write(final=True)
        # (texts, 2): text_key gives 16 bytes, the high half first.
        hashes = hash_halves(keys)
        write_keys(job.work, "hashes", unit.index, 0, hash_keys(hashes, 0), job.layout)
        record = {
            "read": len(hashes) + dropped.total(),
            "dropped": dropped,
            "inputs": ranges_read(unit, reader.read_so_far()),
        }
        folder.write_done(job.work, folder.unit_record(job.work, unit.index), record)
    return unit.index


def embed_unit(job: EmbedJob, unit: Unit) -> int:
    """Write the vectors of a unit's texts as shards; return the unit's index.

    A text that repeats an earlier one of the input, or that a finished cache already has, is left
    out. A closed part of an earlier run is kept. A finished unit is skipped.
    """
    if folder.is_done(job.work, folder.finished_record(job.work, unit.index)):
        return unit.index
    repeated = set(read_drops(job.work, "hashes", unit.index, job.layout).tolist())
    progress = Progress(job.work, unit.index)
    parts = list(_closed_parts(job, unit))
    device = worker_device(job.device)
    products = matmul_dtype(job.precision, device)
    model = _model(job.model, job.model_content, device, products, job.compiled)
    shape = job.selection.shape(model.depth, model.dim)
    # Batches are planned within a window, so they depend on the unit and the kind of device only.
    factor = 1 if device == "cpu" else GPU_FACTOR
    most = window_characters(*shape, factor)
    windows = _windows(job, unit, repeated, parts[-1]["end"] if parts else 0, most, progress)
    total = sum(piece.end - piece.start for piece in unit.ranges)
    for first in windows:
        if not first.texts:
            parts.append(
                {"end": first.end, "files": [], "known": first.known, "truncated": 0, "unspaced": 0}
            )
            break
        part = chain([first], islice(windows, _windows_a_part(most, *shape) - 1))
        with keep_memory(large=False):
            embedded = _embedded(job, model, part, factor * BATCH_TOKENS, progress)
            if device != "cpu":
                embedded = one_ahead(embedded)
            parts.append(_write_part(job, unit, len(parts), shape, embedded, progress, total))
        folder.write_done(
            job.work, folder.part_record(job.work, unit.index, len(parts) - 1), parts[-1]
        )
    progress.bytes = total
    progress.write(final=True)
    record = {
        "files": [file for part in parts for file in part["files"]],
        "duplicates": len(repeated),
        "device": device.partition(":")[0],
        "precision": "float32" if products is None else "bf16",
        # Parts of former versions have no "unspaced".
        **{name: sum(part.get(name, 0) for part in parts) for name in SUMS},
    }
    folder.write_done(job.work, folder.finished_record(job.work, unit.index), record)
    return unit.index


def _embedded(
    job: EmbedJob, model: BiLM, windows: Iterator[_Window], batch_tokens: int, progress: Progress
) -> _Embedded:
    """Yield each window and the vectors of its texts."""
    for window in windows:
        yield (
            window,
            model.embed_selection(
                window.texts,
                job.selection,
                job.batch_tokens or batch_tokens,
                job.warm_up,
                advance=lambda _: progress.write(),
            ),
        )


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items of an iterator. A thread computes the next item while one is used."""
    end = object()
    with ThreadPoolExecutor(1, "ahead") as thread:
        item = thread.submit(next, items, end)
        while (found := item.result()) is not end:
            item = thread.submit(next, items, end)
            yield cast(T, found)


def _write_part(
    job: EmbedJob,
    unit: Unit,
    number: int,
    shape: tuple[int, int],
    embedded: _Embedded,
    progress: Progress,
    total: int,
) -> dict[str, Any]:
    """Write embedded windows into one shard; return the record of the closed part."""
    name = (job.first_unit + unit.index, number)
    end = known = truncated = unspaced = 0
    with VectorShardWriter(job.output, name, *shape, job.dtype, job.texts) as shard:
        for window, embeddings in embedded:
            for text, embedding in zip(window.texts, embeddings, strict=True):
                spellings = [token.spelling for token in embedding.tokens]
                shard.add(text, spellings, embedding.vectors)
                progress.tokens += len(embedding.tokens)
                truncated += embedding.truncated
                unspaced += embedding.lacks_spaces
            end, known = window.end, known + window.known
            progress.documents += len(window.texts)
            progress.bytes = min(progress.bytes + sum(map(_bytes, window.texts)), total)
            progress.write()
        files = [vars(record) for record in shard.close()]
    return {
        "end": end,
        "files": files,
        "known": known,
        "truncated": truncated,
        "unspaced": unspaced,
    }


def _bytes(text: Text) -> int:
    joined = text if isinstance(text, str) else " ".join(text)
    return len(joined.encode("utf-8", "surrogatepass")) + 1


def _windows_a_part(window: int, layers: int, dim: int) -> int:
    """Return the number of windows of ``window`` characters in a part."""
    bytes_a_character = layers * dim * 2 / CHARACTERS_A_VECTOR
    return max(1, int(min(PART_CHARACTERS, PART_BYTES / bytes_a_character) / window))


def _closed_parts(job: EmbedJob, unit: Unit) -> Iterator[dict[str, Any]]:
    """Yield the records of the parts that an earlier run closed, in order."""
    for part in count():
        try:
            record = folder.read_done(job.work, folder.part_record(job.work, unit.index, part))
        except FileNotFoundError:
            return
        yield record


def _texts(job: EmbedJob, texts: list[str]) -> list[Text]:
    return [text.split() for text in texts] if job.words else list(texts)


def _keys(texts: list[Text]) -> bytes:
    return b"".join(map(text_key, texts))


@lru_cache(maxsize=1)
def _finished_cache(folder: str, model_content: str) -> VectorCache:
    return VectorCache.open(folder, model_content)


def _windows(
    job: EmbedJob, unit: Unit, repeated: set[int], begin: int, most: int, progress: Progress
) -> Iterator[_Window]:
    """Yield the texts of a unit that are to be embedded.

    Args:
        job: the job.
        unit: the unit.
        repeated: indices of texts that occurred before.
        begin: index of the first text to yield.
        most: number of characters, or of texts, at which a window ends.
        progress: written while texts are read, because many may be passed over.
    """
    texts: list[Text] = []
    characters = end = known = 0
    source = job.sources[unit.source]
    for block in read_unit(unit, source, job.cleaning, job.limits, alive=progress.write):
        read = _texts(job, block.documents)
        in_cache = np.zeros(len(read), bool)
        if job.known and read:
            in_cache = _finished_cache(job.known, job.model_content).has(_keys(read))
        for text, document, is_known in zip(read, block.documents, in_cache.tolist(), strict=True):
            end += 1
            if end <= begin or end - 1 in repeated:
                continue
            known += is_known
            if not is_known:
                texts.append(text)
                characters += len(document)
            if characters >= most or len(texts) >= most:
                yield _Window(texts, end, known)
                texts, characters, known = [], 0, 0
    if texts or known:
        yield _Window(texts, end, known)
