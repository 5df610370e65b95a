"""From parts to shards: duplicates are dropped from the tokens, text is not read again."""

import io
import json
from typing import Any

import numpy as np

from preprocess import storage
from preprocess.dedup import read_drops
from preprocess.first_pass import Job, read_done
from preprocess.manifest import hash_file
from preprocess.storage import exists, join, read_bytes, write_bytes
from preprocess.token_shard import DOCUMENT, shard_counts, token_dtype
from preprocess.units import Unit

COUNT = np.dtype([("id", "<u4"), ("count", "<u8")])


def finished_record(work: str, unit: int) -> str:
    return join(work, "finished", f"{unit:06d}.json")


def read_finished(work: str, unit: int) -> dict[str, Any]:
    """The shards of a finished unit and how many of its documents were duplicates."""
    record: dict[str, Any] = json.loads(read_bytes(finished_record(work, unit)))
    return record


def finish_unit(job: Job, unit: Unit) -> int:
    """Turn the parts of ``unit`` into shards unless it is finished; returns its index."""
    if exists(finished_record(job.work, unit.index)):
        return unit.index
    done = read_done(job.work, unit.index)
    drops = np.empty(0, np.uint32)
    if job.config.deduplicate:
        drops = read_drops(job.work, unit.index, job.buckets)
    source = job.config.sources[unit.source].name
    files: list[dict[str, Any]] = []
    counts = np.zeros(job.vocabulary, np.uint64)
    for split, names in done["parts"].items():
        for name in names:
            shard = _finish_part(job, name, split, source, drops)
            if shard:
                files += shard
                if split == "train":
                    ids = _part_ids(job, join(job.output, f"{name}.bin"))
                    counts += np.bincount(ids, minlength=job.vocabulary).astype(np.uint64)
    seen = np.flatnonzero(counts)
    table = np.empty(len(seen), COUNT)
    table["id"], table["count"] = seen, counts[seen]
    write_bytes(join(job.work, "counts", f"{unit.index:06d}.bin"), table.tobytes())
    record = {"files": files, "duplicates": len(drops)}
    write_bytes(finished_record(job.work, unit.index), json.dumps(record).encode())
    return unit.index


def read_counts(work: str, unit: int) -> np.ndarray[Any, Any]:
    """The unit's unigram counts in train, of type ``COUNT``."""
    return np.frombuffer(read_bytes(join(work, "counts", f"{unit:06d}.bin")), COUNT)


def _finish_part(
    job: Job, name: str, split: str, source: str, drops: np.ndarray[Any, Any]
) -> list[dict[str, Any]]:
    path = join(job.work, "parts", f"{name}.bin")
    documents = np.load(io.BytesIO(read_bytes(join(job.work, "parts", f"{name}.npy"))))
    assert documents.dtype == DOCUMENT
    keep = ~np.isin(documents["number"], drops)
    if not keep.any():
        return []
    target = join(job.output, f"{name}.bin")
    if keep.all():
        storage.copy(path, target)
    else:
        ids = _part_ids(job, path)
        write_bytes(target, ids[np.repeat(keep, documents["tokens"])].tobytes())
        documents = documents[keep]
    write_bytes(join(job.output, f"{name}.len"), documents["tokens"].tobytes())
    counts = shard_counts(documents, split, source, token_dtype(job.vocabulary))
    rows = []
    for file, columns in ((f"{name}.bin", counts), (f"{name}.len", {})):
        size, digest = hash_file(join(job.output, file))
        rows.append({"name": file, "bytes": size, "xxh128": digest, "counts": columns})
    return rows


def _part_ids(job: Job, path: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(read_bytes(path), token_dtype(job.vocabulary))
