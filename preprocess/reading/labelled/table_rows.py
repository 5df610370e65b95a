"""Rows of tables: CSV, TSV and Parquet files."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from preprocess.errors import UserError, one_line
from preprocess.reading.encodings.decoding import decode
from preprocess.reading.kinds.columns import column_of
from preprocess.reading.kinds.json_shape import MISSING
from preprocess.reading.labelled.columns import (
    SAMPLE,
    Roles,
    find_column,
    find_roles,
    has_header,
    is_known,
    is_named,
    listed,
)
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.rows import Lines, Row, Rows, as_string, unused_note
from preprocess.reading.labelled.tables import (
    BROKEN,
    DELIMITER_NAMES,
    Dialect,
    Record,
    count_odd,
    find_dialect,
    read_records,
    usual_size,
)
from preprocess.reading.parquet import open_parquet


def table_rows(
    path: str,
    lines: Lines,
    dialect: Dialect,
    options: LabelledTextOptions,
    with_labels: bool,
) -> Rows:
    """Read a table whose dialect is known.

    Raises:
        UserError: a column that is set does not exist, or columns cannot be found.
    """
    head = list(read_records(lines.head, dialect))
    complete = [record.fields for record in head if record.fields]
    if not complete:
        raise UserError(f"{one_line(path)}: no line of this table can be read: {BROKEN}")
    size = usual_size(head)
    header = _header(path, complete, size, options)
    if header:
        size = len(header)
        _check_size(path, head, size)
    names = header or [f"column {number}" for number in range(1, size + 1)]
    body = complete[1:] if header else complete
    whole = [fields for fields in body if len(fields) == size]
    # From all over the file, because files may be sorted by label.
    sample = whole[:: -(-len(whole) // SAMPLE) or 1]
    roles = find_roles(path, names, header is not None, sample, options, with_labels)
    known = _labels(body, size, roles) if with_labels and dialect.quoted else set()
    kind = DELIMITER_NAMES[dialect.delimiter]
    described = f"{kind} with a header" if header else f"{kind} without a header"

    def is_record(line: str) -> bool:
        """Return True if a line inside quotes is a record with a label that others have."""
        fields = line.removesuffix("\r").split(dialect.delimiter)
        return len(fields) == size and fields[roles.label or 0] in known

    def rows() -> Iterator[Row]:
        records = read_records(lines, dialect, is_record if known else None)
        skip = header is not None
        for record in records:
            if skip and record.fields:
                skip = False
                continue
            yield _row(record, size, roles, header)

    notes = unused_note([name for i, name in enumerate(names) if i not in _used(roles)])
    if dialect.quoted:
        notes += ("quotes around fields are removed",)
    notes += _header_notes(options, header, complete)
    return Rows(described, rows(), _columns(roles, names, header is not None), notes)


def _used(roles: Roles) -> tuple[int | None, ...]:
    return roles.text, roles.pair, roles.label


def _columns(roles: Roles, names: Sequence[str], named: bool) -> Mapping[str, str]:
    found = {"text": roles.text, "pair": roles.pair, "label": roles.label}
    shown: dict[str, str] = {}
    for role, index in found.items():
        if index is not None:
            number = f"column {index + 1}"
            how = [number] * named + ["guessed"] * (role in roles.guessed)
            name = f"'{one_line(names[index])}'" if named else number
            shown[role] = f"{name} ({', '.join(how)})" if how else name
    return shown


def _header(
    path: str, rows: Sequence[list[str]], size: int, options: LabelledTextOptions
) -> list[str] | None:
    """Return the names of the columns, or None if the first row holds data."""
    first = [name.strip() for name in rows[0]]
    if options.header != "auto":
        return first if options.header == "yes" else None
    named = [
        (key, name)
        for key in ("text", "pair", "label", "labels")
        if is_named(name := getattr(options, key))
    ]
    if named and not any(
        name in first or name.lower() in map(str.lower, first) for _, name in named
    ):
        if has_header([row for row in rows if len(row) == len(first)]):
            find_column(path, *named[0], first, True)
        shown = listed([cell[:40] for cell in first])
        raise UserError(
            f"{one_line(path)}: there is no column '{one_line(named[0][1])}'; the first line ({shown}) is "
            f"no header that names it; set {named[0][0]} to a number from 1 to {size}, or header=yes"
        )
    if named:
        return first
    same = [row for row in rows[: SAMPLE + 1] if len(row) == len(first)]
    return first if len(first) > 1 and has_header(same) else None


def _header_notes(
    options: LabelledTextOptions, header: Sequence[str] | None, rows: Sequence[list[str]]
) -> tuple[str, ...]:
    first = rows[0]
    shown = ", ".join(f"'{one_line(cell[:20])}'" for cell in first)
    if options.header == "auto":
        if header is None:
            return (f"line 1 is data ({shown}); header=yes reads it as names",)
        known = "" if any(map(is_known, header)) else ", because it is unlike the lines below"
        return (f"line 1 names the columns ({shown}){known}; header=no reads it as data",)
    same = [row for row in rows[: SAMPLE + 1] if len(row) == len(first)]
    looks = has_header(same)
    if looks == (options.header == "yes"):
        return ()
    what = "names of columns" if looks else "data"
    return (f"line 1 looks like {what} ({shown}); header={options.header} was set",)


def _check_size(path: str, records: Sequence[Record], size: int) -> None:
    odd = count_odd(records, size)
    usual = usual_size(records)
    if usual != size and odd > len(records) / 2:
        raise UserError(
            f"{one_line(path)}: the header has {size} names, but most lines have {usual} fields; correct "
            "the header, or set header=no and columns by number"
        )


def _labels(rows: Sequence[list[str]], size: int, roles: Roles) -> set[str]:
    """Return the values of the label column in records without line breaks."""
    assert roles.label is not None
    return {
        fields[roles.label]
        for fields in rows
        if len(fields) == size and not any("\n" in field for field in fields)
    }


def _row(record: Record, size: int, roles: Roles, header: Sequence[str] | None) -> Row:
    place, fields = f"line {record.line}", record.fields
    if fields and [field.strip() for field in fields] == header:
        # As in files that were joined.
        return Row(place, None, problem="the header again")
    if not fields:
        return Row(place, None, problem=BROKEN)
    if len(fields) != size:
        few = len(fields) < size
        return Row(place, None, problem="too few fields" if few else "too many fields")
    pair = MISSING if roles.pair is None else fields[roles.pair]
    return Row(
        place, fields[roles.text], pair, None if roles.label is None else fields[roles.label]
    )


_BATCH = 1024
_DIALECT_LINES = 20_000
"""First lines of a table from which its delimiter and the meaning of quotes are found."""


def choose_dialect(lines: Sequence[str], delimiters: Sequence[str]) -> Dialect | None:
    """Return the dialect of a table, or None if the lines are no table with one of the delimiters.

    A delimiter divides nearly all records into the same number of fields, or the first one into
    known names of columns.
    """
    best: tuple[float, Dialect] | None = None
    lines = lines[:_DIALECT_LINES]
    for delimiter in delimiters:
        if not any(delimiter in line for line in lines):
            continue
        dialect, records = find_dialect(lines, delimiter)
        size = usual_size(records)
        share = 1 - count_odd(records, size) / max(1, sum(record.lines for record in records))
        first = next((record.fields for record in records if record.fields), [])
        named = len(first) > 1 and sum(map(is_known, first)) > 0
        score = share + (1 if named else 0)
        if ((size > 1 and share >= 0.9) or named) and (best is None or score > best[0]):
            best = score, dialect
    return best[1] if best else None


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
    label = None if roles.label is None else _values(first, names[roles.label])
    several = label is not None and any(isinstance(value, list) for value in label)
    return Rows(
        "Parquet",
        _read_parquet(path, file, used),
        _columns(roles, names, True),
        unused_note([name for name in names if name not in used]),
        several or options.labels is not None,
    )


def _read_parquet(path: str, file: BinaryIO, names: Sequence[str | None]) -> Iterator[Row]:
    columns = sorted({name for name in names if name})
    number = 0
    with open_parquet(file, path) as (_, table):
        for batch in table.iter_batches(_BATCH, columns=columns, use_threads=False):
            missing = (MISSING, None)
            text, pair, label = (
                _values(batch, name) if name else [missing[index == 2]] * batch.num_rows
                for index, name in enumerate(names)
            )
            for values in zip(text, pair, label, strict=True):
                yield Row(f"row {number}", *values)
                number += 1


def _values(batch: Any, name: str) -> list[Any]:
    """Return the values of a column; invalid bytes in a string become lone surrogates."""
    import pyarrow

    column = column_of(batch, name)
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    types = pyarrow.types
    tests = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    if any(
        is_text(column.type) for is_text in (*tests, types.is_string_view, types.is_binary_view)
    ):
        # As bytes, because writers do not check that strings are valid UTF-8.
        values = column.cast(pyarrow.large_binary()).to_pylist()
        return [None if value is None else decode(value, "utf-8")[0] for value in values]
    return list(column.to_pylist())
