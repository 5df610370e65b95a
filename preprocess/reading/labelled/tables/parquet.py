"""Rows of Parquet files, as texts with labels or as objects."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from preprocess.errors import UserError, one_line
from preprocess.reading.encodings.decoding import decode
from preprocess.reading.formats.arrow_values import with_bytes
from preprocess.reading.formats.columns import column_of
from preprocess.reading.formats.fields import MISSING
from preprocess.reading.formats.parquet import open_parquet
from preprocess.reading.labelled.columns import SAMPLE, find_roles, listed
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.rows import Row, Rows, as_string, flagged_row, unused_note
from preprocess.reading.labelled.tables.rows import shown_columns

_BATCH = 1024
_NO_LABEL = -1
"""The number of a missing label in data sets of Hugging Face."""


def parquet_rows(
    path: str, file: BinaryIO, options: LabelledTextOptions, with_labels: bool
) -> Rows:
    """Read a Parquet file, in batches of rows, which are counted from 0.

    Raises:
        DamagedFile: the file is damaged.
        UserError: pyarrow is not installed, or columns cannot be found.
    """
    with open_parquet(file, path) as (_, table):
        names = list(table.schema_arrow.names)
        for option in (options.text, options.pair, options.label, options.labels):
            if option and option not in names and option.partition(".")[0] in names:
                names.append(option)
        first = next(table.iter_batches(SAMPLE, use_threads=False), None)
        if first is None:
            raise UserError(f"{one_line(path)}: this Parquet file has no rows; name another one")
        sampled = [[*map(as_string, _values(first, name))] for name in names]
        sample = [[*row] for row in zip(*sampled, strict=True)]
        roles = find_roles(path, names, True, sample, options, with_labels)
    used = [
        None if index is None else names[index] for index in (roles.text, roles.pair, roles.label)
    ]
    flags = [names[index] for index in roles.flags]
    label = None if roles.label is None else _values(first, names[roles.label])
    several = label is not None and any(isinstance(value, list) for value in label)
    notes = unused_note([name for name in names if name not in (*used, *flags)])
    return Rows(
        "Parquet",
        _read_rows(path, file, used, flags),
        shown_columns(roles, names, True),
        notes + class_notes(first.schema, [name for name in used if name]),
        several or options.labels is not None,
    )


def _read_rows(
    path: str, file: BinaryIO, names: Sequence[str | None], flags: Sequence[str]
) -> Iterator[Row]:
    columns = sorted({name for name in (*names, *flags) if name})
    for number, values in enumerate(_read(path, file, columns)):
        found = dict(zip(columns, values, strict=True))
        missing = (MISSING, None)
        text, pair, label = (
            found[name] if name else missing[index == 2] for index, name in enumerate(names)
        )
        place = f"row {number}"
        if flags:
            marks = [found[name] for name in flags]
            yield flagged_row(place, text, pair, range(len(flags)), flags, marks)
        else:
            yield Row(place, text, pair, label)


def parquet_objects(path: str, file: BinaryIO) -> tuple[list[tuple[str, object]], tuple[str, ...]]:
    """Return the rows of a Parquet file as objects with a place each, and notes.

    Raises:
        DamagedFile: the file is damaged.
        UserError: pyarrow is not installed, or the file has no rows.
    """
    with open_parquet(file, path) as (_, table):
        schema = table.schema_arrow
    names = list(schema.names)
    rows = enumerate(_read(path, file, names))
    found: list[tuple[str, object]] = [
        (f"row {number}", dict(zip(names, values, strict=True))) for number, values in rows
    ]
    if not found:
        raise UserError(f"{one_line(path)}: this Parquet file has no rows; name another one")
    return found, class_notes(schema, names)


def _read(path: str, file: BinaryIO, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the values of columns in each row."""
    with open_parquet(file, path) as (_, table):
        for batch in table.iter_batches(_BATCH, columns=list(columns), use_threads=False):
            yield from zip(*(_values(batch, name) for name in columns), strict=True)


def _values(batch: Any, name: str) -> list[Any]:
    """Return the values of a column, classes by their names.

    Invalid bytes in a string become lone surrogates.
    """
    import pyarrow

    column = column_of(batch, name)
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # As bytes, because writers do not check that strings are valid UTF-8.
    values = column.cast(with_bytes(pyarrow, column.type)).to_pylist()
    classes = class_names(batch.schema, name)
    return [_decoded(value, classes) for value in values]


def _decoded(value: Any, classes: Sequence[str]) -> Any:
    """Return a value with strings in place of bytes and of the numbers of classes."""
    match value:
        case bytes():
            return decode(value, "utf-8")[0]
        case list():
            return [_decoded(item, classes) for item in value]
        case dict():
            return {key: _decoded(item, classes) for key, item in value.items()}
        case int() if classes and not isinstance(value, bool):
            if value == _NO_LABEL:
                return None
            return classes[value] if 0 <= value < len(classes) else value
    return value


def class_names(schema: Any, column: str) -> list[str]:
    """Return the names of the classes that the numbers of a column stand for.

    Data sets of Hugging Face have them in the metadata of the schema. Empty if there are none.
    """
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = metadata["info"]["features"][column]
        while "names" not in feature:
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        names = feature["names"]
    except (ValueError, KeyError, TypeError, IndexError):
        return []
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []


def class_notes(schema: Any, columns: Sequence[str]) -> tuple[str, ...]:
    """Return notes about columns whose numbers are read as the names of classes."""
    named = ((column, class_names(schema, column)) for column in columns)
    return tuple(
        f"'{one_line(column)}': numbers are read as the names that the file has for them "
        f"({listed(names)})"
        for column, names in named
        if names
    )
