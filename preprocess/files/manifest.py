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
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import xxhash

from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.bulk.at_once import at_once
from preprocess.files.bulk.file_record import FileRecord as FileRecord
from preprocess.files.bulk.file_record import is_name_below as is_name_below
from preprocess.files.bulk.file_record import is_size
from preprocess.files.bulk.file_table import FileTable, decode_table, encode_table
from preprocess.files.details import Entries, check_types
from preprocess.files.details import ManifestError as ManifestError
from preprocess.files.details import recorded as recorded
from preprocess.files.fingerprint import canonical_json, check_depth, parse_json, plain

FORMAT = 3
"""Newest version of the manifest format that can be read; written for files in columns (`TABLE_FROM`)."""
ROWS_FORMAT = 2
"""Version that is written for few files, which earlier versions of biloom can read."""
TABLE_FROM = 5000
"""Number of files from which their records are in a file of columns (`preprocess.files.bulk.file_table`)."""
NAME = "manifest.json"
HASHED_AT_ONCE = 1 << 22
"""Bytes to read and hash at once."""
CHECKED_AT_ONCE = 8
"""Files of a store that `check_files` reads at once; a client may read 50 MB of each ahead."""

_AGAIN = "copy the folder again, or make it again with its command and --overwrite"
_CHECKSUM = "checksum"
_HEX = re.compile(r"[0-9a-f]{,64}")
_TABLE = re.compile(r"files-[0-9a-f]{32}\.npy")


class DamagedManifest(ManifestError):  # noqa: N818
    """A manifest that is not valid, or has changed since it was written."""


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
    files: Sequence[FileRecord]
    details: dict[str, Any]
    format: int = ROWS_FORMAT
    beside: tuple[FileRecord, ...] = ()

    @property
    def all_files(self) -> tuple[FileRecord, ...]:
        """The files of the result and those beside it."""
        return (*self.files, *self.beside)

    @cached_property
    def records(self) -> Mapping[str, FileRecord]:
        """The records of `all_files` by name."""
        beside = {file.name: file for file in self.beside}
        if isinstance(self.files, FileTable):
            return ChainMap(beside, self.files.by_name)  # type: ignore[arg-type]
        return {file.name: file for file in self.files} | beside


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


def records_of(folder: str, names: Iterable[str]) -> list[FileRecord]:
    """Return the records of the files of these names in a folder."""
    return [FileRecord(name, *hash_file(storage.join(folder, name))) for name in names]


def content_hash(files: Sequence[FileRecord]) -> str:
    """Return the SHA-256 of the sorted (name, xxh128, counts) rows, as 64 hexadecimal digits."""
    rows = sorted(canonical_json([file.name, file.xxh128, file.counts]) for file in files)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Write the manifest, which marks the stage as finished; each file is one line.

    From `TABLE_FROM` files on, their records are written to ``files-HASH.npy`` first, which is listed in place
    of them, among the files beside the result.
    """
    columns = plain(
        {column.name: getattr(manifest, column.name) for column in fields(manifest)[:6]}
    )
    version, files, beside = ROWS_FORMAT, manifest.files, manifest.beside
    table: dict[str, Any] = {}
    if len(files) >= TABLE_FROM:
        data, described = encode_table(files)
        digest = xxhash.xxh3_128_hexdigest(data)
        record = FileRecord(f"files-{digest}.npy", len(data), digest)
        storage.write_bytes(storage.join(folder, record.name), data)
        version, files = FORMAT, ()
        beside = (*(one for one in beside if not is_table(one.name)), record)
        table = {"table": {"name": record.name, **described}}
    listed = {"files": [*map(_row, files)], "beside": [*map(_row, beside)]}
    values = {**columns, **table, **listed, "details": plain(manifest.details)}
    values = {"format": version, **values}
    shown = {"format": version, _CHECKSUM: _checksum(values), **values, "files": [], "beside": []}
    text = json.dumps(shown, indent=2, ensure_ascii=False)
    for key, rows in listed.items():
        if rows:
            lines = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in rows)
            text = text.replace(f'\n  "{key}": []', f'\n  "{key}": [\n    {lines}\n  ]', 1)
    # backslashreplace writes a lone surrogate as JSON's own escape.
    storage.write_bytes(storage.join(folder, NAME), f"{text}\n".encode("utf-8", "backslashreplace"))


def is_table(name: str) -> bool:
    """Return True for the name of a file of columns that `write_manifest` writes."""
    return _TABLE.fullmatch(name) is not None


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
    hint = f"run `biloom {stage}` first, or check the path" if stage else "check the path"
    missing = f"{folder} holds no finished {expected} (no {NAME}); {hint}"
    tried = None
    while True:
        data = _read(folder, missing)
        try:
            manifest = _parse(parse_json(data), folder)
            break
        except _NewerFormat as error:
            raise ManifestError(
                f"{folder} was written by a newer biloom ({NAME} has format {error}, this version "
                f"reads up to {FORMAT}); upgrade biloom"
            ) from error
        # json raises RecursionError for deeply nested brackets.
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, _MissingTable) and data != tried:
                # A writer removes a former table after it has replaced the manifest.
                tried = data
                continue
            hint = f"make it again with `biloom {stage} --overwrite`" if stage else _AGAIN
            reason = f"no {error}" if isinstance(error, KeyError) else one_line(str(error))
            raise DamagedManifest(f"{folder}: {NAME} is damaged ({reason}); {hint}") from error
    if stage and manifest.stage != stage:
        raise ManifestError(
            f"{folder} holds a finished '{one_line(manifest.stage):.40}', not {expected}; name the "
            f"folder that `biloom {stage}` wrote"
        )
    return manifest


def _read(folder: str, missing: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(folder, NAME))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ManifestError(missing) from error


class _MissingTable(ValueError):  # noqa: N818
    """The file of columns that a manifest names does not exist."""


class _NewerFormat(Exception):  # noqa: N818
    """The format of a manifest that a newer version wrote."""


def _parse(raw: dict[str, Any], folder: str) -> Manifest:
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
    if not is_size(raw["stage_version"]):
        raise ValueError(f"'stage_version' is {raw['stage_version']!r:.40}")
    for key in ("asked", "details"):
        check_depth(raw[key], key)
        raw[key] = Entries(raw[key], f"{folder}: {NAME}")
    check_types(raw["stage"], raw["details"])
    if type(beside := raw.pop("beside", [])) is not list:
        raise TypeError(f"'beside' is {beside!r:.40}")
    files, others = (tuple(map(_parse_file, rows)) for rows in (raw.pop("files"), beside))
    if (described := raw.pop("table", None)) is not None and version > ROWS_FORMAT:
        return Manifest(files=_read_table(folder, described, others), beside=others, **raw)
    names = [file.name for file in files + others]
    if len({*names}) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f"it lists '{twice}' twice")
    return Manifest(files=files, beside=others, **raw)


def _read_table(folder: str, described: Any, beside: Sequence[FileRecord]) -> FileTable:
    """Return the records of the files, which are in a file of their own."""
    name = described.get("name") if isinstance(described, dict) else None
    record = next((one for one in beside if one.name == name), None)
    if record is None:
        raise ValueError(f"'table' is {described!r:.60}")
    try:
        data = storage.read_bytes(storage.join(folder, record.name))
    except FileNotFoundError as error:
        raise _MissingTable(f"{record.name} is missing") from error
    if problem := record.difference(len(data), xxhash.xxh3_128_hexdigest(data)):
        raise ValueError(f"{record.name}: {problem}")
    table = decode_table(data, described)
    if twice := [one.name for one in beside if one.name in table.by_name]:
        raise ValueError(f"it lists '{twice[0]}' twice")
    return table


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
    files = manifest.all_files
    found = at_once(folder, lambda file: _problem(folder, file), files, CHECKED_AT_ONCE)
    problems = []
    for file, problem in zip(files, found, strict=True):
        if problem:
            problems.append(f"{file.name}: {problem}")
        if progress:
            progress(file)
    return problems


def _problem(folder: str, file: FileRecord) -> str:
    """Return how a file differs from its record, or "" if it does not."""
    try:
        size, digest = hash_file(storage.join(folder, file.name))
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if size != file.bytes:
        return f"size is {size:,} bytes, was {file.bytes:,}"
    return f"hash is {digest}, was {file.xxh128}" if digest != file.xxh128 else ""
