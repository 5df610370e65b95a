"""Detection of raw files that have changed since a stage read them.

The fingerprint contains names and sizes. If a file of equal size has another version (mtime, ETag or
the like), its bytes are hashed and compared with the hash recorded when it was read. Hashes of a
version are kept in ``checked-inputs.jsonl``, so that a file that was only touched is read once. A
file without a version is hashed each time.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import xxhash

from preprocess.errors import UserError, one_line
from preprocess.files.bulk.at_once import at_once
from preprocess.files.manifest import Manifest
from preprocess.files.paths import split_chain
from preprocess.files.search.found import FileInfo
from preprocess.files.storage import exists, is_remote, join, open_read, read_bytes, write_bytes
from preprocess.files.verified import damaged, manifest_of, read_rows
from preprocess.reading.byte_range import NOTHING, OLD_LINE_ENDS, WRONG_DECLARED, RangeRead
from preprocess.reading.units import Range, Unit
from preprocess.work.done import unit_records, word_records
from preprocess.work.folder import read_record, read_record_if_written, sample_inputs_file

INPUTS = "inputs.jsonl"
"""Name of the file in which a finished stage lists the raw ranges that it read."""
NAMED = 20
"""Maximum number of files that a warning names."""
CHECKED = "checked-inputs.jsonl"
"""Name of the file that keeps the hashes of ranges of newer versions. It is not part of a result."""
HASHED_AT_ONCE = 4 << 20
"""Bytes to read and hash at once."""
HASHED_FILES = 16
"""Ranges of files of a store that are read at once."""


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


def ranges_read(unit: Unit, read: Sequence[RangeRead]) -> list[dict[str, Any]]:
    """Return one row per range of a unit, as JSON types, for the unit's record and `write_inputs`.

    Args:
        unit: a unit that was read, to its end or not.
        read: what was read of each range, from `UnitReader.read_so_far`. A row has only what is not empty;
            encodings and members are objects there.
    """
    return [
        {"name": r.name, "start": r.start, "end": one.end, "version": r.version}
        | {key: value for key, value in one._asdict().items() if value}
        | {key: dict(pairs) for key in _PAIRS if (pairs := getattr(one, key))}
        for r, one in zip(unit.ranges, read, strict=False)
    ]


_PAIRS = ("encodings", "members")


def has_read(pieces: Sequence[Range], read: Sequence[RangeRead]) -> bool:
    """Return True if files still have the bytes that were read of them.

    Args:
        pieces: ranges of the files as they are now.
        read: what was read of the first ranges.
    """
    return all(
        _hash_parts(piece.path, one.parts or [(piece.start, one.end)]) == one.xxh128
        for piece, one in zip(pieces, read, strict=False)
    )


def encodings_found(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the number of files and members in each encoding, of those whose encoding was found.

    Args:
        rows: rows of `ranges_read`.
    """
    found = Counter(row["encoding"] for row in rows if "encoding" in row and not row["start"])
    for row in rows:
        found.update(row.get("encodings", {}))
    return dict(sorted(found.items()))


def warnings_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return warnings that name the files whose `RangeRead.note` is not empty.

    Args:
        rows: rows of `ranges_read`.
    """
    warnings: list[str] = []
    for note, warning in _WARNINGS.items():
        names = [one_line(row["name"]) for row in rows if row.get("note") == note]
        if names:
            more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
            warnings.append(f"{', '.join(names[:NAMED])}{more}: {warning}")
    return warnings


_WARNINGS = {
    OLD_LINE_ENDS: "the lines end with a carriage return alone, which ends no document, so that the "
    "text is one long line; convert the line ends (tr '\\r' '\\n')",
    WRONG_DECLARED: "pages are not in the encoding that they declare, or not in UTF-8 if they declare none; "
    "those in UTF-8 are read, the others are counted as wrong_encoding unless their source has "
    "'encoding: auto'",
    NOTHING: "the file is intact, but contains nothing",
}
"""The warning for each value of `RangeRead.note`."""


def write_inputs(folder: str, rows: Sequence[dict[str, Any]], before: str | None = None) -> None:
    """Write the raw ranges that a stage read to ``inputs.jsonl``.

    Args:
        folder: folder to write to.
        rows: rows of `ranges_read`.
        before: folder with another such file, whose rows come first; equal rows are written once.
    """
    old = read_inputs(before, manifest_of(before)) if before is not None else []
    lines = dict.fromkeys(map(json.dumps, [*old, *rows]))
    write_bytes(join(folder, INPUTS), "".join(f"{line}\n" for line in lines).encode())


def read_inputs(folder: str, manifest: Manifest | None = None) -> list[dict[str, Any]]:
    """Return the rows of the ``inputs.jsonl`` of a folder; empty if it has none.

    Args:
        folder: folder of a stage.
        manifest: its manifest, with which the file is compared.

    Raises:
        DamagedResult: the file is damaged.
    """
    if not exists(join(folder, INPUTS)):
        return []
    rows = read_rows(folder, manifest, INPUTS)
    if all(isinstance(row.get(key), kind) for row in rows for key, kind in _ROW.items()):
        return rows
    stage = manifest.stage if manifest else "STAGE"
    raise damaged(join(folder, INPUTS), "is damaged (not ranges of files)", folder, stage)


_ROW = {"name": str, "start": int, "end": int, "version": str, "xxh128": str}


def changed(
    folder: str,
    files: Sequence[FileInfo],
    work: str = "",
    compared: Callable[[], None] = lambda: None,
) -> list[str]:
    """Return the names of the files whose bytes differ from those that a stage read.

    Writes nothing; `keep_checked` keeps what was hashed.

    Args:
        folder: folder of the stage.
        files: the present files; those that the stage has not read are ignored.
        work: folder of its unfinished work, which counts if the stage is not finished.
        compared: called after each range of a file that the stage read.
    """
    # Two sources may have files of equal name; a row may belong to either.
    by_name: dict[str, list[FileInfo]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    checked = _CHECKED.setdefault(folder, _Checked(folder))

    def differs(row: dict[str, Any]) -> str:
        """Return the name of the row's file if it differs, else ""."""
        candidates = by_name.get(row["name"])
        is_equal = not candidates or any(checked.equals(c, row) for c in candidates)
        return "" if is_equal else str(row["name"])

    place = files[0].path if files else folder
    found: dict[str, None] = {}
    for name in at_once(place, differs, _rows(folder, work), HASHED_FILES):
        found |= {name: None} if name else {}
        compared()
    return list(found)


def keep_checked(folder: str) -> None:
    """Keep the hashes that `changed` computed in this process, so that the next one reads no file.

    Does nothing if the folder cannot be written: the files are then hashed again.
    """
    checked = _CHECKED.pop(folder, None)
    if checked and checked.grown:
        with suppress(OSError, UserError):
            rows = [
                {**dict(zip(_KEY, key, strict=True)), "xxh128": found}
                for key, found in checked.used.items()
            ]
            lines = "".join(f"{json.dumps(row)}\n" for row in rows)
            write_bytes(join(folder, CHECKED), lines.encode())


_KEY = ("path", "version", "start", "end", "parts")


class _Checked:
    """Hashes of ranges of files that have another version than when a stage read them.

    Attributes:
        used: the hashes that `equals` needed.
        grown: True if some of them are not in ``checked-inputs.jsonl`` yet.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._known: dict[tuple[Any, ...], str] | None = None
        self.used: dict[tuple[Any, ...], str] = {}
        self.grown = False

    def equals(self, file: FileInfo, row: dict[str, Any]) -> bool:
        """Return True if the file still has the bytes of a recorded range."""
        if file.version and file.version == row["version"]:
            return True
        start, end = row["start"], row["end"]
        parts = _parts_of(row)
        if max(end, *(last for _, last in parts), 0) > file.bytes:
            return False
        hashed = parts or ((start, end),)
        if not file.version:
            return _hash_parts(file.path, hashed) == str(row["xxh128"])
        key = (file.path, file.version, start, end, parts)
        if key not in self.used:
            known = self._read().get(key)
            self.grown = self.grown or known is None
            self.used[key] = known or _hash_parts(file.path, hashed)
        return self.used[key] == str(row["xxh128"])

    def _read(self) -> dict[tuple[Any, ...], str]:
        if self._known is None:
            self._known = {}
            path = join(self._folder, CHECKED)
            # A damaged file is ignored, and written again by `keep_checked`.
            with suppress(ValueError, LookupError, TypeError):
                for line in read_bytes(path).decode().splitlines() if exists(path) else ():
                    row = json.loads(line)
                    # Rows of former versions have no parts.
                    key = (*(row[name] for name in _KEY[:-1]), _parts_of(row))
                    self._known[key] = str(row["xxh128"])
        return self._known


_CHECKED: dict[str, _Checked] = {}
"""Hashes by the folder of the stage that this process has checked."""


def _rows(folder: str, work: str) -> Iterator[dict[str, Any]]:
    """Yield the ranges that a finished or unfinished stage has read."""
    if exists(join(folder, INPUTS)):
        yield from read_inputs(folder, manifest_of(folder))
        return
    if not work:
        return
    yield from read_record_if_written(sample_inputs_file(work)) or ()
    for rows in at_once(work, _inputs_of, (*unit_records(work), *word_records(work))):
        yield from rows


def _inputs_of(path: str) -> list[dict[str, Any]]:
    """Return the inputs in the record of a unit; it is read once until `forget_inputs`."""
    if path not in _INPUTS_OF:
        # Former versions recorded no inputs of word counts.
        _INPUTS_OF[path] = read_record(path).get("inputs", [])
    return _INPUTS_OF[path]


_INPUTS_OF: dict[str, list[dict[str, Any]]] = {}
"""Inputs by the path of the record, because a stage compares them before and after it gets the lock."""


def forget_inputs() -> None:
    """Free the memory of the records that `changed` has read."""
    _INPUTS_OF.clear()


def _parts_of(row: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return `RangeRead.parts` of a row; empty if its whole range was read."""
    return tuple((int(start), int(end)) for start, end in row.get("parts", ()))


def _hash_parts(path: str, parts: Sequence[Sequence[int]]) -> str:
    """Return the xxh128 of bytes of a file; of fewer if it has become shorter."""
    hashed = xxhash.xxh3_128()
    for start, end in parts:
        for data in _chunks(path, start, end):
            hashed.update(data)
    return hashed.hexdigest()


def _chunks(path: str, start: int, end: int) -> Iterator[bytes]:
    offsets = range(start, end, HASHED_AT_ONCE)
    if is_remote(path) and not split_chain(path):
        # An open file would read ahead, beyond the range.
        yield from (read_bytes(path, at, min(at + HASHED_AT_ONCE, end)) for at in offsets)
        return
    with open_read(path) as file:
        file.seek(start)
        yield from (file.read(min(HASHED_AT_ONCE, end - at)) for at in offsets)
