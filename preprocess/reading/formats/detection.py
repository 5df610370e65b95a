"""Detection of a raw file's format: from its name for planning, from its first bytes for reading.

Only the start of a file is examined, never that of a range, so all ranges of a file have one
format.
"""

import codecs
from collections.abc import Iterable

from preprocess.config import Format as Format
from preprocess.config import Source
from preprocess.reading.encodings.decoding import is_cuttable
from preprocess.reading.kinds.json_shape import Shape, shape_of

TABLES = (".csv", ".tsv", ".tab")
CONLL_NAMES = (".conllu", ".conll", ".conllx", ".conllup")
PAGES = (".html", ".htm", ".xhtml")
SIGNED = (".parquet", ".arrow", ".feather", ".ipc", ".warc", ".wet")
"""Endings of names of files that have a signature at their start."""
NEVER_LINES = (".json", *SIGNED)
"""Endings of names of files of which no line is a text, so that their lines are not read as text."""
_WHOLE = (*TABLES, *CONLL_NAMES, *PAGES, ".warc", ".wet", ".arrow", ".feather", ".ipc", ".xml")
"""Endings of names of files that are usually read from their start."""
INSTALLED_DOCS = "installed-docs:"
"""Value of `Source.path` for the documentation of the installed Python packages."""
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_TARS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst")
"""Endings of tar archives, which are read from their start."""
_ZIP = ".zip"
"""Ending of zip archives, which are cut whatever is in them, because each range knows its members."""
_NEVER_EMPTY = (
    *(*_COMPRESSED, *_TARS, _ZIP, ".bgz", ".zstd", ".lz4", ".lzma", ".7z", ".rar"),
    *(".parquet", ".arrow", ".feather", ".orc", ".avro", ".docx", ".xlsx", ".epub"),
    *(".pdf", ".h5", ".hdf5", ".npy", ".npz"),
)
_ENOUGH = 4096
"""Bytes of an array, or of what follows the first line, from which JSON is recognised."""


def is_never_empty(source: Source, name: str) -> bool:
    """Return True if an intact file of this name has at least one byte."""
    return source.format in ("parquet", "arrow") or name.lower().endswith(_NEVER_EMPTY)


def _without_packing(name: str) -> str:
    """Return the name in lower case, without the ending of a compressed file."""
    plain = name.lower()
    return plain[: plain.rindex(".")] if plain.endswith(_COMPRESSED) else plain


def format_by_name(source: Source, name: str) -> Format | None:
    """Return the format if the settings and the name determine it, otherwise None."""
    if source.format != "auto":
        return source.format
    plain = _without_packing(name)
    if plain.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if plain.endswith(".py") and INSTALLED_DOCS in source.paths:
        return "docstrings"
    return None


def names_pages(source: Source) -> bool:
    """Return True if the settings or the paths of a source say that it has web pages."""
    if source.format != "auto":
        return source.format in ("html", "warc")
    return any(ending in path.lower() for path in source.paths for ending in (*PAGES, ".warc"))


def is_never_cut(source: Source, name: str) -> bool:
    """Return True if a file of this name must be read from its start, so that it is one range."""
    if name.lower().endswith((*_COMPRESSED, *_TARS)):
        return True
    if name.lower().endswith(_ZIP):
        return False
    found = format_by_name(source, name)
    if found is None:
        by_content = ends_with(name, *_WHOLE) or source.document == "file"
        return by_content or not is_cuttable(source.encoding)
    if found == "text":
        return source.document == "file" or not is_cuttable(source.encoding)
    if found == "jsonl":
        return not is_cuttable(source.encoding)
    return found != "parquet"


def find_shape(
    chunks: Iterable[bytes], encoding: str, text_field: str, limit: int, strict: bool = False
) -> Shape | None:
    """Return "lines" for JSON Lines, "document" for other JSON, and None for any other text.

    Reads no further than necessary: to the end of the first non-blank line, or only one chunk if the
    text does not start with a bracket.

    Args:
        chunks: the file's bytes from its start, uncompressed; a byte order mark is in one chunk.
        encoding: encoding of the file, one for which `is_cuttable` is True.
        text_field: path of the text.
        limit: maximum bytes of that line; a longer one is examined in part.
        strict: what begins with a bracket is no text, even if it is not valid JSON.
    """
    data, complete = _beginning(chunks, limit)
    text = data.decode(encoding, "replace")
    shape = shape_of(text, complete, text_field)
    return "document" if strict and text and not shape else shape


def _beginning(chunks: Iterable[bytes], limit: int) -> tuple[bytes, bool]:
    """Return the start of a text that begins with a bracket, and whether it is all of the text.

    It is the first non-blank line and a little more, or a part of that line if it is an array. The
    result does not depend on the size of the chunks.

    Args:
        chunks: the text.
        limit: maximum bytes of blank lines, and of the first line.

    Returns:
        No bytes if the text does not begin with a bracket.
    """
    pieces: list[bytes] = []
    blank = size = 0
    wanted = limit + _ENOUGH
    for data in chunks:
        if not pieces:
            blank += len(data)
            data = data.removeprefix(codecs.BOM_UTF8).lstrip()
            blank -= len(data)
            if data[:1] == b"[":
                wanted = _ENOUGH
            if blank > limit or data[:1] not in (b"", b"{", b"["):
                return b"", False
        if not data:
            continue
        if wanted == limit + _ENOUGH and (end := data.find(b"\n")) >= 0:
            wanted = size + end + 1 + _ENOUGH
        pieces.append(data)
        size += len(data)
        if size > wanted:
            return b"".join(pieces)[:wanted], False
    return b"".join(pieces), True


def ends_with(name: str, *endings: str) -> bool:
    """Return True if a name, perhaps of a compressed file, has one of the endings."""
    return _without_packing(name).endswith(endings)
