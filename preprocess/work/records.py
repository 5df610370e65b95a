"""Records of unfinished work: JSON files with a checksum of themselves."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from preprocess.files.manifest import hash_file
from preprocess.files.storage import exists, read_bytes, write_bytes
from preprocess.work.damage import checksum, damaged_work

_CHECKSUM, _ROWS = "checksum", "rows"


def write_record(path: str, record: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON record atomically, with its checksum."""
    content = dict(record) if isinstance(record, Mapping) else {_ROWS: list(record)}
    # As it will be read: JSON turns keys into strings and tuples into lists.
    content = json.loads(json.dumps(content))
    write_bytes(path, json.dumps({**content, _CHECKSUM: record_checksum(content)}).encode())


def read_record(path: str) -> Any:
    """Return a record.

    Raises:
        FileNotFoundError: the record has not been written.
        DamagedWork: the record is damaged.
    """
    try:
        record = json.loads(read_bytes(path))
        if not isinstance(record, dict) or not record:
            return record
        # The last key, whatever its name: a damaged name must not look like a record of a former
        # version, which has no checksum.
        name, found = record.popitem()
        matches = found == record_checksum(record)
        if matches != (name == _CHECKSUM):
            raise ValueError("its checksum does not match")
        if not matches:
            return {**record, name: found}
        return record[_ROWS] if record.keys() == {_ROWS} else record
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged_work(path, str(error)) from error


def read_record_if_written(path: str) -> Any:
    """Return a record, or None if it has not been written."""
    return read_record(path) if exists(path) else None


def seal(path: str) -> None:
    """Write the size and hash of a file of unfinished work to a record beside it."""
    size, digest = hash_file(path)
    write_record(f"{path}.json", {"bytes": size, "xxh128": digest})


def check_sealed(path: str) -> None:
    """Compare a file with the record that `seal` wrote, if there is one.

    Raises:
        DamagedWork: the file or the record is damaged.
    """
    record = read_record_if_written(f"{path}.json")
    if record is not None and record != dict(
        zip(("bytes", "xxh128"), hash_file(path), strict=True)
    ):
        raise damaged_work(path, "its hash does not match")


def record_checksum(record: Mapping[str, Any]) -> str:
    """Return the checksum of a JSON object, whatever the order of its keys."""
    return checksum(json.dumps(record, sort_keys=True).encode())
