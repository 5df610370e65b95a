"""``tokenizer.json``: the kind of tokenizer in a folder, and the names of its files."""

import json
from collections.abc import Mapping
from typing import Any

from preprocess.files.manifest import Manifest
from preprocess.files.storage import join, write_bytes
from preprocess.files.verified import read_verified

KIND_FILE = "tokenizer.json"
MOST_BYTES = 1 << 16
"""Largest ``tokenizer.json`` that is read."""


def save_kind(
    folder: str, kind: str, files: Mapping[str, str], settings: Mapping[str, str]
) -> tuple[str, ...]:
    """Write ``tokenizer.json`` to a folder.

    Args:
        folder: the tokenizer's folder, a path or URL.
        kind: the kind of tokenizer.
        files: names of its files, by role.
        settings: further entries.

    Returns:
        The names of all files of the tokenizer, ``tokenizer.json`` first.
    """
    write_bytes(join(folder, KIND_FILE), json.dumps({"kind": kind, **files, **settings}).encode())
    return (KIND_FILE, *files.values())


def read_kind(folder: str, manifest: Manifest | None) -> dict[str, Any]:
    """Read the entries of ``tokenizer.json``.

    Args:
        folder: the tokenizer's folder, a path or URL.
        manifest: its manifest, if it has one.

    Raises:
        ValueError: the file is not a JSON object.
        OSError: the file cannot be read.
        DamagedResult: the file differs from the manifest.
    """
    data = read_verified(folder, manifest, KIND_FILE)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{KIND_FILE} is larger than {MOST_BYTES:,} bytes")
    try:
        found = json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{KIND_FILE} is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"{KIND_FILE} is not a JSON object")
    return found
