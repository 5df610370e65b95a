"""``manifest.json``: what a finished stage made, and the only file its readers open first.

It is written last and in one put, so a folder that holds one is whole. ``fingerprint`` tells what
was asked, ``content`` what was made; the next stage depends on the latter.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import xxhash

from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.fingerprint import canonical_json, plain

FORMAT = 1
NAME = "manifest.json"
HASHED_AT_ONCE = 1 << 22


class ManifestError(UserError):
    """A folder that cannot be read as a finished stage; the message says what to do."""


@dataclass(frozen=True)
class FileRecord:
    """A file of a stage. ``name`` is relative to the folder, ``counts`` are further columns."""

    name: str
    bytes: int
    xxh128: str
    counts: Mapping[str, int | str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        assert not {"name", "bytes", "xxh128"} & self.counts.keys(), "a column given twice"


@dataclass(frozen=True)
class Manifest:
    """A finished stage: ``asked`` is what its fingerprint was taken of, ``details`` is its own."""

    stage: str
    stage_version: int
    biloom: str
    fingerprint: str
    content: str
    asked: dict[str, Any]
    files: tuple[FileRecord, ...]
    details: dict[str, Any]
    format: int = FORMAT


def hash_file(path: str) -> tuple[int, str]:
    """Size in bytes and xxh128 (32 hexadecimal digits) of a file, read in blocks.

    Raises:
        FileNotFoundError: there is no such file.
    """
    size, digest = 0, xxhash.xxh3_128()
    with storage.open_read(path) as file:
        while block := file.read(HASHED_AT_ONCE):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()


def content_hash(files: Sequence[FileRecord]) -> str:
    """sha256 over the sorted (name, xxh128, counts) of ``files``, 64 hexadecimal digits."""
    rows = sorted(canonical_json([one.name, one.xxh128, one.counts]) for one in files)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Put ``manifest`` into ``folder``, which makes the stage finished; one line a file."""
    columns = {one.name: getattr(manifest, one.name) for one in fields(manifest)}
    rows = [
        {"name": one.name, "bytes": one.bytes, "xxh128": one.xxh128, **one.counts}
        for one in manifest.files
    ]
    columns["files"] = []
    columns = {"format": columns.pop("format"), **columns}
    text = json.dumps(plain(columns), indent=2, ensure_ascii=False)
    if rows:
        listed = ",\n    ".join(json.dumps(plain(row), ensure_ascii=False) for row in rows)
        text = text.replace('\n  "files": []', f'\n  "files": [\n    {listed}\n  ]', 1)
    # backslashreplace writes a lone surrogate as JSON's own escape.
    storage.write_bytes(storage.join(folder, NAME), f"{text}\n".encode("utf-8", "backslashreplace"))


def read_manifest(folder: str, stage: str | None = None) -> Manifest:
    """The manifest of the finished stage in ``folder``, which must be ``stage`` where one is given.

    Raises:
        ManifestError: there is none, it is damaged, of another stage or of a newer format.
    """
    made = f"'{stage}'" if stage else "stage"
    try:
        data = storage.read_bytes(storage.join(folder, NAME))
    except (FileNotFoundError, NotADirectoryError) as error:
        todo = f"run `biloom {stage}` first, or check the path" if stage else "check the path"
        raise ManifestError(f"{folder} holds no finished {made} (no {NAME}); {todo}") from error
    try:
        raw = json.loads(data)
        version = raw["format"]
        if type(version) is int and version > FORMAT:
            raise ManifestError(
                f"{folder} was written by a newer biloom ({NAME} of format {version}, this one "
                f"reads up to {FORMAT}); upgrade biloom"
            )
        manifest = _parse(raw)
    except ManifestError:
        raise
    # A recursion error is JSON's answer to brackets without end.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        again = f"make it again with `biloom {stage or 'STAGE'} --overwrite`"
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ManifestError(f"{folder}: {NAME} is damaged ({reason}); {again}") from error
    if stage and manifest.stage != stage:
        raise ManifestError(
            f"{folder} holds a finished '{manifest.stage}', not {made}; name the folder that "
            f"`biloom {stage}` wrote"
        )
    return manifest


def _parse(raw: Mapping[str, Any]) -> Manifest:
    for key, kind in {
        **dict.fromkeys(("format", "stage_version"), int),
        **dict.fromkeys(("stage", "biloom", "fingerprint", "content"), str),
        **dict.fromkeys(("asked", "details"), dict),
        "files": list,
    }.items():
        if type(raw[key]) is not kind:
            raise TypeError(f"'{key}' is {raw[key]!r:.40}")
    return Manifest(**{**raw, "files": tuple(_parse_file(row) for row in raw["files"])})


def _parse_file(row: Mapping[str, Any]) -> FileRecord:
    columns = dict(row)
    name, size, digest = (columns.pop(key) for key in ("name", "bytes", "xxh128"))
    if [type(one) for one in (name, size, digest)] != [str, int, str]:
        raise TypeError(f"a file is {row!r:.60}")
    if any(type(one) not in (int, str) for one in columns.values()):
        raise TypeError(f"a column of '{name}' is neither number nor string")
    return FileRecord(name, size, digest, columns)


def check_files(
    folder: str, manifest: Manifest, progress: Callable[[FileRecord], None] | None = None
) -> list[str]:
    """Hash every file of ``manifest`` again: a line a problem, none where the folder is whole.

    ``progress`` is called with each file when it is done. A line is ``NAME: missing``,
    ``NAME: size ...`` or ``NAME: hash ...``.
    """
    problems = []
    for one in manifest.files:
        try:
            size, digest = hash_file(storage.join(folder, one.name))
        except FileNotFoundError:
            problems.append(f"{one.name}: missing")
        else:
            if size != one.bytes:
                problems.append(f"{one.name}: size is {size:,} bytes, was {one.bytes:,}")
            elif digest != one.xxh128:
                problems.append(f"{one.name}: hash is {digest}, was {one.xxh128}")
        if progress:
            progress(one)
    return problems
