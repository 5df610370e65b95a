"""Rows of a labelled file as they are in it: before labels and texts are checked."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from preprocess.errors import UserError, one_line
from preprocess.reading.formats.fields import MISSING, value_of
from preprocess.reading.labelled.columns import SAMPLE, find_roles, normal
from preprocess.reading.labelled.flags import NEITHER, labels_of, named_columns
from preprocess.reading.labelled.options import LabelledTextOptions


class Row(NamedTuple):
    """A record of a file.

    Attributes:
        place: where it is.
        text: the value of its text; None if it is missing.
        pair: the value of its second text; `MISSING` if the file has no pairs.
        label: a string, a number, a list of these, or None if it is missing.
        problem: why it cannot be used, if that is known already.
    """

    place: str
    text: object
    pair: object = MISSING
    label: object = None
    problem: str = ""


@dataclass(frozen=True)
class Rows:
    """The rows of a file, and how they were found.

    Attributes:
        format: for `Reading.format`.
        rows: the rows, in the order of the file.
        columns: for `Reading.columns`.
        notes: for `Reading.notes`.
        several: True if the labels of the format are lists.
    """

    format: str
    rows: Iterator[Row]
    columns: Mapping[str, str]
    notes: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True)
class Lines:
    """The lines of a file without line feeds.

    Attributes:
        head: the first lines, from which columns are found; all lines if the file is in memory.
        rest: the lines after them.
    """

    head: Sequence[str]
    rest: Iterator[str]

    def __iter__(self) -> Iterator[str]:
        return chain(self.head, self.rest)


def flagged_row(
    place: str,
    text: object,
    pair: object,
    flags: Iterable[int],
    names: Sequence[str],
    values: Sequence[object],
) -> Row:
    """Return a row whose labels have a column each.

    Args:
        place, text, pair: as in `Row`.
        flags: indices of the columns of labels.
        names: names of the columns.
        values: values of the columns.
    """
    chosen = list(flags)
    labels = labels_of([names[i] for i in chosen], [values[i] for i in chosen])
    return Row(place, text, pair, labels, "" if labels is not None else NEITHER)


FASTTEXT = re.compile(r"(?<!\S)__label__(\S*)")


def fasttext_rows(lines: Lines) -> Rows:
    """Read lines whose words that begin with ``__label__`` are labels, wherever they are."""

    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                labels = FASTTEXT.findall(line)
                text = " ".join(part.strip() for part in FASTTEXT.split(line)[::2]).strip()
                yield Row(f"line {number}", text, label=labels or None)

    return Rows("fastText (__label__)", rows(), {}, several=True)


def label_first_rows(lines: Lines) -> Rows:
    """Read lines whose first word is the label."""

    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                label, _, text = line.strip(" \t\r").replace("\t", " ", 1).partition(" ")
                yield Row(f"line {number}", text.strip(" \t"), label=label)

    return Rows("lines that begin with their label", rows(), {})


def plain_rows(lines: Lines) -> Rows:
    """Read lines as texts without labels; a blank line is an empty text."""
    rows = (
        Row(f"line {number}", line.removesuffix("\r")) for number, line in enumerate(lines, start=1)
    )
    return Rows("plain text, one text a line", rows, {})


def json_lines_rows(
    path: str, lines: Lines, options: LabelledTextOptions, with_labels: bool
) -> Rows:
    """Read JSON Lines: an object a line."""

    def records() -> Iterator[tuple[str, object]]:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", parse_json(line)

    sample = [parse_json(line) for line in lines.head[:SAMPLE] if line.strip()]
    return object_rows(path, "JSON Lines", records(), sample, options, with_labels)


def json_rows(path: str, text: str, options: LabelledTextOptions, with_labels: bool) -> Rows:
    """Read a JSON array of objects.

    Raises:
        UserError: it is no array of objects.
    """
    items = json_items(path, text)
    records = ((f"item {number}", item) for number, item in enumerate(items, start=1))
    return object_rows(
        path, "a JSON array of objects", records, items[:SAMPLE], options, with_labels
    )


def json_items(path: str, text: str) -> list[Any]:
    """Return the items of a JSON array.

    Raises:
        UserError: the text is no JSON array that contains objects.
    """
    items = parse_json(text)
    if isinstance(items, list) and any(isinstance(item, dict) for item in items):
        return items
    if items is INVALID:
        raise UserError(
            f"{one_line(path)}: this begins like JSON and is not valid JSON; write JSON Lines, one "
            "object a line"
        )
    raise UserError(
        f"{one_line(path)}: this JSON is neither JSON Lines nor an array of objects; write JSON Lines, "
        "one object a line (jq -c '.[]' does so for an array)"
    )


INVALID = object()
"""Result of `parse_json` for what is no JSON."""


def parse_json(text: str) -> Any:
    """Return the value of a JSON text, or `INVALID`."""
    try:
        return json.loads(text.strip("\ufeff \t\r\n"))
    except (ValueError, RecursionError):
        return INVALID


def object_rows(
    path: str,
    name: str,
    records: Iterator[tuple[str, object]],
    sample: Sequence[object],
    options: LabelledTextOptions,
    with_labels: bool,
) -> Rows:
    """Return the rows of objects with a place each; the fields are found in a sample."""
    objects = [item for item in sample if isinstance(item, dict)]
    names = list(dict.fromkeys(str(key) for item in objects for key in item))
    each = named_columns(options.labels, names)
    for option in (options.text, options.pair, options.label, options.labels, *each):
        if option and option not in names and "." in option:
            inner = (value_of(item, option, MISSING) for item in objects)
            names += [option] if any(value is not MISSING for value in inner) else []
    if not names:
        raise UserError(f"{one_line(path)}: none of its objects has a field; name another file")
    table = [[as_string(value_of(item, field)) for field in names] for item in objects]
    roles = find_roles(path, names, True, table, options, with_labels)
    text = names[roles.text]
    label = None if roles.label is None else names[roles.label]
    pair = None if roles.pair is None else names[roles.pair]
    flags = [names[index] for index in roles.flags]
    columns = (
        {"text": text} | ({"pair": pair} if pair else {}) | ({"label": label} if label else {})
    )
    read = _reader(text, pair, label, flags)
    shown = {
        role: f"'{one_line(field)}'" + (" (guessed)" if role in roles.guessed else "")
        for role, field in columns.items()
    }
    if flags:
        shown["labels"] = f"a field each ({', '.join(map(one_line, flags))})"
    lists = label is not None and any(isinstance(value_of(item, label), list) for item in objects)
    return Rows(
        name,
        (read(place, record) for place, record in records),
        shown,
        unused_note([field for field in names if field not in (*columns.values(), *flags)]),
        lists or options.labels is not None or (label is not None and normal(label) == "labels"),
    )


def _reader(
    text: str, pair: str | None, label: str | None, flags: Sequence[str]
) -> Callable[[str, object], Row]:
    def read(place: str, record: object) -> Row:
        if record is INVALID:
            return Row(place, None, problem="invalid JSON")
        if not isinstance(record, dict):
            return Row(place, None, problem="not an object")
        second = MISSING if pair is None else value_of(record, pair)
        if flags:
            values = [value_of(record, name) for name in flags]
            return flagged_row(
                place, value_of(record, text), second, range(len(flags)), flags, values
            )
        return Row(
            place,
            value_of(record, text),
            second,
            None if label is None else value_of(record, label),
        )

    return read


def unused_note(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note about columns that have no role, if there are any."""
    if not names:
        return ()
    shown = ", ".join(one_line(name) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (f"not used: {shown}{more}",)


def as_string(value: object) -> str:
    """Return a value for guessing a column; empty for lists and objects."""
    return "" if value is None or isinstance(value, list | dict) else str(value)
