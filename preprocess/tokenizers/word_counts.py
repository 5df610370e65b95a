"""The word types of a corpus by count, through files: memory does not grow with their number.

A unit's counts are written grouped by bucket (a range of the words' hashes), several times where
its types are many. A bucket sums up its slice of every unit and writes its words in their final
order; merging the buckets gives the vocabulary. All documents count that cleaning and filters leave:
which are duplicates is known only later, and `counts.npy` of the corpus then holds the true counts.
"""

import heapq
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from preprocess.config import PrepareConfig
from preprocess.files.storage import atomic_writer, exists, open_read
from preprocess.reading.units import Unit
from preprocess.text.config import SPLITS
from preprocess.text.splits import hash_halves, splits_of, text_hashes
from preprocess.tokenizers.sample import read_kept
from preprocess.tokenizers.vocabulary import hash_word
from preprocess.work import folder
from preprocess.work.progress import Progress
from preprocess.work.shuffle import Shuffle

TYPES_HELD = 500_000
"""Types of a unit counted in memory, some 80 MB, before they are written."""

BUCKET_BYTES = 4 << 20
"""Raw text a bucket stands for, up to `MOST_BUCKETS`: some 400,000 types at the very most."""
MOST_BUCKETS = 256

BLOCK_WORDS = 2048
"""Words of a bucket read at once when buckets are merged: all of them are open together."""

Row = tuple[int, int, bytes]
"""-(count in train), -(count in held-out text) or 0 where train has the word, the word in UTF-8:
rows sort in the order of ids."""


@dataclass(frozen=True)
class CountJob:
    """What every worker must know to count words."""

    work: str
    config: PrepareConfig
    min_count: int
    buckets: int
    units: int


def word_buckets(corpus_bytes: int) -> int:
    """Buckets for a corpus of that many raw bytes: by size alone, so every rerun agrees."""
    return min(MOST_BUCKETS, max(1, -(-corpus_bytes // BUCKET_BYTES)))


def count_unit(job: CountJob, unit: Unit) -> int:
    """Count the words of ``unit`` unless its record is there; returns its index."""
    if exists(folder.word_record(job.work, unit.index)):
        return unit.index
    config = job.config
    source = config.sources[unit.source]
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    spills = 0
    sizes = {"documents": 0, "bytes": 0}
    progress = Progress(job.work, unit.index)
    for block in read_kept(unit, source, config):
        data = [text.encode() for text in block.texts]
        high = hash_halves(text_hashes(data))[:, 0]
        splits = splits_of(high, config.valid_fraction, config.test_fraction, source.split)
        held_out = splits != SPLITS.index("train")
        for train, own in ((True, np.flatnonzero(~held_out)), (False, np.flatnonzero(held_out))):
            # One call a block: a call a text costs as much as its counting.
            words = "\n".join([block.texts[n] for n in own.tolist()]).split()
            counts[train].update(words)
            progress.tokens += len(words)
        sizes["documents"] += int(np.count_nonzero(~held_out))
        sizes["bytes"] += sum(len(one) for one, out in zip(data, held_out, strict=True) if not out)
        if sum(map(len, counts.values())) >= TYPES_HELD:
            _spill(job, unit.index, spills, counts)
            spills += 1
        progress.documents += len(block.texts)
        progress.bytes += block.raw_bytes
        progress.tell()
    _spill(job, unit.index, spills, counts)
    progress.tell(final=True)
    folder.write_record(folder.word_record(job.work, unit.index), sizes)
    return unit.index


def read_counted(job: CountJob) -> dict[str, int]:
    """Documents and bytes of the train split, of all units together."""
    sums: Counter[str] = Counter({"documents": 0, "bytes": 0})
    for unit in range(job.units):
        sums.update(folder.read_record(folder.word_record(job.work, unit)))
    return dict(sums)


def merge_bucket(job: CountJob, bucket: int) -> int:
    """Sum up a bucket over all units and write its words in order; returns its number."""
    target = folder.sorted_words(job.work, bucket)
    if exists(target):
        return bucket
    train: Counter[bytes] = Counter()
    held_out: Counter[bytes] = Counter()
    for _, data in _shuffle(job.work).read(bucket):
        for in_train, elsewhere, word in _read_block(io.BytesIO(data)):
            if in_train:
                train[word] += in_train
            if elsewhere:
                held_out[word] += elsewhere
    rows = [(-n, 0, word) for word, n in train.items() if n >= job.min_count]
    if job.min_count == 1:
        rows += [(0, -n, word) for word, n in held_out.items() if word not in train]
    rows.sort()
    # What is merged counts as progress too.
    progress = Progress(job.work, job.units + bucket)
    progress.tokens = len(rows)
    progress.tell(final=True)
    with atomic_writer(target) as file:
        for start in range(0, len(rows), BLOCK_WORDS):
            part = rows[start : start + BLOCK_WORDS]
            file.write(_block([(-n, -m, word) for n, m, word in part]))
    return bucket


def merged_words(job: CountJob) -> Iterator[bytes]:
    """All words in the order of their ids."""
    rows = heapq.merge(
        *(_read_run(folder.sorted_words(job.work, bucket)) for bucket in range(job.buckets))
    )
    return (word for _, _, word in rows)


def _spill(job: CountJob, unit: int, number: int, counts: dict[bool, Counter[str]]) -> None:
    """Write ``counts`` by bucket and clear them."""
    train, held_out = counts[True], counts[False]
    by_bucket: list[list[tuple[bytes, int, int]]] = [[] for _ in range(job.buckets)]
    for word in train.keys() | held_out.keys():
        spelt = word.encode()
        # A bucket is a range of hashes, in whole numbers: of 64 bits, whatever their number.
        own = by_bucket[hash_word(spelt) * job.buckets >> 64]
        own.append((spelt, train.get(word, 0), held_out.get(word, 0)))
    data, bounds = bytearray(), [0]
    for words in by_bucket:
        data += _block([(n, m, spelt) for spelt, n, m in words]) if words else b""
        bounds.append(len(data))
    _shuffle(job.work).write(unit, number, bytes(data), bounds)
    train.clear()
    held_out.clear()


def _block(rows: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Rows packed: their number and the words' bytes, both u8; counts u8 x 2 n; lengths u4 x n; words."""
    counts = np.array([row[:2] for row in rows], "<u8")
    words = [row[2] for row in rows]
    blob = b"".join(words)
    head = np.array([len(rows), len(blob)], "<u8")
    lengths = np.array([len(word) for word in words], "<u4")
    return head.tobytes() + counts.tobytes() + lengths.tobytes() + blob


def _read_block(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    head = file.read(16)
    if head:
        number, size = np.frombuffer(head, "<u8").tolist()
        counts: npt.NDArray[Any] = np.frombuffer(file.read(16 * number), "<u8").reshape(-1, 2)
        lengths = np.frombuffer(file.read(4 * number), "<u4")
        blob = file.read(size)
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        begins = [0, *ends]
        train, held_out = counts.T.tolist()
        for n, m, begin, end in zip(train, held_out, begins, ends, strict=False):
            yield n, m, blob[begin:end]


def _read_run(path: str) -> Iterator[Row]:
    with open_read(path) as file:
        while rows := list(_read_block(file)):
            yield from ((-n, -m, word) for n, m, word in rows)


def _shuffle(work: str) -> Shuffle:
    return Shuffle(folder.shuffle_folder(work, "word-counts"))
