"""Speed of the vector cache, with and without the checks of what it returns.

    python benchmarks/vector_cache.py [--sentences 1000000] [--keys 10000000]

The cache has sentences of 20 tokens with one layer of 128 dimensions in float16, in shards of 5,000.
A cache of an older version, without checksums, has the same vectors. Its files are hashed as a whole
when they are opened, so later reads of an entry are not checked; random reads of both take turns.
The first pass over the blocks hashes their files, a second pass does not. The index of --keys random
keys has no vectors. Its memory is what stays resident after the checks of all blocks, without the
mapped files. The same index is then read from a store, which is fsspec's memory and counts.
"""

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from biloom import VectorCache
from preprocess.files import storage
from preprocess.files.local_copies import LocalCopies
from preprocess.files.manifest import (
    FileRecord,
    Manifest,
    hash_file,
    read_manifest,
    write_manifest,
)
from preprocess.vectors.files import CHECKED_ENTRY, ENTRY, HashedFile
from preprocess.vectors.index import write_index
from preprocess.vectors.index_file import WholeFile
from preprocess.vectors.lookup import VectorIndex
from preprocess.vectors.shard import VectorShardWriter
from preprocess.vectors.stored import CacheFiles

TOKENS, DIM, SHARD = 20, 128, 5000
READS = 20_000
TURNS = 5
MANY = 1000


def write(folder: str, sentences: int) -> float:
    """Write the cache; return the seconds."""
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(64, 1, TOKENS, DIM)).astype(np.float32)
    labels = [f"token{n}" for n in range(TOKENS)]
    shards = [(number, 0) for number in range(-(-sentences // SHARD))]
    records: list[FileRecord] = []
    begin = time.perf_counter()
    for unit, part in shards:
        with VectorShardWriter(folder, (unit, part), 1, DIM, "float16") as writer:
            for number in range(unit * SHARD, min((unit + 1) * SHARD, sentences)):
                writer.add(f"sentence {number}", labels, vectors[number % 64])
        records += writer.close()
    seconds = time.perf_counter() - begin
    records += write_index(folder, shards)
    details = {"layers": 1, "dim": DIM, "dtype": "float16", "unit": "token", "model": "m"}
    write_manifest(folder, Manifest("embed", 2, "", "", "", {}, tuple(records), details))
    return seconds


def without_checksums(folder: Path, former: Path) -> None:
    """Write the cache as version 0.1 did; the vectors and texts are links."""
    former.mkdir()
    for path in folder.iterdir():
        if path.name.startswith("entries"):
            rows = np.load(path)
            plain = np.empty(len(rows), ENTRY)
            for name in ENTRY.names or ():
                plain[name] = rows[name]
            with (former / path.name).open("wb") as opened:
                file = HashedFile(path.name, opened)
                file.write_header(ENTRY, plain.shape)
                file.write(plain.view(np.uint8))
        elif path.name.startswith("index"):
            np.save(former / "index-0000.npy", np.ascontiguousarray(np.load(path).T))
        elif path.suffix == ".bin":
            (former / path.name).hardlink_to(path)
    manifest = read_manifest(str(folder))
    files = []
    for record in manifest.files:
        name = "index-0000.npy" if record.name.startswith("index") else record.name
        size, digest = hash_file(str(former / name))
        counts = {key: record.counts[key] for key in ("entries", "tokens") if key in record.counts}
        files.append(FileRecord(name, size, digest, counts))
    write_manifest(str(former), replace(manifest, files=tuple(files)))


def random_reads(caches: Sequence[VectorCache], sentences: int) -> list[float]:
    """Return the median microseconds of a random read of each cache, which take turns."""
    draw = np.random.default_rng(2)
    texts = [f"sentence {n}" for n in draw.integers(sentences, size=READS)]
    times: list[list[float]] = [[] for _ in caches]
    for turn in range(TURNS + 1):
        for cache, found in zip(caches, times, strict=True):
            for text in texts:
                begin = time.perf_counter()
                cache[text].sum()
                if turn:  # The first turn opens the files.
                    found.append(1e6 * (time.perf_counter() - begin))
    return [statistics.median(found) for found in times]


def blocks(cache: VectorCache) -> float:
    """Return the bytes per second of reading all blocks."""
    begin = time.perf_counter()
    read = 0
    for block in cache.blocks():
        read += block.vectors.view(np.uint16).max() and block.vectors.nbytes
    return read / (time.perf_counter() - begin)


def measure_cache(sentences: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        folder, former = Path(scratch) / "cache", Path(scratch) / "former"
        folder.mkdir()
        wrote = write(str(folder), sentences)
        without_checksums(folder, former)
        with VectorCache.open(folder) as cache, VectorCache.open(former) as plain:
            checked, unchecked = random_reads([cache, plain], sentences)
        bulk = []
        for _ in range(TURNS):
            with VectorCache.open(folder) as cache:
                bulk.append((blocks(cache), blocks(cache)))
        first, second = (statistics.median(speeds) for speeds in zip(*bulk, strict=True))
        shutil.rmtree(former)
    size = sentences * TOKENS * DIM * 4 / 1e6
    print(f"{sentences:,} sentences: written at {size / wrote:,.0f} MB/s of float32, random reads "
          f"{checked:.1f} us each, {unchecked:.1f} without checks, block reads {first / 1e6:,.0f} "
          f"MB/s, {second / 1e6:,.0f} without checks")  # fmt: skip
    return {
        "write_mb_per_s": size / wrote,
        "random_read_us": checked,
        "random_read_us_without_checks": unchecked,
        "random_read_ratio": checked / unchecked,
        "bulk_read_mb_per_s": first / 1e6,
        "bulk_read_mb_per_s_without_checks": second / 1e6,
        "bulk_read_ratio": second / first,
    }


def resident() -> int:
    """Return the bytes of resident memory without mapped files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def measure_index(keys: int) -> dict[str, float]:
    draw = np.random.default_rng(3)
    shard = min(keys, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        shards = [(number, 0) for number in range(-(-keys // shard))]
        some = []
        for unit, _ in shards:
            rows = np.zeros(min(shard, keys - unit * shard), CHECKED_ENTRY)
            rows["key"] = np.frombuffer(draw.bytes(16 * len(rows)), "V16")
            rows["units"] = 1
            some.append(rows["key"][: READS // len(shards)].copy())
            with Path(folder, f"entries-{unit:06}-000.npy").open("wb") as opened:
                file = HashedFile("", opened)
                file.write_header(CHECKED_ENTRY, rows.shape)
                file.write(rows.view(np.uint8))
        del rows
        begin = time.process_time()
        records = write_index(folder, shards)
        wrote = time.process_time() - begin
        files = CacheFiles(folder, {record.name: record for record in records})
        before, begin = resident(), time.perf_counter()
        index = VectorIndex(files, [record.name for record in records])
        opened_in = time.perf_counter() - begin
        known = [key.tobytes() for part in some for key in part]
        absent = [draw.bytes(16) for _ in known]
        times: dict[str, float] = {}
        for name, asked in (("known", known), ("again", known), ("absent", absent)):
            begin = time.process_time()
            found = [index.find(key) for key in asked]
            times[name] = 1e6 * (time.process_time() - begin) / len(asked)
            assert found.count(None) == len(asked) * (name == "absent")
        begin = time.process_time()
        assert index.has(b"".join(known)).all()
        many = 1e6 * (time.process_time() - begin) / len(known)
        begin = time.process_time()
        assert not any(WholeFile(files, record.name).problems() for record in records)
        checked = time.process_time() - begin
        memory = resident() - before
        stored = measure_store(folder, records, known)
        size = sum(record.bytes for record in records)
    print(f"index of {keys:,} keys: {size / 1e6:,.0f} MB, written in {wrote:.1f} CPU seconds, opened in "
          f"{1e3 * opened_in:.1f} ms, look-up {times['known']:.1f} CPU us with its block's check, "
          f"{times['again']:.1f} us without, {memory / 1e6:.1f} MB of memory, all blocks checked in "
          f"{checked:.2f} s; {len(records)} files; in a store one key takes "
          f"{stored['store_lookup_kb']:.0f} KB in {stored['store_lookup_requests']} requests, "
          f"{MANY:,} keys {stored['store_many_mb']:.0f} MB in "
          f"{stored['store_many_requests']}")  # fmt: skip
    return stored | {
        "index_files": len(records),
        "index_write_s_per_million": wrote / keys * 1e6,
        "index_open_ms": 1e3 * opened_in,
        "index_first_lookup_us": times["known"],
        "index_lookup_us": times["again"],
        "index_absent_lookup_us": times["absent"],
        "index_many_keys_us": many,
        "index_check_all_s": checked,
        "index_memory_mb": memory / 1e6,
    }


def measure_store(
    folder: str, records: Sequence[FileRecord], keys: Sequence[bytes]
) -> dict[str, float]:
    """Return the requests and bytes of look-ups in the index when it is in a store."""
    url, read = "memory://vector-cache", storage.read_bytes
    sizes: list[int] = []
    for record in records:
        storage.write_bytes(f"{url}/{record.name}", Path(folder, record.name).read_bytes())

    def counted(path: str, start: int = 0, end: int | None = None) -> bytes:
        data = read(path, start, end)
        sizes.append(len(data))
        return data

    names = [record.name for record in records]
    by_name = {record.name: record for record in records}
    requests, read_bytes = [], []
    storage.read_bytes = counted
    try:
        for asked in (keys[:1], keys[:: -(-len(keys) // MANY)]):
            sizes.clear()
            with closing(CacheFiles(url, by_name, LocalCopies(8 << 30))) as files:
                assert VectorIndex(files, names).has(b"".join(asked)).all()
            requests.append(len(sizes))
            read_bytes.append(sum(sizes))
    finally:
        storage.read_bytes = read
        storage.remove_tree(url)
    return {
        "store_lookup_requests": requests[0],
        "store_lookup_kb": read_bytes[0] / 1e3,
        "store_many_requests": requests[1],
        "store_many_mb": read_bytes[1] / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000_000)
    options = parser.parse_args()
    figures = measure_index(options.keys) | measure_cache(options.sentences)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
