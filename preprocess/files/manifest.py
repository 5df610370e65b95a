"""``manifest.json``: the settings, files and content hash of a finished stage.

It is written last and atomically, so a folder that has a manifest is complete. ``fingerprint``
identifies the settings and inputs. ``content`` identifies the result, and is part of the fingerprint
of the next stage.
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
"""Version of the manifest format that is written; also the newest that can be read."""
NAME = "manifest.json"
HASHED_AT_ONCE = 1 << 22
"""Bytes to read and hash at once."""


class ManifestError(UserError):
    """A folder that is not a readable finished stage."""


@dataclass(frozen=True)
class FileRecord:
    """A file of a stage.

    Attributes:
        name: path relative to the stage's folder.
        bytes: size in bytes.
        xxh128: XXH3 128-bit hash of its content, 32 hexadecimal digits.
        counts: further columns of the manifest, such as tokens or the split.
    """

    name: str
    bytes: int
    xxh128: str
    counts: Mapping[str, int | str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        assert not {"name", "bytes", "xxh128"} & self.counts.keys(), "reserved column name"


@dataclass(frozen=True)
class Manifest:
    """A finished stage.

    Attributes:
        stage: name, such as "prepare".
        stage_version: version of the stage, raised if its result changes for equal settings.
        biloom: version of the package that wrote it.
        fingerprint: `preprocess.files.fingerprint.fingerprint` of ``asked``.
        content: `content_hash` of ``files``, or another hash of the result.
        asked: settings and inputs that determine the result.
        files: the files of the result.
        details: further data of the stage, as JSON types.
        format: version of the manifest format.
    """

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
    """Return the size in bytes and the xxh128 (32 hexadecimal digits) of a file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    size, digest = 0, xxhash.xxh3_128()
    with storage.open_read(path) as file:
        while block := file.read(HASHED_AT_ONCE):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()


def content_hash(files: Sequence[FileRecord]) -> str:
    """Return the SHA-256 of the sorted (name, xxh128, counts) rows, as 64 hexadecimal digits."""
    rows = sorted(canonical_json([file.name, file.xxh128, file.counts]) for file in files)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write the manifest, which marks the stage as finished; each file is one line."""
    columns = {column.name: getattr(manifest, column.name) for column in fields(manifest)}
    rows = [
        {"name": file.name, "bytes": file.bytes, "xxh128": file.xxh128, **file.counts}
        for file in manifest.files
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
    """Read the manifest of a finished stage.

    Args:
        folder: path or URL of the stage.
        stage: the stage it must be, if given.

    Raises:
        ManifestError: the manifest is missing, damaged, of another stage or of a newer format.
    """
    expected = f"'{stage}'" if stage else "stage"
    try:
        data = storage.read_bytes(storage.join(folder, NAME))
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = f"run `biloom {stage}` first, or check the path" if stage else "check the path"
        raise ManifestError(f"{folder} holds no finished {expected} (no {NAME}); {hint}") from error
    try:
        raw = json.loads(data)
        version = raw["format"]
        if type(version) is int and version > FORMAT:
            raise ManifestError(
                f"{folder} was written by a newer biloom ({NAME} has format {version}, this version "
                f"reads up to {FORMAT}); upgrade biloom"
            )
        manifest = _parse(raw)
    except ManifestError:
        raise
    # json raises RecursionError for deeply nested brackets.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        hint = f"make it again with `biloom {stage or 'STAGE'} --overwrite`"
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ManifestError(f"{folder}: {NAME} is damaged ({reason}); {hint}") from error
    if stage and manifest.stage != stage:
        raise ManifestError(
            f"{folder} holds a finished '{manifest.stage}', not {expected}; name the folder that "
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
    if [type(value) for value in (name, size, digest)] != [str, int, str]:
        raise TypeError(f"a file is {row!r:.60}")
    if any(type(value) not in (int, str) for value in columns.values()):
        raise TypeError(f"a column of '{name}' is neither an integer nor a string")
    return FileRecord(name, size, digest, columns)


def check_files(
    folder: str, manifest: Manifest, progress: Callable[[FileRecord], None] | None = None
) -> list[str]:
    """Hash every file of a manifest again and compare.

    Args:
        folder: path or URL of the stage.
        manifest: its manifest.
        progress: called with the record of each file after it was checked.

    Returns:
        A line per problem, ``NAME: missing``, ``NAME: size ...`` or ``NAME: hash ...``; empty if all
        files are intact.
    """
    problems = []
    for file in manifest.files:
        try:
            size, digest = hash_file(storage.join(folder, file.name))
        except FileNotFoundError:
            problems.append(f"{file.name}: missing")
        else:
            if size != file.bytes:
                problems.append(f"{file.name}: size is {size:,} bytes, was {file.bytes:,}")
            elif digest != file.xxh128:
                problems.append(f"{file.name}: hash is {digest}, was {file.xxh128}")
        if progress:
            progress(file)
    return problems
