"""The one dear pass over the text: read, clean, hash and tokenise a unit, streaming.

It writes the unit's tokens in parts closed at a document's end, its hashes for deduplication, and
last a done-record: a rerun skips a unit that has one. Memory is bounded by the part.
"""

import io
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.config import SPLITS, PrepareConfig
from preprocess.dedup import content_hash, split_of, write_hashes
from preprocess.documents import Rejected, read_unit
from preprocess.normalize import Cleaner
from preprocess.progress import Progress
from preprocess.storage import exists, join, read_bytes, write_bytes
from preprocess.token_shard import DOCUMENT, token_dtype
from preprocess.tokenizer import Ids, Tokenizer, cached_tokenizer
from preprocess.units import Unit

KEPT_ASIDE = "dropped-"
ENCODE_BATCH = 256
"""Documents a call of the tokenizer: more gain nothing, one by one halves the speed."""


@dataclass(frozen=True)
class Job:
    """What every worker must know to prepare a unit."""

    work: str
    output: str
    config: PrepareConfig
    tokenizer: str
    tokenizer_content: str
    vocabulary: int
    buckets: int


class _Part:
    """The documents of one split since its last part was closed."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.closed: list[str] = []
        self.documents: list[Ids] = []
        self._dtype = dtype
        self._clear()

    def _clear(self) -> None:
        self.rows = array("I")
        """The fields of ``DOCUMENT``, document after document."""
        self.tokens = 0
        self._packed: list[npt.NDArray[Any]] = []

    def pack(self) -> None:
        """Keep the tokens of ``documents`` in one array: an array a document takes more than they."""
        if self.documents:
            # Ids are below the vocabulary, so none is cut by the unsigned type.
            packed = np.concatenate(self.documents, dtype=self._dtype, casting="unsafe")
            self._packed.append(packed)
            self.documents.clear()

    def close(self, folder: str, name: str) -> None:
        """Write the part under ``name`` and begin the next."""
        self.pack()
        write_bytes(join(folder, f"{name}.bin"), np.concatenate(self._packed).tobytes())
        table = io.BytesIO()
        np.save(table, np.array(self.rows, "<u4").view(DOCUMENT))
        write_bytes(join(folder, f"{name}.npy"), table.getvalue())
        self.closed.append(name)
        self._clear()


def done_record(work: str, unit: int) -> str:
    return join(work, "units", f"{unit:06d}.json")


def read_done(work: str, unit: int) -> dict[str, Any]:
    """The counts, parts, hash bounds and raw ranges of a unit that is through the first pass."""
    record: dict[str, Any] = json.loads(read_bytes(done_record(work, unit)))
    return record


def tokenize_unit(job: Job, unit: Unit) -> int:
    """Take ``unit`` through the first pass unless its done-record is there; returns its index.

    Raises:
        DamagedFile: a raw file cannot be read to its end.
    """
    if exists(done_record(job.work, unit.index)):
        return unit.index
    config = job.config
    source = config.sources[unit.source]
    tokenizer = cached_tokenizer(job.tokenizer, job.tokenizer_content)
    parts = {split: _Part(token_dtype(job.vocabulary)) for split in SPLITS}
    folder = join(job.work, "parts")
    hashes: list[int] = []
    dropped: list[Rejected] = []
    drops: Counter[str] = Counter()
    replaced = 0
    progress = Progress(job.work, unit.index)
    cleaner = Cleaner(config.cleaning)
    # Then words stand one space apart, and counting is cheaper than splitting.
    collapsed = config.cleaning.whitespace == "collapse"
    reader = read_unit(unit, source, config.cleaning)
    for block in reader:
        dropped.extend(block.rejected)
        drops.update(rejected.reason for rejected in block.rejected)
        replaced += block.replaced
        texts = cleaner.clean_batch(block.documents)
        if config.drop_empty:
            kept = [text for text in texts if text]
            drops["empty"] += len(texts) - len(kept)
            texts = kept
        for batch in _encode(tokenizer, texts):
            for text, ids in batch:
                data = text.encode()
                content = content_hash(data)
                split = source.split or split_of(
                    content, config.valid_fraction, config.test_fraction
                )
                part = parts[split]
                part.documents.append(ids)
                words = text.count(" ") + 1 if collapsed and text else len(text.split())
                part.rows.extend((len(hashes), len(ids), words, len(text), len(data)))
                part.tokens += len(ids)
                hashes.append(content)
                if part.tokens >= config.part_tokens:
                    part.close(folder, f"{split}-{unit.index:06d}-{len(part.closed):03d}")
                progress.tokens += len(ids)
            for part in parts.values():
                part.pack()
            progress.documents = len(hashes)
            progress.tell()
        progress.bytes += block.raw_bytes
        progress.tell()
    for split, part in parts.items():
        if part.rows:
            part.close(folder, f"{split}-{unit.index:06d}-{len(part.closed):03d}")
    record = {
        "read": len(hashes) + sum(drops.values()),
        "dropped": {reason: count for reason, count in sorted(drops.items()) if count},
        "replaced": replaced,
        "parts": {split: part.closed for split, part in parts.items()},
        "bounds": write_hashes(job.work, unit.index, hashes, job.buckets),
        "inputs": ranges_read(unit, reader.digests),
    }
    keep_aside(job.output, unit.index, dropped)
    progress.tell(final=True)
    write_bytes(done_record(job.work, unit.index), json.dumps(record).encode())
    return unit.index


def ranges_read(unit: Unit, digests: Sequence[str]) -> list[dict[str, Any]]:
    """What a done-record says of the raw bytes behind it: a row a range."""
    return [
        {"name": r.name, "start": r.start, "end": r.end, "version": r.version, "xxh128": digest}
        for r, digest in zip(unit.ranges, digests, strict=True)
    ]


def keep_aside(folder: str, unit: int, rejected: Sequence[Rejected]) -> None:
    """Write what was no document to ``dropped-NNNNNN.jsonl``, with reason and place."""
    if rejected:
        lines = "".join(json.dumps(vars(one)) + "\n" for one in rejected)
        write_bytes(join(folder, f"{KEPT_ASIDE}{unit:06d}.jsonl"), lines.encode())


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Iterator[Iterator[tuple[str, Ids]]]:
    for start in range(0, len(texts), ENCODE_BATCH):
        batch = texts[start : start + ENCODE_BATCH]
        yield zip(batch, tokenizer.encode(batch), strict=True)
