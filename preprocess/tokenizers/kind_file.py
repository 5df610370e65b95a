"""``tokenizer.json``: the kind of tokenizer in a folder, and the names of its files."""

import json

from preprocess.files.storage import join, write_bytes

KIND_FILE = "tokenizer.json"


def save_kind(folder: str, kind: str, **files: str) -> tuple[str, ...]:
    """Write ``tokenizer.json`` to a folder.

    Args:
        folder: the tokenizer's folder, a path or URL.
        kind: the kind of tokenizer.
        **files: names of its files, by role.

    Returns:
        The names of all files of the tokenizer, ``tokenizer.json`` first.
    """
    write_bytes(join(folder, KIND_FILE), json.dumps({"kind": kind, **files}).encode())
    return (KIND_FILE, *files.values())
