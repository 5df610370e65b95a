"""The columns of Parquet and Arrow files that hold texts and ids: their types, values and documents.

Columns are named by the paths of `preprocess.reading.formats.fields`: structs are objects, lists are
lists, and the keys of a map are fields.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from preprocess.errors import UserError, one_line
from preprocess.reading.block import (
    Block,
    Locations,
    Rejected,
    excerpt,
    location,
    place_prefix,
    shortened,
)
from preprocess.reading.byte_range import UnreadableFile, unreadable_file
from preprocess.reading.encodings.decoding import decode, is_invalid, replace_invalid
from preprocess.reading.formats.arrow_values import values_of
from preprocess.reading.formats.fields import EACH, MISSING_FIELD, Fields, is_of
from preprocess.reading.options import ReadOptions

REASON = "wrong_columns"
"""Reason under which a file without a readable column is counted."""
_MOST_ROWS = 65_536


def import_pyarrow(path: str) -> Any:
    """Return the module pyarrow.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(
            f"{one_line(path)}: reading Parquet or Arrow needs pyarrow; pip install 'biloom[beam]'"
        ) from error
    return pyarrow


@dataclass(frozen=True)
class Columns:
    """The columns of a file that the settings of its source name.

    Attributes:
        pyarrow: the module.
        fields: the settings.
        roots: names of the top-level columns that have the fields, each once.
        plain: True if the text is one column of strings, which is not in a list or map.
    """

    pyarrow: Any
    fields: Fields
    roots: tuple[str, ...]
    plain: bool

    @staticmethod
    def find(pyarrow: Any, schema: Any, path: str, fields: Fields) -> "Columns":
        """Find the columns in the schema of a file.

        Raises:
            UnreadableFile: a column is missing or exists twice, or the texts are not strings.
        """
        key = "template" if fields.template else "text_field"
        roots: dict[str, None] = {}
        plain = not fields.template
        for wanted in fields.paths:
            root, kind, nested = _find(pyarrow, schema, path, key, wanted)
            _check_text(pyarrow, kind, path, key, wanted, fields.template)
            roots[root] = None
            plain = plain and not nested
        if fields.id_path is not None:
            roots[_find(pyarrow, schema, path, "id_field", fields.id_path)[0]] = None
        return Columns(pyarrow, fields, tuple(roots), plain)

    def read(self, batch: Any, first_row: int, name: str, options: ReadOptions) -> Block:
        """Return the documents of a batch of rows.

        Args:
            batch: the rows, with the columns ``roots``, perhaps without fields that are not needed.
            first_row: number of the first one.
            name: name of the file, for locations.
            options: settings.
        """
        texts, ids = self._texts(batch) if self.plain else self._joined(batch)
        documents: list[str] = []
        rejected: list[Rejected] = []
        kept: list[int] = []
        prefix = place_prefix(name, "row")
        replaced = 0
        for index, (value, reason) in enumerate(texts):
            text = ""
            if not reason and _size(value) > options.limits.max_document_bytes:
                reason = "oversized"
            elif not reason:
                text, invalid = _decoded(value)
                if invalid and options.drop_invalid:
                    reason = "invalid_bytes"
                elif invalid:
                    text, count = replace_invalid(text)
                    replaced += count
            if reason:
                where = location(prefix, first_row + index, ids[index] if ids else "")
                shown = shortened(value) if isinstance(value, str) else excerpt(value)
                rejected.append(Rejected(reason, shown, where))
            else:
                documents.append(text)
                kept.append(index)
        rows = [first_row + index for index in kept]
        kept_ids = [ids[index] for index in kept] if ids else ()
        locations = Locations(name, "row", lambda: rows, kept_ids)
        return Block(documents, rejected, replaced, 0, ((0, locations),))

    def _texts(self, batch: Any) -> tuple[list[tuple[bytes | str, str]], list[str]]:
        """Return the text of each row and the reason to reject it, and the ids, if there are any."""
        texts = column_of(batch, self.fields.paths[0])
        if self.pyarrow.types.is_dictionary(texts.type):
            texts = texts.dictionary_decode()
        # As bytes, because writers do not check that strings are valid UTF-8.
        values = texts.cast(self.pyarrow.large_binary()).to_pylist()
        found: list[tuple[bytes | str, str]] = [
            (b"", MISSING_FIELD) if value is None else (value, "") for value in values
        ]
        if self.fields.id_path is None:
            return found, []
        roots = [name for name in self.roots if is_of(self.fields.id_path, name)]
        return found, [self.fields.id(row) for row in self._rows(batch, roots)]

    def _joined(self, batch: Any) -> tuple[list[tuple[bytes | str, str]], list[str]]:
        """Return what `_texts` returns, from the values of all fields."""
        found: list[tuple[bytes | str, str]] = []
        ids: list[str] = []
        for row in self._rows(batch, self.roots):
            text, reason = self.fields.text(row)
            if reason:
                # Columns of one type can have no other text that is none.
                reason = MISSING_FIELD
                text = json.dumps(row, ensure_ascii=False, default=str)
            found.append((text, reason))
            if self.fields.id_path is not None:
                ids.append(self.fields.id(row))
        return found, ids

    def _rows(self, batch: Any, roots: "tuple[str, ...] | list[str]") -> list[dict[str, Any]]:
        columns = [values_of(self.pyarrow, batch.column(name)) for name in roots]
        return [dict(zip(roots, values, strict=True)) for values in zip(*columns, strict=True)]


def _size(value: bytes | str) -> int:
    return len(value) if isinstance(value, bytes) else len(value.encode("utf-8", "replace"))


def _decoded(value: bytes | str) -> tuple[str, bool]:
    return decode(value, "utf-8") if isinstance(value, bytes) else (value, is_invalid(value))


def batch_rows(rows: int, text_bytes: int, block_bytes: int) -> int:
    """Return the number of rows with about ``block_bytes`` of text.

    Args:
        rows: rows of which the size is known.
        text_bytes: bytes of their columns.
        block_bytes: bytes of text that are wanted.
    """
    return max(1, min(_MOST_ROWS, rows * block_bytes // max(1, text_bytes)))


def _find(pyarrow: Any, schema: Any, path: str, key: str, wanted: str) -> tuple[str, Any, bool]:
    """Return the top-level column of a field, its type, and whether it is in a list or map."""
    names = list(schema.names)
    parts = wanted.split(".")
    for number in range(len(parts), 0, -1):
        root, each = _without_each(".".join(parts[:number]), names)
        if (count := names.count(root)) > 1:
            problem = f"{count} columns are named '{root}'"
            raise unreadable_file(path, problem, "rename them, or remove all but one", REASON)
        if count:
            look = _Look(pyarrow, path, key, wanted, names)
            kind, nested = look.inside(schema.field(root).type, each, parts[number:], root)
            return root, kind, nested
    raise _missing(path, key, wanted, names)


def _without_each(name: str, names: Sequence[str]) -> tuple[str, bool]:
    """Return a name without a final ``[]`` that is not part of it, and whether there was one."""
    each = name.endswith(EACH) and name not in names
    return (name.removesuffix(EACH), True) if each else (name, False)


class _Look(NamedTuple):
    """Finds a field inside a column; the attributes are those of `_find`."""

    pyarrow: Any
    path: str
    key: str
    wanted: str
    names: list[str]

    def inside(self, kind: Any, each: bool, parts: list[str], at: str) -> tuple[Any, bool]:
        """Return the type of a field, and whether it needs more than structs to reach it.

        Args:
            kind: type of the column or field ``at``.
            each: whether its items are meant.
            parts: names that lead from there.
            at: path of the column or field, for messages.
        """
        types = self.pyarrow.types
        if each:
            if not _is_list(self.pyarrow, kind):
                problem = f"'{at}' of '{self.wanted}' holds {kind}, not a list"
                raise unreadable_file(self.path, problem, f"leave out the '{EACH}'", REASON)
            return self.inside(kind.value_type, False, parts, f"{at}{EACH}")[0], True
        if not parts:
            return kind, False
        if _is_list(self.pyarrow, kind):
            problem = f"'{at}' is a list, so '{self.wanted}' is in each of its items"
            remedy = f"set the source's {self.key} to '{at}{EACH}{self.wanted.removeprefix(at)}'"
            raise unreadable_file(self.path, problem, remedy, REASON)
        if types.is_map(kind):
            _, each = _without_each(parts[-1], ())
            return (kind.item_type.value_type if each else kind.item_type), True
        inner = (
            [kind.field(i).name for i in range(kind.num_fields)] if types.is_struct(kind) else []
        )
        for number in range(len(parts), 0, -1):
            name, each = _without_each(".".join(parts[:number]), inner)
            if name in inner:
                found = kind.field(name).type
                kind, nested = self.inside(found, each, parts[number:], f"{at}.{name}")
                return kind, nested or number > 1
        listed = [f"{at}.{name}" for name in inner]
        raise _missing(self.path, self.key, self.wanted, listed or self.names)


def _check_text(pyarrow: Any, kind: Any, path: str, key: str, wanted: str, numbers: bool) -> None:
    """Check that a column holds text, or numbers if a template names it."""
    types = pyarrow.types
    if isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    value_type = kind.value_type if types.is_dictionary(kind) else kind
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    views = (types.is_string_view, types.is_binary_view)
    if any(is_text(value_type) for is_text in (*texts, *views, types.is_null)):
        return
    if numbers and (types.is_integer(value_type) or types.is_floating(value_type)):
        return
    problem = f"column '{wanted}' holds {kind}, not text"
    remedy = f"set the source's {key} to a column of strings"
    if types.is_struct(kind):
        inner = [f"'{wanted}.{kind.field(i).name}'" for i in range(kind.num_fields)]
        remedy = f"set the source's {key} to one of its fields: {', '.join(inner)}"
    elif _is_list(pyarrow, kind):
        problem = f"column '{wanted}' holds a list in each row ({kind}), not text"
        remedy = f"set the source's {key} to '{wanted}{EACH}' to join its items by line ends"
        inner_kind = kind.value_type
        if types.is_struct(inner_kind):
            names = [inner_kind.field(i).name for i in range(inner_kind.num_fields)]
            remedy = f"set the source's {key} to a field of its items: " + ", ".join(
                f"'{wanted}{EACH}.{name}'" for name in names
            )
    elif types.is_map(kind):
        remedy = f"set the source's {key} to one of its keys, as in '{wanted}.KEY'"
    raise unreadable_file(path, problem, remedy, REASON)


def _missing(path: str, key: str, column: str, names: list[str]) -> UnreadableFile:
    listed = ", ".join(f"'{name}'" for name in names)
    problem, remedy = f"no column '{column}'", f"set the source's {key} to one of {listed}"
    return unreadable_file(path, problem, remedy, REASON)


def _is_list(pyarrow: Any, kind: Any) -> bool:
    types = pyarrow.types
    return any(
        test(kind) for test in (types.is_list, types.is_large_list, types.is_fixed_size_list)
    )


def column_of(batch: Any, name: str) -> Any:
    """Return a column of a batch as an array, also if it is in a struct."""
    parts = name.split(".")
    number = len(parts)
    while ".".join(parts[:number]) not in batch.schema.names:
        number -= 1
    column = batch.column(".".join(parts[:number]))
    for part in parts[number:]:
        index = column.type.get_field_index(part)
        # Unlike `field`, it sets the nulls of the struct in the fields too.
        column = column.flatten()[index]
    return column.storage if hasattr(column, "storage") else column
