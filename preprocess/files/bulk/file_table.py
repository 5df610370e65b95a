"""Records of many files in columns, for manifests whose files are many.

As JSON rows and Python objects, the records of 350,000 files take 90 MB in the manifest and 400 MB in each
process that opens it. As columns they take 35 MB, and a record is made when it is asked for.

The file is an npy file with a row for each record. Its columns are ``name`` (UTF-8), ``bytes``, the halves
``high`` and ``low`` of the hash, and the further columns of the records: integers, ``<u8``, and strings, whose
``<u4`` are indexes in a list of strings. The largest number of a column stands for a missing value. The manifest
has the names of these columns and the lists.
"""

import io
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from preprocess.files.bulk.file_record import FileRecord, ManifestError, is_size

Description = dict[str, Any]
"""What the manifest has of the table: ``rows``, ``name_bytes``, names of the ``integers``, and ``strings``, the
list of strings of each column."""


class FileTable(Sequence[FileRecord]):
    """The records in a file; each is made anew, and checked, when it is asked for.

    Args:
        rows: the rows.
        description: description of the table.
    """

    def __init__(self, rows: npt.NDArray[Any], description: Description) -> None:
        self._rows, self._integers = rows, tuple(description["integers"])
        self._strings: dict[str, list[str]] = description["strings"]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> FileRecord: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[FileRecord, ...]: ...
    def __getitem__(self, index: int | slice) -> FileRecord | tuple[FileRecord, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        row = dict(zip(self._rows.dtype.names or (), self._rows[index].tolist(), strict=True))
        counts: dict[str, int | str] = {}
        for number, column in enumerate(self._integers):
            if (value := row[f"i{number}"]) != _MISSING:
                counts[column] = value
        for number, (column, values) in enumerate(self._strings.items()):
            if (place := row[f"s{number}"]) != _NO_STRING:
                if place >= len(values):
                    raise ManifestError(f"column '{column}' of a file has no string {place:,}")
                counts[column] = values[place]
        try:
            name = row["name"].decode()
        except UnicodeDecodeError as error:
            raise ManifestError(f"the name {row['name']!r:.60} of a file is not UTF-8") from error
        return FileRecord(name, row["bytes"], f"{row['high']:016x}{row['low']:016x}", counts)

    def __iter__(self) -> Iterator[FileRecord]:
        return map(self.__getitem__, range(len(self)))

    @cached_property
    def by_name(self) -> "Records":
        """The records by name."""
        return Records(self, self._rows["name"])


class Records(Mapping[str, FileRecord]):
    """The records of a table by name.

    Args:
        table: the table.
        names: the names, UTF-8, shape (files,).

    Raises:
        ValueError: a name occurs twice.
    """

    def __init__(self, table: FileTable, names: npt.NDArray[np.bytes_]) -> None:
        self._table = table
        self._order = np.argsort(names, kind="stable")
        self._names = names[self._order]
        twice = np.flatnonzero(self._names[1:] == self._names[:-1])
        if len(twice):
            raise ValueError(f"it lists '{self._names[twice[0]].decode(errors='replace')}' twice")

    def __getitem__(self, name: str) -> FileRecord:
        key = name.encode("utf-8", "surrogatepass")
        at = bisect_left(self._names, key)
        if at == len(self._names) or self._names[at] != key:
            raise KeyError(name)
        return self._table[int(self._order[at])]

    def __iter__(self) -> Iterator[str]:
        return (file.name for file in self._table)

    def __len__(self) -> int:
        return len(self._table)


def encode_table(files: Sequence[FileRecord]) -> tuple[bytes, Description]:
    """Return the content of a table's file, and its description."""
    integers: dict[str, None] = {}
    strings: dict[str, dict[str, int]] = {}
    name_bytes = 1
    for file in files:
        name_bytes = max(name_bytes, len(file.name.encode()))
        for column, value in file.counts.items():
            if isinstance(value, str):
                values = strings.setdefault(column, {})
                values.setdefault(value, len(values))
            else:
                integers[column] = None
    described: Description = {
        "rows": len(files),
        "name_bytes": name_bytes,
        "integers": list(integers),
        "strings": {column: list(values) for column, values in strings.items()},
    }
    rows = np.empty(len(files), _dtype(described))
    rows["name"] = [file.name.encode() for file in files]
    rows["bytes"] = [file.bytes for file in files]
    for column, part in (("high", slice(0, 16)), ("low", slice(16, 32))):
        rows[column] = np.array([int(file.xxh128[part], 16) for file in files], np.uint64)
    for number, column in enumerate(integers):
        rows[f"i{number}"] = _values(files, column, int, _MISSING)
    for number, (column, values) in enumerate(strings.items()):
        found = (values.get(str(file.counts.get(column)), _NO_STRING) for file in files)
        rows[f"s{number}"] = np.fromiter(found, np.uint32, len(files))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, rows, (1, 0), allow_pickle=False)
    return buffer.getvalue(), described


def decode_table(data: bytes, described: Any) -> FileTable:
    """Return the table in a file.

    Args:
        data: content of the file.
        described: its description, which may be damaged.

    Raises:
        ValueError: they do not match, or the description is damaged.
    """
    if not _is_description(described):
        raise ValueError(f"'table' is {described!r:.60}")
    dtype, head = _dtype(described), io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(head, {**header, "shape": (described["rows"],)})
    start = head.getvalue()
    if len(data) != len(start) + described["rows"] * dtype.itemsize or not data.startswith(start):
        raise ValueError("its table does not match its description")
    return FileTable(np.frombuffer(data, dtype, offset=len(start)), described)


_MISSING, _NO_STRING = 2**64 - 1, 2**32 - 1
_MOST_COLUMNS, _MOST_NAME_BYTES = 100, 1 << 16


def _dtype(described: Description) -> np.dtype[Any]:
    columns: list[tuple[str, str]] = [("name", f"S{described['name_bytes']}")]
    columns += [(name, "<u8") for name in ("bytes", "high", "low")]
    columns += [(f"i{number}", "<u8") for number in range(len(described["integers"]))]
    columns += [(f"s{number}", "<u4") for number in range(len(described["strings"]))]
    return np.dtype(columns)


def _values(
    files: Iterable[FileRecord], column: str, kind: type, missing: int
) -> npt.NDArray[np.uint64]:
    values = (file.counts.get(column, missing) for file in files)
    return np.array([value if isinstance(value, kind) else missing for value in values], np.uint64)


def _is_description(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"rows", "name_bytes", "integers", "strings"} <= value.keys()
        and is_size(value["rows"])
        and is_size(value["name_bytes"])
        and 0 < value["name_bytes"] <= _MOST_NAME_BYTES
        and isinstance(value["integers"], list)
        and isinstance(value["strings"], dict)
        and len(value["integers"]) + len(value["strings"]) <= _MOST_COLUMNS
        and all(type(column) is str for column in value["integers"])
        and all(
            isinstance(texts, list) and all(type(text) is str for text in texts)
            for texts in value["strings"].values()
        )
    )
