"""The columns of a Parquet file that hold texts and ids: finding them by name, and errors.

A column in a struct is named with dots, as in ``meta.title``, unless a column has that whole name.
"""

from typing import Any

from preprocess.reading.byte_range import UnreadableFile, unreadable_file

REASON = "wrong_columns"
"""Reason under which a file without a readable column is counted."""


def check_columns(pyarrow: Any, schema: Any, path: str, text: str, id_field: str | None) -> None:
    """Check that a file has the columns of texts and ids.

    Args:
        pyarrow: the module.
        schema: the Arrow schema of the file.
        path: the file.
        text: name of the column of texts.
        id_field: name of the column of ids, if any.

    Raises:
        UnreadableFile: a column is missing or exists twice, or the texts are not strings.
    """
    kind = _find(pyarrow, schema, path, "text_field", text)
    if id_field is not None:
        _find(pyarrow, schema, path, "id_field", id_field)
    types = pyarrow.types
    if isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    value_type = kind.value_type if types.is_dictionary(kind) else kind
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    views = (types.is_string_view, types.is_binary_view)
    if any(is_text(value_type) for is_text in (*texts, *views, types.is_null)):
        return
    problem = f"column '{text}' holds {kind}, not text"
    remedy = "set the source's text_field to a column of strings"
    if types.is_struct(kind):
        fields = [f"'{text}.{kind.field(i).name}'" for i in range(kind.num_fields)]
        remedy = f"set the source's text_field to one of its fields: {', '.join(fields)}"
    elif _is_list(pyarrow, kind):
        problem = f"column '{text}' holds a list in each row ({kind}), not text"
        remedy = "convert it to one string per row"
    raise unreadable_file(path, problem, remedy, REASON)


def _find(pyarrow: Any, schema: Any, path: str, key: str, column: str) -> Any:
    """Return the type of a column that a setting names."""
    names = list(schema.names)
    if (number := names.count(column)) > 1:
        problem = f"{number} columns are named '{column}'"
        raise unreadable_file(path, problem, "rename them, or remove all but one", REASON)
    if number:
        return schema.field(column).type
    first, *parts = column.split(".")
    if not parts or names.count(first) != 1:
        raise _missing(path, key, column, names)
    kind = schema.field(first).type
    for part in parts:
        if _is_list(pyarrow, kind) or pyarrow.types.is_map(kind):
            problem = f"'{column}' is inside a list or map, '{first}'"
            raise unreadable_file(path, problem, "convert it to one string per row", REASON)
        index = kind.get_field_index(part) if pyarrow.types.is_struct(kind) else -1
        if index < 0:
            inner = [f"{first}.{kind.field(i).name}" for i in range(kind.num_fields)]
            raise _missing(path, key, column, inner or names)
        kind, first = kind.field(index).type, f"{first}.{part}"
    return kind


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
    """Return a column of a batch as an array, also if it is in a struct; see the module."""
    first, *parts = [name] if name in batch.schema.names else name.split(".")
    column = batch.column(first)
    for part in parts:
        index = column.type.get_field_index(part)
        # Unlike `field`, it sets the nulls of the struct in the fields too.
        column = column.flatten()[index]
    return column.storage if hasattr(column, "storage") else column
