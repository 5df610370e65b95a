"""``tokenizer.json``: which kind of tokenizer a folder holds, and in which files."""

import json

from preprocess.files.storage import join, write_bytes

KIND_FILE = "tokenizer.json"


def save_kind(folder: str, kind: str, **files: str) -> tuple[str, ...]:
    """Write which kind of tokenizer ``folder`` holds and in which files; returns all names."""
    write_bytes(join(folder, KIND_FILE), json.dumps({"kind": kind, **files}).encode())
    return (KIND_FILE, *files.values())
