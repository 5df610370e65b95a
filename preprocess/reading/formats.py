"""How a raw file is read: by its name as far as planning needs it, then by its first bytes.

Only a file's beginning decides, never a range of it, so all ranges of a file are read alike.
"""

import codecs
import json
from collections.abc import Iterable
from typing import Literal

from preprocess.config import Source
from preprocess.reading.encodings import is_cuttable

Format = Literal["text", "jsonl", "parquet", "docstrings"]
INSTALLED_DOCS = "installed-docs:"
_PARQUET = b"PAR1"
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def is_compressed_name(name: str) -> bool:
    """Whether a file of this name is expected to be compressed (the content decides at reading)."""
    return name.lower().endswith(_PACKED)


def _format_by_name(source: Source, name: str) -> Format | None:
    """What needs no look into the file."""
    if source.format != "auto":
        return source.format
    plain = name.lower()
    if plain.endswith(_PACKED):
        plain = plain[: plain.rindex(".")]
    if plain.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if plain.endswith(".py") and INSTALLED_DOCS in source.paths:
        return "docstrings"
    return None


def is_never_cut(source: Source, name: str) -> bool:
    """Whether a file of this name is planned as one range, since it must be read from its start."""
    if is_compressed_name(name):
        return True
    match _format_by_name(source, name):
        case "docstrings":
            return True
        case "parquet":
            return False
        case "jsonl":
            return not is_cuttable(source.encoding)
    return source.document == "file" or not is_cuttable(source.encoding)


def find_format(source: Source, name: str, head: bytes) -> Format | None:
    """The format of a file with these first bytes; none where it takes `holds_json` to tell."""
    # A name can lie, a magic number hardly.
    if source.format == "auto" and head.startswith(_PARQUET):
        return "parquet"
    return _format_by_name(source, name)


def holds_json(chunks: Iterable[bytes], encoding: str, text_field: str, limit: int) -> bool:
    """Whether the first line of a text that is not blank is an object that holds a text.

    Reads no further than that line, which ends within ``limit`` bytes or counts as none, and of a
    text whose first character is no brace one chunk. A byte order mark lies in one chunk.
    """
    pieces: list[bytes] = []
    held = 0
    for data in chunks:
        held += len(data)
        if not pieces:
            data = data.removeprefix(codecs.BOM_UTF8).lstrip()
        if data:
            pieces.append(data)
        begun = bool(pieces)
        if held > limit or (begun and (pieces[0][:1] != b"{" or b"\n" in data)):
            break
    line, newline, rest = b"".join(pieces).partition(b"\n")
    if not line.startswith(b"{") or held - len(rest) - len(newline) > limit:
        return False
    try:
        record = json.loads(line.decode(encoding, "replace"))
    except (ValueError, RecursionError):
        return False
    return isinstance(record.get(text_field), str)
