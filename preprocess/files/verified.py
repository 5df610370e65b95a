"""Read the files of a finished stage, each verified against its record in the manifest.

A damaged file must not become another result. So every reader of a finished stage
reads its files through this module. A file that is read at once is verified by the bytes that were
read. A file that is read in parts or memory-mapped is read and hashed once per process, and again if
it has changed since.

A folder from an untrusted source may have invalid files that match its manifest. So readers also
validate the content; a hash only shows that a file has not changed.
"""

import json
import mmap
import os
import threading
from collections import OrderedDict
from typing import Any, TypeVar

import xxhash
import yaml
from pydantic import TypeAdapter, ValidationError

from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.details import first_problem
from preprocess.files.manifest import NAME, FileRecord, Manifest, hash_file, read_manifest

Content = TypeVar("Content")

REMEMBERED = 1 << 16
"""Maximum number of files remembered as verified; 200 bytes each."""


class DamagedResult(UserError):  # noqa: N818
    """A file of a finished stage that is missing, or differs from its record in the manifest."""


def damaged(path: str, reason: str, folder: str, stage: str) -> DamagedResult:
    """Return the error for a file of a finished stage.

    Args:
        path: path or URL of the file.
        reason: what is wrong with it.
        folder: folder of the stage.
        stage: name of the stage, whose command makes the folder again.
    """
    return DamagedResult(
        f"{one_line(f'{path} {reason}')}; run `biloom check {one_line(folder)}`, and copy the folder "
        f"again or make it again with `biloom {one_line(stage)} --overwrite`"
    )


def manifest_of(folder: str) -> Manifest | None:
    """Return the manifest of a folder, or None if it has none, as a folder that no stage wrote.

    Raises:
        ManifestError: the manifest is damaged or of a newer format.
    """
    return read_manifest(folder) if storage.exists(storage.join(folder, NAME)) else None


def read_verified(folder: str, manifest: Manifest | None, name: str) -> bytes:
    """Return the content of a file, whose size and hash are compared with its record.

    Args:
        folder: path or URL of the stage.
        manifest: its manifest; None to read without a check.
        name: name of the file in the folder. A file that a manifest of format 1 does not list, such as
            the config of the stage, is read without a check.

    Raises:
        DamagedResult: the file is missing, damaged or not listed in the manifest.
        FileNotFoundError: the file is missing, and there is no manifest.
    """
    record = _record(folder, manifest, name)
    path = storage.join(folder, name)
    if not record:
        return storage.read_bytes(path)
    assert manifest, "a record comes from a manifest"
    try:
        data = storage.read_bytes(path)
    except OSError as error:
        raise _unreadable(path, error, folder, manifest.stage) from error
    verify_bytes(folder, manifest, name, data)
    return data


def verify_bytes(
    folder: str, manifest: Manifest | None, name: str, data: bytes | mmap.mmap
) -> None:
    """Compare the content of a file, read or memory-mapped, with its record.

    Arguments and errors as in `read_verified`.
    """
    record = _record(folder, manifest, name)
    if not record or not manifest:
        return
    if problem := record.difference(len(data), xxhash.xxh3_128_hexdigest(data)):
        path = storage.join(folder, name)
        raise damaged(path, f"is damaged ({problem})", folder, manifest.stage)


def read_config(folder: str, manifest: Manifest | None, name: str) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file of a finished stage, such as its config.

    Arguments and errors as in `read_verified`; also:

    Raises:
        DamagedResult: the file does not hold a mapping.
    """
    data = read_verified(folder, manifest, name)
    try:
        # As JSON if it is JSON, because YAML's parser is slow.
        value = json.loads(data) if name.endswith(".json") else yaml.safe_load(data)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
    else:
        if isinstance(value, dict):
            return value
        reason = "it holds no mapping"
    raise _invalid(folder, manifest, name, reason)


def read_checked(folder: str, manifest: Manifest | None, name: str, kind: type[Content]) -> Content:
    """Return the content of a JSON file of a finished stage, checked to be of a type.

    Args:
        folder, manifest, name: as in `read_verified`.
        kind: the type, as pydantic knows it.

    Raises:
        DamagedResult: as `read_verified`, or the file is not JSON of this type.
        FileNotFoundError: as `read_verified`.
    """
    data = read_verified(folder, manifest, name)
    try:
        return TypeAdapter(kind).validate_python(json.loads(data))
    except ValidationError as error:
        reason = first_problem(error)
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise _invalid(folder, manifest, name, reason)


def read_rows(folder: str, manifest: Manifest | None, name: str) -> list[dict[str, Any]]:
    """Return the rows of a JSON Lines file of a finished stage, each a mapping.

    Arguments and errors as in `read_config`.
    """
    data = read_verified(folder, manifest, name)
    try:
        # Not splitlines, which also splits at characters that JSON need not escape.
        rows = [json.loads(line) for line in data.split(b"\n") if line]
        if all(isinstance(row, dict) for row in rows):
            return rows
        reason = "a line holds no mapping"
    except (ValueError, RecursionError) as error:
        reason = str(error)
    raise _invalid(folder, manifest, name, reason)


def _invalid(folder: str, manifest: Manifest | None, name: str, reason: str) -> DamagedResult:
    stage = manifest.stage if manifest else "STAGE"
    return damaged(storage.join(folder, name), f"is damaged ({reason})", folder, stage)


def verify(folder: str, record: FileRecord, stage: str) -> None:
    """Compare a file with its record, unless this process has done so and the file is unchanged.

    A local file is unchanged if it has the same inode, size and modification time.

    Args:
        folder: path or URL of the stage.
        record: record of the file in the stage's manifest.
        stage: name of the stage, for the message.

    Raises:
        DamagedResult: the file is missing or damaged.
    """
    path = storage.join(folder, record.name)
    try:
        if problem := difference(path, record):
            raise damaged(path, f"is damaged ({problem})", folder, stage)
    except OSError as error:
        raise _unreadable(path, error, folder, stage) from error


def difference(path: str, record: FileRecord, by_time: bool = True) -> str:
    """Return how a file differs from its record, or "" if it does not. Hashes a file as often as `verify`.

    Args:
        path: path or URL of the file.
        record: its record.
        by_time: hash the file again if its modification time changed. Use False if readers set the
            time.

    Raises:
        OSError: the file cannot be read.
    """
    key = _key(path, record, by_time)
    with _lock:
        if key in _verified:
            _verified.move_to_end(key)
            return ""
    # Two threads that open the same file hash it once.
    with _file_locks[hash(path) % len(_file_locks)]:
        with _lock:
            if key in _verified:
                return ""
        if problem := record.difference(*hash_file(path)):
            return problem
        # The key from before hashing, because the file may have changed since.
        _remember(key)
    return ""


def remember(path: str, record: FileRecord, by_time: bool = True) -> None:
    """Remember that this process has compared a file with its record; arguments as in `difference`."""
    _remember(_key(path, record, by_time))


def _remember(key: tuple[object, ...]) -> None:
    with _lock:
        _verified[key] = None
        while len(_verified) > REMEMBERED:
            _verified.popitem(last=False)


_verified: OrderedDict[tuple[object, ...], None] = OrderedDict()
_lock = threading.Lock()
_file_locks = [threading.Lock() for _ in range(64)]


def _unlock_in_child() -> None:
    """Replace the locks in a forked process, in which no thread would release them."""
    global _lock
    _lock = threading.Lock()
    _file_locks[:] = [threading.Lock() for _ in _file_locks]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def _key(path: str, record: FileRecord, by_time: bool) -> tuple[object, ...]:
    if storage.is_remote(path):
        return path, record.bytes, record.xxh128
    status = storage.local_path(path).stat()
    time = status.st_mtime_ns if by_time else 0
    return path, record.xxh128, status.st_dev, status.st_ino, status.st_size, time


def _record(folder: str, manifest: Manifest | None, name: str) -> FileRecord | None:
    """Return the record of a file; None without a manifest, or if one of format 1 does not list it."""
    if manifest is None:
        return None
    found = manifest.records.get(name)
    if found is None and manifest.beside:
        path = storage.join(folder, name)
        raise damaged(path, f"is not listed in {NAME}", folder, manifest.stage)
    return found


def _unreadable(path: str, error: OSError, folder: str, stage: str) -> DamagedResult:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return damaged(path, "is missing", folder, stage)
    return damaged(path, f"cannot be read ({error.strerror or error})", folder, stage)
