"""Whether the raw text is still the text a corpus was made of.

Names and sizes stand in the fingerprint. A file's version (mtime or ETag) is only a hint: where it
changed at equal size, the hash of the bytes that were read decides.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import xxhash

from preprocess.files.storage import (
    FileInfo,
    exists,
    join,
    read_bytes,
    write_bytes,
)
from preprocess.reading.units import Unit
from preprocess.work.folder import read_record, unit_records, work_folder

INPUTS = "inputs.jsonl"
HASHED_AT_ONCE = 4 << 20


def digest(files: Sequence[FileInfo]) -> dict[str, Any]:
    """Names and sizes of ``files`` as a fingerprint takes them."""
    hashed = xxhash.xxh3_128()
    for file in files:
        hashed.update(f"{file.name}\0{file.bytes}\0".encode("utf-8", "surrogateescape"))
    total = sum(file.bytes for file in files)
    return {"files": len(files), "bytes": total, "names_and_sizes": hashed.hexdigest()}


def ranges_read(unit: Unit, digests: Sequence[str]) -> list[dict[str, Any]]:
    """What a done-record says of the raw bytes behind it: a row a range."""
    return [
        {"name": r.name, "start": r.start, "end": r.end, "version": r.version, "xxh128": digest}
        for r, digest in zip(unit.ranges, digests, strict=True)
    ]


def write_inputs(folder: str, rows: Sequence[dict[str, Any]], add: bool = False) -> None:
    """Keep the raw ranges a corpus was made of beside its manifest.

    add: after those that stand there, without those that are these.
    """
    new = [json.dumps(row) for row in rows]
    old = (
        read_bytes(join(folder, INPUTS)).decode().splitlines()
        if add and exists(join(folder, INPUTS))
        else []
    )
    lines = "".join(f"{line}\n" for line in dict.fromkeys([*old, *new]))
    write_bytes(join(folder, INPUTS), lines.encode())


def changed(folder: str, files: Sequence[FileInfo]) -> list[str]:
    """Names of the ``files`` whose bytes are not those that the stage in ``folder`` read."""
    # Two sources may hold files of one name; a row is then of either.
    by_name: dict[str, list[FileInfo]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    found: dict[str, None] = {}
    for row in _rows(folder):
        name, named = row["name"], by_name.get(row["name"])
        if named and name not in found and not any(_holds(file, row) for file in named):
            found[name] = None
    return list(found)


def _holds(file: FileInfo, row: dict[str, Any]) -> bool:
    if file.version == row["version"]:
        return True
    return _hash_range(file.path, row["start"], row["end"]) == str(row["xxh128"])


def _rows(folder: str) -> Iterator[dict[str, Any]]:
    if exists(join(folder, INPUTS)):
        for line in read_bytes(join(folder, INPUTS)).decode().splitlines():
            yield json.loads(line)
        return
    for record in unit_records(work_folder(folder)):
        yield from read_record(record)["inputs"]


def _hash_range(path: str, start: int, end: int) -> str:
    hashed = xxhash.xxh3_128()
    for place in range(start, end, HASHED_AT_ONCE):
        hashed.update(read_bytes(path, place, min(place + HASHED_AT_ONCE, end)))
    return hashed.hexdigest()
