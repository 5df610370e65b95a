"""Detection of raw files that have changed since a stage read them.

The fingerprint contains names and sizes. If a file of equal size has another version (mtime or
ETag), its bytes are hashed and compared with the hash recorded when it was read.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import xxhash

from preprocess.files.find import FileInfo
from preprocess.files.storage import exists, join, read_bytes, write_bytes
from preprocess.reading.units import Unit
from preprocess.work.folder import read_record, unit_records

INPUTS = "inputs.jsonl"
"""Name of the file in which a finished stage lists the raw ranges that it read."""
NAMED = 20
"""Maximum number of files that a warning names."""
HASHED_AT_ONCE = 4 << 20
"""Bytes to read and hash at once."""


def digest(files: Sequence[FileInfo]) -> dict[str, Any]:
    """Return what a fingerprint contains of the raw files, as JSON types.

    These are the number of files, their total bytes, and a hash of their names and sizes in order.
    Paths are not included, so the input may be moved.
    """
    hashed = xxhash.xxh3_128()
    for file in files:
        hashed.update(f"{file.name}\0{file.bytes}\0".encode("utf-8", "surrogateescape"))
    total = sum(file.bytes for file in files)
    return {"files": len(files), "bytes": total, "names_and_sizes": hashed.hexdigest()}


def ranges_read(
    unit: Unit, digests: Sequence[str], encodings: Sequence[str], notes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row per range of a unit, as JSON types, for the unit's record and `write_inputs`.

    Args:
        unit: a unit that was read.
        digests: xxh128 of the raw bytes of each range, from `UnitReader.digests`.
        encodings: the encoding found for each range, from `UnitReader.encodings`; a row has it only
            if it is not empty.
        notes: the note on each range, from `UnitReader.notes`; likewise.
    """
    return [
        {"name": r.name, "start": r.start, "end": r.end, "version": r.version, "xxh128": digest}
        | ({"encoding": encoding} if encoding else {})
        | ({"note": note} if note else {})
        for r, digest, encoding, note in zip(unit.ranges, digests, encodings, notes, strict=True)
    ]


def encodings_found(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the number of files in each encoding, of the files whose encoding was found.

    Args:
        rows: rows of `ranges_read`.
    """
    found = Counter(row["encoding"] for row in rows if "encoding" in row and not row["start"])
    return dict(sorted(found.items()))


def warnings_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the warnings of files that were read, but probably not as their owner expects.

    Args:
        rows: rows of `ranges_read`.
    """
    warnings: list[str] = []
    for note, warning in _WARNINGS.items():
        names = [row["name"] for row in rows if row.get("note") == note]
        if names:
            more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
            warnings.append(f"{', '.join(names[:NAMED])}{more}: {warning}")
    return warnings


_WARNINGS = {
    "old line ends": "the lines end with a carriage return alone, which ends no document, so that the "
    "text is one long line; convert the line ends (tr '\\r' '\\n')",
    "no text": "the file is intact, but contains nothing",
}
"""What is said of the files with a note, by `UnitReader.notes`."""


def write_inputs(folder: str, rows: Sequence[dict[str, Any]], before: str | None = None) -> None:
    """Write the raw ranges that a stage read to ``inputs.jsonl``.

    Args:
        folder: folder to write to.
        rows: rows of `ranges_read`.
        before: folder with another such file, whose rows come first; equal rows are written once.
    """
    path = join(before, INPUTS) if before is not None else ""
    old = read_bytes(path).decode().splitlines() if path and exists(path) else []
    lines = dict.fromkeys([*old, *map(json.dumps, rows)])
    write_bytes(join(folder, INPUTS), "".join(f"{line}\n" for line in lines).encode())


def read_inputs(folder: str) -> list[dict[str, Any]]:
    """Return the rows of a finished stage's ``inputs.jsonl``; empty if it has none."""
    return list(_rows(folder, ""))


def changed(folder: str, files: Sequence[FileInfo], work: str = "") -> list[str]:
    """Return the names of the files whose bytes differ from those that a stage read.

    Args:
        folder: folder of the stage.
        files: the present files; those that the stage has not read are ignored.
        work: folder of its unfinished work, which counts if the stage is not finished.
    """
    # Two sources may have files of equal name; a row may belong to either.
    by_name: dict[str, list[FileInfo]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    names: dict[str, None] = {}
    for row in _rows(folder, work):
        name, candidates = row["name"], by_name.get(row["name"])
        if candidates and name not in names and not any(_equals(c, row) for c in candidates):
            names[name] = None
    return list(names)


def _equals(file: FileInfo, row: dict[str, Any]) -> bool:
    """Return True if the file still has the bytes of a recorded range."""
    if file.version == row["version"]:
        return True
    return _hash_range(file.path, row["start"], row["end"]) == str(row["xxh128"])


def _rows(folder: str, work: str) -> Iterator[dict[str, Any]]:
    """Yield the ranges that a finished or unfinished stage has read."""
    if exists(join(folder, INPUTS)):
        for line in read_bytes(join(folder, INPUTS)).decode().splitlines():
            yield json.loads(line)
        return
    for record in unit_records(work) if work else ():
        yield from read_record(record)["inputs"]


def _hash_range(path: str, start: int, end: int) -> str:
    hashed = xxhash.xxh3_128()
    for offset in range(start, end, HASHED_AT_ONCE):
        hashed.update(read_bytes(path, offset, min(offset + HASHED_AT_ONCE, end)))
    return hashed.hexdigest()
