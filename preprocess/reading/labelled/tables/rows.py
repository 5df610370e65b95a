"""Rows of CSV and TSV files."""

from collections.abc import Iterator, Mapping, Sequence

from preprocess.errors import UserError, one_line
from preprocess.reading.formats.fields import MISSING
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
from preprocess.reading.labelled.flags import named_columns
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.rows import Lines, Row, Rows, flagged_row, unused_note
from preprocess.reading.tables.records import (
    BROKEN,
    DELIMITER_NAMES,
    Dialect,
    Record,
    count_odd,
    read_records,
    usual_size,
)


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
    if not with_labels:
        # The labels of the training file may have other columns, or none.
        options = options.model_copy(update={"label": None, "labels": None})
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
    known = (
        _labels(body, size, roles.label) if roles.label is not None and dialect.quoted else set()
    )
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
            yield _row(record, size, roles, header, names)

    notes = unused_note([name for i, name in enumerate(names) if i not in _used(roles)])
    if dialect.quoted:
        notes += ("quotes around fields are removed",)
    notes += _header_notes(options, header, complete)
    return Rows(described, rows(), shown_columns(roles, names, header is not None), notes)


def _used(roles: Roles) -> tuple[int | None, ...]:
    return roles.text, roles.pair, roles.label, *roles.flags


def shown_columns(roles: Roles, names: Sequence[str], named: bool) -> Mapping[str, str]:
    """Return the column of each role, for `Rows.columns`."""
    found = {"text": roles.text, "pair": roles.pair, "label": roles.label}
    shown: dict[str, str] = {}
    for role, index in found.items():
        if index is not None:
            number = f"column {index + 1}"
            how = [number] * named + ["guessed"] * (role in roles.guessed)
            name = f"'{one_line(names[index])}'" if named else number
            shown[role] = f"{name} ({', '.join(how)})" if how else name
    if roles.flags:
        shown["labels"] = f"a column each ({', '.join(names[index] for index in roles.flags)})"
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
        for name in _names(getattr(options, key), first)
        if is_named(name)
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


def _names(option: str | None, first: Sequence[str]) -> list[str]:
    return named_columns(option, first) or ([] if option is None else [option])


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


def _labels(rows: Sequence[list[str]], size: int, label: int) -> set[str]:
    """Return the values of the label column in records without line breaks."""
    return {
        fields[label]
        for fields in rows
        if len(fields) == size and not any("\n" in field for field in fields)
    }


def _row(
    record: Record, size: int, roles: Roles, header: Sequence[str] | None, names: Sequence[str]
) -> Row:
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
    if roles.flags:
        return flagged_row(place, fields[roles.text], pair, roles.flags, names, fields)
    return Row(
        place, fields[roles.text], pair, None if roles.label is None else fields[roles.label]
    )
