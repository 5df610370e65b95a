"""Cost of comparing token shards with their manifest while they are read.

    python benchmarks/verify.py [--shards 24]

Needs 200 MB in TMPDIR. Prints CPU seconds, because other processes may use the machine.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.files import verified
from preprocess.files.manifest import (
    FileRecord,
    Manifest,
    hash_file,
    read_manifest,
    write_manifest,
)
from preprocess.shards import format as shard_format
from preprocess.shards.format import DOCUMENT, Corpus, shard_counts
from preprocess.shards.stream import TokenStream

TOKENS, DOCUMENT_TOKENS, VOCABULARY = 4_000_000, 100, 30_000
WINDOW = 1 << 16


def make_corpus(folder: str, shards: int) -> None:
    draw = np.random.default_rng(0)
    rows = np.zeros(TOKENS // DOCUMENT_TOKENS, DOCUMENT)
    rows["tokens"] = DOCUMENT_TOKENS
    records = []
    for number in range(shards):
        name = f"train-{number:06d}-000"
        ids = draw.integers(3, VOCABULARY, TOKENS).astype("<u2")
        for ending, array in (("bin", ids), ("len", rows["tokens"])):
            path = Path(folder) / f"{name}.{ending}"
            path.write_bytes(array.tobytes())
            counts = shard_counts(rows, "train", "web", ids.dtype) if ending == "bin" else {}
            records.append(FileRecord(path.name, *hash_file(str(path)), counts))
    details = {"vocabulary": VOCABULARY}
    manifest = Manifest("prepare", 1, "0", "f", "c", {}, tuple(records), details)
    write_manifest(folder, manifest)


def read(folder: str, is_verified: bool) -> None:
    shards = Corpus.open(folder).shards("train")
    if not is_verified:
        shards = tuple(replace(shard, files={}, vocabulary=None) for shard in shards)
    stream = TokenStream(shards, "eos", "shuffled", seed=1)
    for start in range(0, len(stream), WINDOW):
        stream.read(0, start, min(start + WINDOW, len(stream)))


def seconds(work: Callable[[], object]) -> float:
    # As in a new process.
    verified._verified.clear()
    shard_format._LARGEST.clear()
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(folder, options.shards)
        for _ in range(3):
            plain, whole = (seconds(lambda one=one: read(folder, one)) for one in (False, True))
            print(f"reading {plain:.2f} s, compared with the manifest {whole:.2f} s")
        path = Path(folder) / "data"
        path.write_bytes(os.urandom(1 << 28))
        print(f"hashing {(1 << 28) / 1e9 / seconds(lambda: hash_file(str(path))):.1f} GB/s")
        counts = shard_counts(np.zeros(1, DOCUMENT), "train", "web", np.dtype("<u2"))
        files = tuple(
            FileRecord(f"train-{n:06d}-000.bin", 2, "0" * 32, counts) for n in range(100_000)
        )
        write_manifest(folder, Manifest("prepare", 1, "0", "f", "c", {}, files, {}))
        print(f"manifest of 100,000 files {seconds(lambda: read_manifest(folder)):.2f} s")


if __name__ == "__main__":
    main()
