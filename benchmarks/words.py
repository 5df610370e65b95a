"""Memory and speed of the `word` tokenizer with millions of distinct words.

    python benchmarks/words.py [TYPES]      (default 10 million; about three minutes on one core)

Writes a text in which every type occurs and a few occur often (Zipf). Runs each step (counting,
merging, writing, encoding, and encoding with a plain dict for comparison) in a separate process, and
prints the growth of its memory and its speed. The last line has all figures as JSON.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.config import PrepareConfig
from preprocess.files.storage import atomic_writer
from preprocess.reading.listing import list_source
from preprocess.reading.units import Unit, plan_units
from preprocess.tokenizers.vocabulary import Vocabulary, write_vocabulary
from preprocess.tokenizers.word_counts import (
    CountJob,
    count_unit,
    merge_bucket,
    merged_words,
    word_buckets,
)
from preprocess.tokenizers.words import WordTokenizer

LETTERS = np.array([*"etaoinshrdlcumwfgypbvkjxqzабвгдежз"])
BATCH = 256
ENCODED_LINES = 400_000


def make_text(path: Path, types: int) -> None:
    """Write every type once, and as many words again with a Zipf distribution, in random order."""
    draw = np.random.RandomState(1)
    with path.open("w") as file:
        for start in range(0, types, 500_000):
            once = np.arange(start, min(start + 500_000, types))
            often = np.minimum(draw.zipf(1.2, len(once)) - 1, types - 1)
            words = spellings(draw.permutation(np.concatenate([once, often])))
            for line in range(0, len(words), 20):
                file.write(" ".join(words[line : line + 20]) + "\n")


def spellings(numbers: np.ndarray[Any, Any]) -> list[str]:
    """Return distinct words of seven letters for distinct numbers."""
    base = len(LETTERS)
    mixed = (numbers.astype(np.uint64) * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)
    joined = np.full(len(numbers), "")
    for position in range(7):
        joined = np.char.add(
            joined, LETTERS[(mixed // np.uint64(base**position)) % np.uint64(base)]
        )
    found: list[str] = joined.tolist()
    return found


def lines_of(path: str) -> Iterator[list[str]]:
    with Path(path).open() as file:
        for _ in range(ENCODED_LINES // BATCH):
            yield [file.readline().rstrip("\n") for _ in range(BATCH)]


def count(job: CountJob, units: list[Unit]) -> None:
    for unit in units:
        count_unit(job, unit)


def merge(job: CountJob) -> None:
    for bucket in range(job.buckets):
        merge_bucket(job, bucket)


def write(job: CountJob, folder: str) -> None:
    with atomic_writer(f"{folder}/v.txt") as text, atomic_writer(f"{folder}/v.index") as index:
        write_vocabulary(merged_words(job), text, index)


def encode(folder: str, path: str) -> float:
    tokenizer = WordTokenizer(Vocabulary.open(f"{folder}/v.txt", f"{folder}/v.index"))
    loaded = time.process_time()
    for batch in lines_of(path):
        tokenizer.encode(batch)
    return loaded


def encode_by_dict(folder: str, path: str) -> float:
    words = Path(f"{folder}/v.txt").read_text().split("\n")
    ids = {word: number for number, word in enumerate(words)}
    loaded = time.process_time()
    for batch in lines_of(path):
        for row in map(str.split, batch):
            np.fromiter(map(ids.get, row, repeat(0)), np.int32, len(row))
    return loaded


def measured(work: Callable[..., Any], *arguments: Any) -> dict[str, float]:
    """Measure CPU seconds and growth of peak memory of ``work`` in a fresh process.

    ``work`` may return the CPU time at which it had loaded its data; loading is counted separately.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, work, arguments).result()


def _measure(work: Callable[..., Any], arguments: Any) -> dict[str, float]:
    before, began = _memory("VmRSS"), time.process_time()
    loaded = work(*arguments) or began
    return {
        "seconds": time.process_time() - loaded,
        "loading_seconds": loaded - began,
        "grown_mb": _memory("VmHWM") - before,
    }


def _memory(kind: str) -> float:
    """Return current (VmRSS) or peak (VmHWM) memory in MB; getrusage includes the peak of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", nargs="?", type=int, default=10_000_000, metavar="TYPES")
    types = parser.parse_args().types
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/text.txt"
        make_text(Path(path), types)
        size = Path(path).stat().st_size
        encoded = sum(len(text.encode()) + 1 for batch in lines_of(path) for text in batch)
        config = PrepareConfig(input=path)
        units = plan_units(config.sources, [list_source(s) for s in config.sources], None)
        job = CountJob(f"{folder}/work", config, 1, word_buckets(size), len(units))
        steps: dict[str, tuple[int, dict[str, float]]] = {
            "count": (size, measured(count, job, units)),
            "merge": (size, measured(merge, job)),
            "write": (size, measured(write, job, folder)),
            "encode": (encoded, measured(encode, folder, path)),
            "dict": (encoded, measured(encode_by_dict, folder, path)),
        }
        figures: dict[str, Any] = {"types": types, "text_mb": round(size / 1e6, 1)}
        print(f"{types:,} types, {size / 1e6:,.0f} MB\nstep      CPU s   MB/CPU-s  growth MB")
        for name, (bytes_, found) in steps.items():
            found["mb_a_cpu_second"] = speed = bytes_ / 1e6 / found["seconds"]
            print(f"{name:8} {found['seconds']:6.1f} {speed:10.1f} {found['grown_mb']:10.0f}")
            figures[name] = {key: round(value, 1) for key, value in found.items()}
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
