"""Tables of text with tabs, whose fields are escaped so that any text is read back unchanged."""

import re
from collections.abc import Sequence

# Control characters, the line and paragraph separators and lone surrogates. Other programs would end a
# line at some of them, and UTF-8 has no bytes for the last.
_ESCAPED = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAMES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPE = re.compile(r"\\(u[0-9a-f]{4}|.)", re.DOTALL)
_VALUES = {name[1]: character for character, name in _NAMES.items()}


def escape_field(text: str) -> str:
    r"""Return a text as a field: a backslash as ``\\``, others as ``\t``, ``\n``, ``\r``, ``\u2028``."""
    return _ESCAPED.sub(lambda found: _NAMES.get(found[0], f"\\u{ord(found[0]):04x}"), text)


def unescape_field(field: str) -> str:
    """Return the text of a field that `escape_field` wrote."""
    return _ESCAPE.sub(
        lambda found: _VALUES[found[1]] if found[1] in _VALUES else chr(int(found[1][1:], 16)),
        field,
    )


def table_bytes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """Return a table in UTF-8: a header and a line for each row, with escaped fields."""
    lines = ["\t".join(map(escape_field, row)) for row in (columns, *rows)]
    return "".join(f"{line}\n" for line in lines).encode()


def read_table(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of a table that `table_bytes` wrote."""
    lines = data.decode().removesuffix("\n").split("\n")
    columns, *rows = ([unescape_field(field) for field in line.split("\t")] for line in lines)
    return columns, rows
