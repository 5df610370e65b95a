"""Detection of a raw file's format: from its name for planning, from its first bytes for reading.

Only the start of a file is examined, never that of a range, so all ranges of a file have one
format.
"""

import codecs
import json
from collections.abc import Iterable
from typing import Literal

from preprocess.config import Source
from preprocess.reading.encodings.decoding import is_cuttable

Format = Literal["text", "jsonl", "parquet", "docstrings"]
INSTALLED_DOCS = "installed-docs:"
"""Value of `Source.path` for the documentation of the installed Python packages."""
_PARQUET = b"PAR1"
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def is_compressed_name(name: str) -> bool:
    """Return True if the name has the ending of a compressed file.

    This is for planning only: the reader examines the content instead.
    """
    return name.lower().endswith(_COMPRESSED)


def _format_by_name(source: Source, name: str) -> Format | None:
    """Return the format if the settings and the name determine it, otherwise None."""
    if source.format != "auto":
        return source.format
    plain = name.lower()
    if plain.endswith(_COMPRESSED):
        plain = plain[: plain.rindex(".")]
    if plain.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if plain.endswith(".py") and INSTALLED_DOCS in source.paths:
        return "docstrings"
    return None


def is_never_cut(source: Source, name: str) -> bool:
    """Return True if a file of this name must be read from its start, so that it is one range."""
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
    """Return the format of a file, or None if `holds_json` must decide between text and jsonl.

    Args:
        source: the file's source.
        name: the file's name.
        head: its first bytes, uncompressed.
    """
    # A magic number is more reliable than a name.
    if source.format == "auto" and head.startswith(_PARQUET):
        return "parquet"
    return _format_by_name(source, name)


def holds_json(chunks: Iterable[bytes], encoding: str, text_field: str, limit: int) -> bool:
    """Return True if the first non-blank line is a JSON object whose ``text_field`` is a string.

    Reads no further than necessary: to the end of that line, or only one chunk if the text does not
    start with a brace.

    Args:
        chunks: the file's bytes from its start, uncompressed; a byte order mark is in one chunk.
        encoding: encoding of the file, one for which `is_cuttable` is True.
        text_field: key of the text.
        limit: maximum bytes of that line; for a longer line the result is False.
    """
    pieces: list[bytes] = []
    held = 0
    for data in chunks:
        held += len(data)
        if not pieces:
            data = data.removeprefix(codecs.BOM_UTF8).lstrip()
        if data:
            pieces.append(data)
        if held > limit or (pieces and (pieces[0][:1] != b"{" or b"\n" in data)):
            break
    line, newline, rest = b"".join(pieces).partition(b"\n")
    if not line.startswith(b"{") or held - len(rest) - len(newline) > limit:
        return False
    try:
        record = json.loads(line.decode(encoding, "replace"))
    except (ValueError, RecursionError):
        return False
    return isinstance(record.get(text_field), str)
