"""Finding the columns of the text and of its labels, by their names or by what they hold."""

import re
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

from preprocess.errors import UserError, one_line
from preprocess.reading.labelled.flags import are_flags, named_columns
from preprocess.reading.labelled.options import LabelledTextOptions

TEXTS = (
    *("text", "sentence", "text_a", "sentence1", "sentence_1", "question1", "text1", "premise"),
    *("review", "comment", "comment_text", "content", "document", "utterance", "tweet", "body"),
    *("question", "query", "message", "phrase", "input", "string", "title"),
)
PAIRS = (
    *(("text", "pair"), ("text", "text_b"), ("text", "text2"), ("text_a", "text_b")),
    *(("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("premise", "hypothesis")),
    *(("question1", "question2"), ("text1", "text2"), ("question", "sentence"), ("query", "title")),
)
"""Usual names of both columns of a pair of texts; checked before `TEXTS`."""
LABELS = (
    *("label", "class", "category", "sentiment", "target", "polarity", "intent", "gold_label"),
    *("stars", "rating", "score", "topic", "emotion", "y"),
)
SEVERAL = ("labels", "categories", "classes", "tags", "topics", "emotions")
"""Usual names of columns of lists of labels. Their values may also be single labels."""
_ALL = {*TEXTS, *LABELS, *SEVERAL, *(name for pair in PAIRS for name in pair)}
_NAME = re.compile(r"[^\W\d]\S*(?: \S+){0,2}")
SAMPLE = 2000
"""Rows from which columns are guessed."""
_LONG = 50
"""Largest mean length, in characters, of the values of a column that may be taken for labels."""
_SHOWN = 20
_FEW_VALUES = 4
"""Fewest values of a column that show whether the first row is unlike them."""
_FEW_ROWS = 10
"""With fewer rows than this, labels need not repeat."""


class Roles(NamedTuple):
    """The columns of a table or the fields of objects, by index.

    Attributes:
        text: column of the text.
        label: column of the label or labels; None if labels are not wanted, or have a column each.
        pair: column of the second text; None if there is none.
        guessed: the roles that were found by what their columns hold, not by name.
        flags: columns of one label each, see `flags`.
    """

    text: int
    label: int | None
    pair: int | None
    guessed: tuple[str, ...] = ()
    flags: tuple[int, ...] = ()


def normal(name: str) -> str:
    """Return the form of a column's name that is used for comparison."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def is_known(name: str) -> bool:
    """Return True if a name is a usual one for a column of texts or labels."""
    return normal(name) in _ALL


def is_named(option: str | None) -> bool:
    """Return True if a setting names a column by its name rather than its number."""
    return option is not None and not option.isdecimal()


def find_column(path: str, key: str, option: str, names: Sequence[str], named: bool) -> int:
    """Return the index of the column that a setting names.

    Args:
        path: the file, for error messages.
        key: name of the setting.
        option: its value.
        names: the columns.
        named: whether these are the names in the file, not numbers.

    Raises:
        UserError: there is no such column, or it exists twice.
    """
    found = [index for index, name in enumerate(names) if name == option]
    found = found or [i for i, name in enumerate(names) if normal(name) == normal(option)]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise UserError(
            f"{one_line(path)}: {len(found)} columns are named '{one_line(option)}'; name the column by "
            f"its number, such as {key}={found[0] + 1}"
        )
    if option.isdecimal() and 1 <= int(option) <= len(names):
        return int(option) - 1
    if named:
        raise UserError(
            f"{one_line(path)}: there is no column '{one_line(option)}'; set {key} to one of "
            f"{listed(names)}"
        )
    raise UserError(
        f"{one_line(path)}: there is no column '{one_line(option)}', because this table has no header; "
        f"set {key} to a number from 1 to {len(names)}"
    )


def listed(names: Sequence[str]) -> str:
    """Return names for a message."""
    shown = ", ".join(f"'{one_line(name)}'" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def find_roles(
    path: str,
    names: Sequence[str],
    named: bool,
    sample: Sequence[Sequence[str]],
    options: LabelledTextOptions,
    with_labels: bool = True,
) -> Roles:
    """Return the columns of text, pair and labels: as set, by their names, or by what they hold.

    Args:
        path: the file, for error messages.
        names: the columns.
        named: whether these are the names in the file, not numbers.
        sample: rows of the table, each with a string for each column.
        options: the settings.
        with_labels: whether labels are wanted.

    Raises:
        UserError: a column that is set does not exist, or a role has no column or several.
    """
    taken: dict[str, int] = {}
    flags: tuple[int, ...] = ()
    for key, role in (("text", "text"), ("pair", "pair"), ("label", "label"), ("labels", "label")):
        option = getattr(options, key)
        if option is None or (role == "label" and not with_labels):
            continue
        if role in taken:
            raise UserError("label and labels are both set; set only one of them")
        if role == "label" and (each := named_columns(option, names)):
            flags = tuple(find_column(path, key, name, names, named) for name in each)
            option = each[0]
        taken[role] = find_column(path, key, option, names, named)
    _check_apart(path, taken, names)
    if named:
        _by_name(taken, [normal(name) for name in names], with_labels)
    guessed: list[str] = []
    if with_labels and "label" not in taken:
        test = _are_numbers if options.target == "number" else _may_be_labels
        taken["label"] = _guess_label(path, names, sample, {*taken.values()}, test)
        guessed.append("label")
    if "text" not in taken:
        taken["text"] = _guess_text(path, names, sample, {*taken.values(), *flags})
        guessed.append("text")
    label = None if flags else taken.get("label")
    return Roles(taken["text"], label, taken.get("pair"), tuple(guessed), flags)


def _check_apart(path: str, taken: dict[str, int], names: Sequence[str]) -> None:
    for first, second in (("text", "label"), ("text", "pair"), ("pair", "label")):
        if first in taken and taken[first] == taken.get(second, -1):
            raise UserError(
                f"{one_line(path)}: '{one_line(names[taken[first]])}' is set as {first} and as "
                f"{second}; set two of {listed(names)}"
            )


def _by_name(taken: dict[str, int], names: list[str], with_labels: bool) -> None:
    """Add the columns with usual names to ``taken``; names that occur twice are ignored."""
    places = {name: i for i, name in enumerate(names) if names.count(name) == 1}
    free = {name: i for name, i in places.items() if i not in taken.values()}
    if "text" not in taken and "pair" not in taken:
        for text, pair in PAIRS:
            if text in free and pair in free:
                taken |= {"text": free[text], "pair": free[pair]}
                break
    for role, known in (("text", TEXTS), ("label", (*LABELS, *SEVERAL))):
        if role not in taken and (role == "text" or with_labels):
            found = next((free[name] for name in known if name in free), None)
            if found is not None and found not in taken.values():
                taken[role] = found


def _guess_label(
    path: str,
    names: Sequence[str],
    sample: Sequence[Sequence[str]],
    taken: set[int],
    test: Callable[[Sequence[str]], bool],
) -> int:
    """Return the one column that passes a test; of two columns, the one with fewer different values."""
    free = [index for index in range(len(names)) if index not in taken]
    columns = {index: [row[index] for row in sample] for index in free}
    plausible = [index for index in free if test(columns[index])]
    varied = [index for index in plausible if len({*columns[index]}) > 1] or plausible
    if len(varied) == 1:
        return varied[0]
    # Of two columns one is the text, so that the other one may be the better one of two.
    few = free if not varied and len(sample) < _FEW_ROWS else varied
    if few and len(free) == 2:
        return min(few, key=lambda i: (len({*columns[i]}), _mean_length(columns[i])))
    problem = "more than one column" if varied else "no column"
    shown = "; ".join(
        f"{one_line(names[index])} ({', '.join(_few(columns[index]))})" for index in varied or free
    )
    remedy = "set label to the right one, by its name or number"
    if len(varied) > 1 and all(are_flags(columns[index]) for index in varied):
        remedy += (
            f", or labels={','.join(_option(names, i) for i in varied)} if each column is a label"
        )
    elif not varied and any(_are_numbers(columns[index]) for index in free):
        remedy += "; target=number predicts numbers"
    raise UserError(f"{one_line(path)}: {problem} looks like one of labels: {shown}; {remedy}")


def _option(names: Sequence[str], index: int) -> str:
    """Return the name of a column for a setting, or its number if it has no name that can be listed."""
    number = str(index + 1)
    return number if "," in names[index] or names[index] == f"column {number}" else names[index]


def _few(column: Sequence[str]) -> list[str]:
    return [f"'{one_line(value[:20])}'" for value in dict.fromkeys(column)][:3]


def _may_be_labels(column: Sequence[str]) -> bool:
    values = [value for value in column if value]
    repeats = len({*values}) <= max(1, len(values) / 2)
    return bool(values) and repeats and _mean_length(values) <= _LONG


def _are_numbers(column: Sequence[str]) -> bool:
    numbers = sum(map(_is_number, column))
    return numbers > 0 and numbers >= 0.9 * len(column)


def _mean_length(column: Sequence[str]) -> float:
    return sum(map(len, column)) / max(1, len(column))


def _guess_text(
    path: str, names: Sequence[str], sample: Sequence[Sequence[str]], taken: set[int]
) -> int:
    """Return the column with the longest values."""
    free = [index for index in range(len(names)) if index not in taken]
    if not free:
        raise UserError(f"{one_line(path)}: there is no column for the text beside {listed(names)}")
    lengths = {index: _mean_length([row[index] for row in sample]) for index in free}
    if sample and not any(lengths.values()):
        shown = listed([names[index] for index in free])
        raise UserError(
            f"{one_line(path)}: no column holds texts ({shown}); set text to one that does"
        )
    return max(free, key=lengths.__getitem__)


def has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return True if the first row of a table holds names, by comparison with the other rows.

    No name may be long, a number, or a value of its column below, and only the first may be empty, as
    that of an index. Then it is a header if one of the names is known, if a column holds numbers only,
    or if a column has short values that repeat and the first row has none of them.
    """
    first, rest = rows[0], rows[1 : SAMPLE + 1]
    if sum(map(is_known, first)) > 1:
        # Joined files have the same header several times.
        rest = [row for row in rest if row != first]
    names = [name.strip() for name in first]
    written = names[names[0] == "" :]
    named = all(len(name) <= 40 and _NAME.fullmatch(name) for name in written)
    if not written or not named or len({*names}) < len(names):
        return False
    columns = [[row[index].strip() for row in rest] for index in range(len(names))]
    if any(name in {*column} for name, column in zip(names, columns, strict=True)):
        return False
    if any(map(is_known, names)):
        return True
    if any(len(column) > 1 and all(map(_is_number, column)) for column in columns):
        return True
    labels = [_may_be_labels(column) and len(column) >= _FEW_VALUES for column in columns]
    texts = [_unlike(name, column) for name, column in zip(names, columns, strict=True)]
    return any(
        label and text
        for (i, label), (j, text) in product(enumerate(labels), enumerate(texts))
        if i != j
    )


def _unlike(name: str, column: Sequence[str]) -> bool:
    """Return True if a column holds texts, and a name is shorter or has fewer words than most."""
    words = sum(" " in value for value in column) >= len(column) / 2
    return _mean_length(column) >= 3 * len(name) or (words and " " not in name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
