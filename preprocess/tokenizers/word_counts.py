"""Word counts of a corpus, merged through files so that memory does not grow with the vocabulary.

1. `count_unit` counts the words of a unit of work and writes the counts grouped by bucket, which is a
   range of word hashes. It writes them in several parts if the unit has many types (distinct words).
2. `merge_run` merges the counts of many units, a run (`preprocess.work.shuffle`).
3. `merge_bucket` sums the counts of a bucket over all runs and writes its words in id order.
4. `merged_words` merges the buckets into the vocabulary.

Words of duplicate documents are counted too, because duplicates are known only after prepare. The
file ``counts.npy`` of the corpus has the counts without duplicates.
"""

import heapq
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess.config import PrepareConfig
from preprocess.files.bulk.at_once import at_once
from preprocess.files.storage import atomic_writer, exists, open_read
from preprocess.reading.units import Unit
from preprocess.text.config import SPLITS
from preprocess.text.splits import hash_halves, splits_of, text_hashes
from preprocess.tokenizers.sample import read_kept
from preprocess.tokenizers.vocabulary import hash_word
from preprocess.work import folder
from preprocess.work.damage import damaged_work
from preprocess.work.progress import Progress
from preprocess.work.shuffle import MOST_LISTS, Layout, Shuffle

TYPES_HELD = 500_000
"""Number of types, about 80 MB, above which the counts of a unit in memory are written to a file."""

BUCKET_BYTES = 4 << 20
"""Raw bytes of corpus per bucket, which contain at most about 400,000 types."""

BLOCK_WORDS = 2048
"""Words per block of a bucket's file; merging holds one block of every bucket in memory."""

Row = tuple[int, int, bytes]
"""A word's negative count in train, its negative count in held-out text (0 if it occurs in train), and
its spelling in UTF-8. Rows in ascending order are in the order of ids."""


@dataclass(frozen=True)
class CountJob:
    """Settings that every worker needs to count words.

    Attributes:
        work: folder of unfinished work.
        config: settings of prepare.
        min_count: occurrences in train that a word needs to be in the vocabulary.
        buckets: number of buckets.
        units: number of units.
    """

    work: str
    config: PrepareConfig
    min_count: int
    buckets: int
    units: int

    @property
    def layout(self) -> Layout:
        """Layout of the counts."""
        return Layout(self.units, self.buckets)


def word_buckets(corpus_bytes: int) -> int:
    """Return the number of buckets for a corpus of this many raw bytes.

    It depends on the size only, so every rerun agrees. In a large corpus, a bucket has more than
    `BUCKET_BYTES`.
    """
    return min(MOST_LISTS, max(1, -(-corpus_bytes // BUCKET_BYTES)))


def count_unit(job: CountJob, unit: Unit) -> int:
    """Count the words of a unit, unless its record exists, and return its index."""
    if folder.is_done(job.work, folder.word_record(job.work, unit.index)):
        return unit.index
    config = job.config
    source = config.sources[unit.source]
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    spills = 0
    sizes = {"documents": 0, "bytes": 0}
    progress = Progress(job.work, unit.index)
    inputs: list[dict[str, Any]] = []
    for block in read_kept(unit, source, config, inputs, progress.write):
        data = [text.encode() for text in block.texts]
        high = hash_halves(text_hashes(data))[:, 0]
        splits = splits_of(high, config.valid_fraction, config.test_fraction, source.split)
        in_train = splits == SPLITS.index("train")
        for train in (True, False):
            chosen = np.flatnonzero(in_train == train)
            # One call per block, because a call per text costs as much as the counting.
            words = "\n".join([block.texts[n] for n in chosen.tolist()]).split()
            counts[train].update(words)
            progress.tokens += len(words)
        sizes["documents"] += int(np.count_nonzero(in_train))
        sizes["bytes"] += sum(len(data[n]) for n in np.flatnonzero(in_train).tolist())
        if sum(map(len, counts.values())) >= TYPES_HELD:
            _spill(job, unit.index, spills, counts)
            spills += 1
        progress.documents += len(block.texts)
        progress.bytes += block.raw_bytes
        progress.write()
    _spill(job, unit.index, spills, counts)
    progress.write(final=True)
    record = {**sizes, "inputs": inputs}
    folder.write_done(job.work, folder.word_record(job.work, unit.index), record)
    return unit.index


def read_counted(job: CountJob) -> dict[str, int]:
    """Return the total documents and UTF-8 bytes of the train split, duplicates included."""
    sums = dict.fromkeys(("documents", "bytes"), 0)
    for record in _records(job):
        for name in sums:
            sums[name] += record[name]
    return sums


def read_inputs(job: CountJob) -> Iterator[dict[str, Any]]:
    """Yield the rows of the ranges that were read, as in `preprocess.reading.changed_inputs`."""
    for record in _records(job):
        # Former versions did not record them.
        yield from record.get("inputs", ())


def _records(job: CountJob) -> Iterator[dict[str, Any]]:
    """Yield the records of all units; many are read at once."""
    paths = (folder.word_record(job.work, unit) for unit in range(job.units))
    return at_once(job.work, lambda path: folder.read_done(job.work, path), paths)


def merge_run(job: CountJob, run: int) -> int:
    """Merge the counts of a run, unless they are merged; all its units must have been counted.

    Returns:
        ``run``.
    """
    _shuffle(job).merge(run)
    return run


def merge_bucket(job: CountJob, bucket: int) -> int:
    """Sum the counts of a bucket over all runs and write its words in the order of their ids.

    Does nothing if the bucket has been written. All runs must be merged.

    Returns:
        ``bucket``.
    """
    target = folder.sorted_words(job.work, bucket)
    if exists(target):
        return bucket
    train: Counter[bytes] = Counter()
    held_out: Counter[bytes] = Counter()
    for slices in _shuffle(job).read_by_piece(bucket):
        data = io.BytesIO(slices.data)
        while counted := list(_read_block(data)):
            for in_train, elsewhere, word in counted:
                if in_train:
                    train[word] += in_train
                if elsewhere:
                    held_out[word] += elsewhere
    rows = [(-n, 0, word) for word, n in train.items() if n >= job.min_count]
    if job.min_count == 1:
        rows += [(0, -n, word) for word, n in held_out.items() if word not in train]
    rows.sort()
    # Merging is also reported as progress, under a number that no unit has.
    progress = Progress(job.work, job.units + bucket)
    progress.tokens = len(rows)
    progress.write(final=True)
    with atomic_writer(target) as file:
        for start in range(0, len(rows), BLOCK_WORDS):
            part = rows[start : start + BLOCK_WORDS]
            block = _block([(-n, -m, word) for n, m, word in part])
            file.write(block + _block_sum(block))
    return bucket


def merged_words(job: CountJob) -> Iterator[bytes]:
    """Yield all words in UTF-8 in the order of their ids; all buckets must have been merged."""
    rows = heapq.merge(
        *(_read_run(folder.sorted_words(job.work, bucket)) for bucket in range(job.buckets))
    )
    return (word for _, _, word in rows)


def _spill(job: CountJob, unit: int, number: int, counts: dict[bool, Counter[str]]) -> None:
    """Write ``counts`` (train: True, held-out: False) grouped by bucket, and clear them."""
    train, held_out = counts[True], counts[False]
    by_bucket: list[list[tuple[int, int, bytes]]] = [[] for _ in range(job.buckets)]
    for word in train.keys() | held_out.keys():
        data = word.encode()
        bucket = hash_word(data) * job.buckets >> 64
        by_bucket[bucket].append((train[word], held_out[word], data))
    blocks = [_block(words) if words else b"" for words in by_bucket]
    bounds = np.cumsum([0, *map(len, blocks)])
    _shuffle(job).write(unit, number, b"".join(blocks), bounds)
    train.clear()
    held_out.clear()


def _block(rows: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Pack (count in train, count in held-out text, word in UTF-8) rows into bytes.

    u8: number of rows n; u8: bytes of all words; u8 (n, 2): counts; u4 (n,): bytes of each word;
    then the words.
    """
    counts = np.array([row[:2] for row in rows], "<u8")
    words = [row[2] for row in rows]
    blob = b"".join(words)
    head = np.array([len(rows), len(blob)], "<u8")
    lengths = np.array([len(word) for word in words], "<u4")
    return head.tobytes() + counts.tobytes() + lengths.tobytes() + blob


class _Readable(Protocol):
    def read(self, size: int) -> bytes: ...


def _read_block(file: _Readable) -> Iterator[tuple[int, int, bytes]]:
    """Yield the rows of the next `_block` of ``file``; nothing at its end."""
    head = file.read(16)
    if head:
        number, size = np.frombuffer(head, "<u8").tolist()
        counts: npt.NDArray[Any] = np.frombuffer(file.read(16 * number), "<u8").reshape(-1, 2)
        lengths = np.frombuffer(file.read(4 * number), "<u4")
        blob = file.read(size)
        bounds = [0, *np.cumsum(lengths, dtype=np.int64).tolist()]
        train, held_out = counts.T.tolist()
        for n, m, (begin, end) in zip(train, held_out, pairwise(bounds), strict=True):
            yield n, m, blob[begin:end]


def _read_run(path: str) -> Iterator[Row]:
    with open_read(path) as file:
        read = _HashedReader(file)
        try:
            while rows := list(_read_block(read)):
                if file.read(_SUM_BYTES) != read.sum():
                    raise ValueError("its checksum does not match")
                yield from ((-n, -m, word) for n, m, word in rows)
        except ValueError as error:
            raise damaged_work(path, str(error)) from error


class _HashedReader:
    """Reads from a file, and hashes what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, xxhash.xxh3_64()

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, _MOST_BYTES))
        if len(data) < size and self._hash.intdigest() != _EMPTY:
            raise ValueError("it ends early")
        self._hash.update(data)
        return data

    def sum(self) -> bytes:
        """Return the checksum of the bytes that were read after the previous call."""
        digest = self._hash.intdigest().to_bytes(_SUM_BYTES, "little")
        self._hash.reset()
        return digest


_EMPTY = xxhash.xxh3_64_intdigest(b"")
_SUM_BYTES = 8
_MOST_BYTES = 1 << 31
"""A block of `BLOCK_WORDS` words is smaller, unless its sizes are damaged."""


def _block_sum(block: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(block).to_bytes(_SUM_BYTES, "little")


def _shuffle(job: CountJob) -> Shuffle:
    return Shuffle(folder.shuffle_folder(job.work, "word-counts"), job.layout)
