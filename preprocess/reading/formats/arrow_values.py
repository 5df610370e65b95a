"""Values of Arrow columns as Python values, without the errors of invalid UTF-8."""

from collections.abc import Callable
from typing import Any

from preprocess.reading.encodings.decoding import decode


def with_bytes(pyarrow: Any, kind: Any) -> Any:
    """Return an Arrow type with bytes in place of strings, because writers do not check strings."""
    types = pyarrow.types
    is_text: tuple[Callable[[Any], bool], ...] = (types.is_string, types.is_large_string)
    if any(test(kind) for test in (*is_text, types.is_string_view, types.is_binary_view)):
        return pyarrow.large_binary()
    if types.is_list(kind):
        return pyarrow.list_(with_bytes(pyarrow, kind.value_type))
    if types.is_large_list(kind):
        return pyarrow.large_list(with_bytes(pyarrow, kind.value_type))
    if types.is_fixed_size_list(kind):
        return pyarrow.list_(with_bytes(pyarrow, kind.value_type), kind.list_size)
    if types.is_map(kind):
        return pyarrow.map_(with_bytes(pyarrow, kind.key_type), with_bytes(pyarrow, kind.item_type))
    if types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return pyarrow.struct([(field.name, with_bytes(pyarrow, field.type)) for field in fields])
    return kind


def decoded(value: Any) -> Any:
    """Return a value with strings in place of bytes, and a map as a dict.

    Invalid bytes become lone surrogates, see `preprocess.reading.encodings.decoding`.
    """
    match value:
        case bytes():
            return decode(value, "utf-8")[0]
        case list():
            if value and isinstance(value[0], tuple):
                return {decoded(key): decoded(item) for key, item in value}
            return [decoded(item) for item in value]
        case dict():
            return {key: decoded(item) for key, item in value.items()}
    return value


def values_of(pyarrow: Any, column: Any) -> list[Any]:
    """Return the values of an array, as `decoded` does."""
    if hasattr(column, "storage"):
        column = column.storage
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return [decoded(value) for value in column.cast(with_bytes(pyarrow, column.type)).to_pylist()]
