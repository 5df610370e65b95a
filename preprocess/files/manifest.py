"""``manifest.json``: the settings, files and content hash of a finished stage.

It is written last and atomically, so a folder that has a manifest is complete. ``fingerprint``
identifies the settings and inputs. ``content`` identifies the result, and is part of the fingerprint
of the next stage.

Since format 2, the manifest has the checksum of its own values (`_checksum`), and lists the files beside
the result. Everything in a manifest is checked when it is read, because a folder may come from an untrusted
source: the names of files become paths, and their hashes become names of local copies.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import xxhash

from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.details import Entries, check_types
from preprocess.files.details import ManifestError as ManifestError
from preprocess.files.details import recorded as recorded
from preprocess.files.fingerprint import canonical_json, check_depth, parse_json, plain

FORMAT = 2
"""Version of the manifest format that is written; also the newest that can be read."""
NAME = "manifest.json"
HASHED_AT_ONCE = 1 << 22
"""Bytes to read and hash at once."""

_AGAIN = "copy the folder again, or make it again with its command and --overwrite"
_CHECKSUM = "checksum"
_LIMIT = 1 << 63
"""Sizes and counts are below this number."""
_XXH128, _HEX = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{,64}")
# A backslash and a colon separate folders or drives on other systems; a colon also begins a URL.
_PART = re.compile(r"(?!\.\.?\Z)[^/\\:\x00-\x1f\x7f\ud800-\udfff]{1,255}")


class DamagedManifest(ManifestError):  # noqa: N818
    """A manifest that is not valid, or has changed since it was written."""


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
        if not is_name_below(self.name):
            raise ManifestError(f"a file has the name {self.name!r:.60}, not one in the folder")
        if type(self.xxh128) is not str or not _XXH128.fullmatch(self.xxh128):
            raise ManifestError(f"the hash of '{self.name}' is {self.xxh128!r:.60}")
        if not _is_size(self.bytes):
            raise ManifestError(f"the size of '{self.name}' is {self.bytes!r:.60}")
        for column, value in self.counts.items():
            if not isinstance(value, str) and not _is_size(value):
                raise ManifestError(f"column '{column}' of '{self.name}' is {value!r:.60}")

    def difference(self, size: int, digest: str) -> str:
        """Return how a file of this size and xxh128 differs from the record, or "" if it does not."""
        if size != self.bytes:
            return f"{size:,} bytes, not {self.bytes:,}"
        return "" if digest == self.xxh128 else f"hash {digest}, not {self.xxh128}"


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
        beside: files in the folder that are not part of the result, such as its config and
            statistics. ``content`` does not depend on them. Empty before format 2.
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
    beside: tuple[FileRecord, ...] = ()

    @property
    def all_files(self) -> tuple[FileRecord, ...]:
        """The files of the result and those beside it."""
        return self.files + self.beside

    @cached_property
    def records(self) -> Mapping[str, FileRecord]:
        """The records of `all_files` by name."""
        return {file.name: file for file in self.all_files}


def is_name_below(name: Any) -> bool:
    """Return True if a value is the name of a file in a folder or below it, as in a manifest."""
    return type(name) is str and all(map(_PART.fullmatch, name.split("/")))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LIMIT


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


def record_of(name: str, data: bytes) -> FileRecord:
    """Return the record of a file with this content."""
    return FileRecord(name, len(data), xxhash.xxh3_128_hexdigest(data))


def content_hash(files: Sequence[FileRecord]) -> str:
    """Return the SHA-256 of the sorted (name, xxh128, counts) rows, as 64 hexadecimal digits."""
    rows = sorted(canonical_json([file.name, file.xxh128, file.counts]) for file in files)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write the manifest, which marks the stage as finished; each file is one line."""
    columns = plain(
        {column.name: getattr(manifest, column.name) for column in fields(manifest)[:6]}
    )
    files, beside = ([_row(file) for file in group] for group in (manifest.files, manifest.beside))
    values = {**columns, "files": files, "beside": beside, "details": plain(manifest.details)}
    values = {"format": FORMAT, **values}
    shown = {"format": FORMAT, _CHECKSUM: _checksum(values), **values, "files": [], "beside": []}
    text = json.dumps(shown, indent=2, ensure_ascii=False)
    for key, rows in (("files", files), ("beside", beside)):
        if rows:
            listed = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in rows)
            text = text.replace(f'\n  "{key}": []', f'\n  "{key}": [\n    {listed}\n  ]', 1)
    # backslashreplace writes a lone surrogate as JSON's own escape.
    storage.write_bytes(storage.join(folder, NAME), f"{text}\n".encode("utf-8", "backslashreplace"))


def _row(file: FileRecord) -> dict[str, Any]:
    return {"name": file.name, "bytes": file.bytes, "xxh128": file.xxh128, **plain(file.counts)}


def _checksum(values: Mapping[str, Any]) -> str:
    """Return the xxh128 of the canonical JSON of a manifest without its checksum."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return xxhash.xxh3_128_hexdigest(text.encode())


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
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        hint = f"run `biloom {stage}` first, or check the path" if stage else "check the path"
        raise ManifestError(f"{folder} holds no finished {expected} (no {NAME}); {hint}") from error
    try:
        manifest = _parse(parse_json(data), f"{folder}: {NAME}")
    except _NewerFormat as error:
        raise ManifestError(
            f"{folder} was written by a newer biloom ({NAME} has format {error}, this version "
            f"reads up to {FORMAT}); upgrade biloom"
        ) from error
    # json raises RecursionError for deeply nested brackets.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        hint = f"make it again with `biloom {stage} --overwrite`" if stage else _AGAIN
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(str(error))
        raise DamagedManifest(f"{folder}: {NAME} is damaged ({reason}); {hint}") from error
    if stage and manifest.stage != stage:
        raise ManifestError(
            f"{folder} holds a finished '{one_line(manifest.stage):.40}', not {expected}; name the "
            f"folder that `biloom {stage}` wrote"
        )
    return manifest


class _NewerFormat(Exception):  # noqa: N818
    """The format of a manifest that a newer version wrote."""


def _parse(raw: dict[str, Any], where: str) -> Manifest:
    version = raw["format"]
    if type(version) is not int or version < 1:
        raise ValueError(f"'format' is {version!r:.40}")
    if version > FORMAT:
        raise _NewerFormat(version)
    # Format 1 has no checksum. If there is one anyway, the format may be damaged, so verify it.
    checksum = raw.pop(_CHECKSUM, None)
    if (checksum is not None or version > 1) and checksum != _checksum(raw):
        raise ValueError(f"its {_CHECKSUM} does not match")
    for key, kind in {
        "stage_version": int,
        **dict.fromkeys(("stage", "biloom", "fingerprint", "content"), str),
        **dict.fromkeys(("asked", "details"), dict),
        "files": list,
    }.items():
        if type(raw[key]) is not kind:
            raise TypeError(f"'{key}' is {raw[key]!r:.40}")
    for key in ("fingerprint", "content"):
        if not _HEX.fullmatch(raw[key]):
            raise ValueError(f"'{key}' is {raw[key]!r:.40}")
    if not _is_size(raw["stage_version"]):
        raise ValueError(f"'stage_version' is {raw['stage_version']!r:.40}")
    for key in ("asked", "details"):
        check_depth(raw[key], key)
        raw[key] = Entries(raw[key], where)
    check_types(raw["stage"], raw["details"])
    if type(beside := raw.pop("beside", [])) is not list:
        raise TypeError(f"'beside' is {beside!r:.40}")
    files, others = (tuple(map(_parse_file, rows)) for rows in (raw.pop("files"), beside))
    names = [file.name for file in files + others]
    if len({*names}) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f"it lists '{twice}' twice")
    return Manifest(files=files, beside=others, **raw)


def _parse_file(row: Any) -> FileRecord:
    if type(row) is not dict:
        raise TypeError(f"a file is {row!r:.60}")
    columns = dict(row)
    name, size, digest = (columns.pop(key) for key in ("name", "bytes", "xxh128"))
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
    for file in manifest.all_files:
        try:
            size, digest = hash_file(storage.join(folder, file.name))
        except (FileNotFoundError, NotADirectoryError):
            problems.append(f"{file.name}: missing")
        except OSError as error:
            problems.append(f"{file.name}: cannot be read ({error.strerror or error})")
        else:
            if size != file.bytes:
                problems.append(f"{file.name}: size is {size:,} bytes, was {file.bytes:,}")
            elif digest != file.xxh128:
                problems.append(f"{file.name}: hash is {digest}, was {file.xxh128}")
        if progress:
            progress(file)
    return problems
