"""Whether the raw text is still the text a corpus was made of.

Names and sizes stand in the fingerprint. A file's version (mtime or ETag) is only a hint: where it
changed at equal size, the hash of the bytes that were read decides.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import xxhash

from preprocess.corpus.first_pass import done_record
from preprocess.corpus.rejects import KEPT_ASIDE
from preprocess.files.storage import (
    TEMPORARY,
    FileInfo,
    exists,
    join,
    list_names,
    read_bytes,
    write_bytes,
)

INPUTS = "inputs.jsonl"
BLOCK = 4 << 20


def digest(files: Sequence[FileInfo]) -> dict[str, Any]:
    """Names and sizes of ``files`` as a fingerprint takes them."""
    hashed = xxhash.xxh3_128()
    for file in files:
        hashed.update(f"{file.name}\0{file.bytes}\0".encode("utf-8", "surrogateescape"))
    total = sum(file.bytes for file in files)
    return {"files": len(files), "bytes": total, "names_and_sizes": hashed.hexdigest()}


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


def beside(folder: str) -> list[str]:
    """Names of the files that tell of the raw text and are no part of what was made of it."""
    names = list_names(folder)
    return [name for name in names if name == INPUTS or name.startswith(KEPT_ASIDE)]


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
    work = join(folder, "_work")
    for name in list_names(join(work, "units")):
        if name.startswith(TEMPORARY):
            continue
        yield from json.loads(read_bytes(done_record(work, int(name.split(".")[0]))))["inputs"]


def _hash_range(path: str, start: int, end: int) -> str:
    hashed = xxhash.xxh3_128()
    for place in range(start, end, BLOCK):
        hashed.update(read_bytes(path, place, min(place + BLOCK, end)))
    return hashed.hexdigest()
