"""Making labelled texts of rows: what a label may be, and why a row cannot be used."""

import ast
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from preprocess.errors import one_line
from preprocess.reading.formats.fields import MISSING
from preprocess.reading.labelled.counting import Counting
from preprocess.reading.labelled.examples import SHOWN, LabelledText, Target
from preprocess.reading.labelled.options import SEPARATORS, LabelledTextOptions
from preprocess.reading.labelled.rows import Row, parse_json

_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_LIST = 10_000
_SOME = 20
_NO_COMMA = re.compile(r"""['"]\s*['"]""")
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
_MANY_NUMBERS = 10
"""Number of labels that are numbers above which a regression is proposed."""
_ODD = {",": ",", ";": ";", "pipe": "|"}
"""Characters that often separate labels in one string, by their name as a setting."""


def text_problem(value: object, what: str = "text") -> str:
    """Return why a value is not a text that can be used, or an empty string."""
    if value is None or value is MISSING:
        return f"no {what}"
    if not isinstance(value, str):
        return f"{what} is not a string"
    if not value.strip():
        return f"empty {what}"
    return "invalid characters" if has_surrogates(value) else ""


def has_surrogates(text: str) -> bool:
    """Return True if a text has lone surrogates, which stand for invalid bytes."""
    return _SURROGATE.search(text) is not None


def read_lists(rows: Sequence[Row]) -> tuple[list[Row], tuple[str, ...]]:
    """Return rows with lists in place of labels that are lists written as text, and a note.

    Tables have no lists, so that programs write ``['a', 'b']`` or ``["a", "b"]`` in a cell. Rows in
    which not all labels are written so stay as they are.
    """
    found: list[Row] = []
    for row in rows:
        label = row.label
        if isinstance(label, str) and label.strip():
            label = _list_of(label)
            if label is None:
                return [*rows], ()
        found.append(row._replace(label=label))
    written = [row.label for row in rows[:_SOME] if isinstance(row.label, str) and row.label]
    if not written:
        return [*rows], ()
    shown = one_line(max(written, key=len))[:60]
    return found, (f"the labels are lists that are written as text, such as {shown}",)


def _list_of(text: str) -> list[Any] | None:
    """Return a list that is written as in JSON or Python, or None if it is none."""
    text = text.strip()
    if not text.startswith("[") or not text.endswith("]") or len(text) > _LONGEST_LIST:
        return None
    # Python joins strings that no comma separates, as in a printed array of NumPy.
    if _NO_COMMA.search(text):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = parse_json(text)
    return found if isinstance(found, list) else None


def find_target(rows: Iterable[Row], several: bool, options: LabelledTextOptions) -> Target:
    """Return what the labels of a file are, as set or as found.

    Args:
        rows: its rows.
        several: whether its format has lists of labels.
        options: the settings.
    """
    if options.target != "auto":
        return options.target
    if options.labels is not None or options.separator is not None:
        return "several"
    if not several:
        return "single"
    # fastText has no other way to write a single label than as a list of one.
    lists = [row.label for row in rows if isinstance(row.label, list)]
    return "several" if any(len(labels) != 1 for labels in lists) else "single"


def labelled_texts(
    rows: Iterable[Row], target: Target, options: LabelledTextOptions
) -> Counting[LabelledText]:
    """Return the labelled texts of rows, with the rows that cannot be used counted by reason."""
    found = Counting[LabelledText]()
    for row in rows:
        problem = row.problem or text_problem(row.text)
        if not problem and row.pair is not MISSING:
            problem = text_problem(row.pair, "second text")
        labels: tuple[str, ...] = ()
        value = None
        if not problem:
            labels, problem = _labels_of(row.label, target, options)
        if not problem and target == "number":
            value = _number(labels[0])
            problem = "" if value is not None else "label is not a number"
            if problem and _DECIMAL_COMMA.fullmatch(labels[0]):
                problem += " (write 3.5 for 3,5)"
        if problem:
            found.drop(problem, row.place)
            continue
        pair = row.pair if isinstance(row.pair, str) else None
        found.add(LabelledText(str(row.text), pair, labels, row.place, value))
    return found


def _labels_of(
    value: object, target: Target, options: LabelledTextOptions
) -> tuple[tuple[str, ...], str]:
    """Return the labels of a row, or why it cannot be used."""
    if target == "several" and options.separator and isinstance(value, str):
        # An empty cell is the only way to write that a text has none of the labels.
        separator = SEPARATORS.get(options.separator, options.separator)
        value = value.split(separator) if value else []
    values = value if isinstance(value, list) else [value]
    labels: dict[str, None] = {}
    for item in values:
        label = _label(item)
        if label is not None and options.strip_labels:
            label = label.strip()
        if isinstance(item, dict):
            return (), "label is an object (name one of its fields, as in label=a.b)"
        if label is None or not label:
            return (), "no label" if item is None or label == "" else "label is not a string"
        if has_surrogates(label):
            return (), "invalid characters"
        labels[label] = None
    if not labels and target != "several":
        return (), "no label"
    if len(labels) > 1 and target != "several":
        return (), "several labels"
    return tuple(labels), ""


def _label(value: object) -> str | None:
    """Return a label as a string: as it is in the file, numbers as JSON writes them."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value):
            return ""
        case int() | float():
            return str(value)
    return None


def _number(label: str) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def label_notes(
    examples: Sequence[LabelledText], target: Target, options: LabelledTextOptions
) -> tuple[str, ...]:
    """Return notes about labels that look wrong."""
    counts: dict[str, int] = {}
    for example in examples:
        for label in example.labels:
            counts[label] = counts.get(label, 0) + 1
    if target == "number":
        return _number_notes(counts)
    notes: list[str] = []
    likely = len(examples) >= 20 and len(counts) > len(examples) / 2
    if likely:
        some = ", ".join(f"'{one_line(label[:30])}'" for label in list(counts)[:3])
        notes.append(
            f"{len(counts):,} different labels in {len(examples):,} texts ({some}): is this the column of "
            "the labels?"
        )
    if len(counts) > _MANY_NUMBERS and all(_number(label) is not None for label in counts):
        notes.append(
            f"the {len(counts):,} labels are numbers, but are read as names of classes; target=number "
            "predicts numbers"
        )
    texts = {example.text for example in examples}
    if len(examples) >= 20 and len(texts) <= len(examples) / 10:
        notes.append(
            f"different texts: {len(texts):,} of {len(examples):,}; is this the column of the texts?"
        )
    first = examples[0].labels[:1]
    if len(examples) >= 10 > len(counts) and first and counts[first[0]] == 1:
        notes.append(
            f"the label of {examples[0].place}, {first[0]!r}, is that of no other text: is this a header?"
        )
    if groups := _similar(counts):
        shown = "; ".join(" and ".join(map(repr, group)) for group in groups[:SHOWN])
        notes.append(
            f"labels that differ only in spaces, case or Unicode form are kept apart: {shown}"
        )
    if target == "single" and not likely:
        notes += _joined_note(counts)
    if target == "several":
        none = sum(not example.labels for example in examples)
        notes += [f"texts with none of the labels: {none:,}"] if none else []
    return tuple(notes)


def _joined_note(labels: Mapping[str, int]) -> list[str]:
    """Return a note if half of the labels contain a character that may separate labels."""
    for name, character in _ODD.items():
        joined = [label for label in labels if character in label]
        if joined and 2 * len(joined) >= len(labels):
            return [
                f"labels that contain '{character}': {len(joined):,}, such as {joined[0]!r:.60}; "
                f"separator={name} splits each into several labels"
            ]
    return []


def _number_notes(counts: dict[str, int]) -> tuple[str, ...]:
    return (f"the labels are numbers, of which {len(counts):,} differ",)


def _similar(labels: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for label in labels:
        key = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        groups.setdefault(key, []).append(label)
    return [group for group in groups.values() if len(group) > 1]
