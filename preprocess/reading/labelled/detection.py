"""Detection of the format of labelled files from their first lines."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from preprocess.reading.labelled.rows import FASTTEXT, INVALID, parse_json

_LOOKED_AT = 2000
"""First lines from which the format is found."""
_FIRST_WORDS = 10
"""Number of labels that a file of "LABEL text" lines of any size may have."""


def is_json_array(text: str) -> bool:
    """Return True if a text begins as a JSON array of objects does."""
    return re.match(r"\s*\[\s*\{", text) is not None


def is_json_lines(lines: Sequence[str]) -> bool:
    """Return True if some of the first ten lines that are not blank are JSON objects.

    One is enough if the first line begins with a brace; otherwise it must be half of them.
    """
    some = [line for line in lines[:_LOOKED_AT] if line.strip()][:10]
    objects = sum(isinstance(parse_json(line), dict) for line in some)
    needed = 1 if some and some[0].lstrip().startswith("{") else max(1, len(some) / 2)
    return objects >= needed


def is_other_json(text: str, lines: Sequence[str]) -> bool:
    """Return True for JSON that is neither JSON Lines nor an array of objects."""
    begins = text.lstrip()[:1] in ("{", "[")
    return begins and not is_json_lines(lines) and parse_json(text) is not INVALID


def is_fasttext(lines: Sequence[str]) -> bool:
    """Return True if at least half of the lines have a label of fastText."""
    some = [line for line in lines[:_LOOKED_AT] if line.strip()]
    return bool(some) and 2 * sum(bool(FASTTEXT.search(line)) for line in some) >= len(some)


def is_label_first(lines: Sequence[str]) -> bool:
    """Return True if the first words of the lines are few and repeat, unlike those of prose."""
    some = [line.split(None, 1) for line in lines if line.strip()]
    with_text = [parts[0] for parts in some if len(parts) == 2]
    counts = Counter(with_text)
    repeated = sum(count for count in counts.values() if count > 1)
    few = len(counts) <= max(_FIRST_WORDS, len(with_text) / 50)
    # As in "pos,a text, with commas", where the first comma ends the label.
    if 2 * sum(count for word, count in counts.items() if re.search("[,;|]", word)) > len(
        with_text
    ):
        return False
    return bool(some) and few and min(repeated, len(with_text)) >= 0.9 * len(some)


def uneven(lines: Sequence[str]) -> str:
    """Return why lines are no table, if they all have a delimiter, but not equally often."""
    some = [line for line in lines[:_LOOKED_AT] if line.strip()]
    for delimiter, name in (("\t", "a tab"), (",", "','"), (";", "';'"), ("|", "'|'")):
        counts = [line.count(delimiter) for line in some]
        if len(some) > 1 and min(counts) > 0:
            return (
                f"its lines have different numbers of {name} ({min(counts):,} to {max(counts):,}); put "
                f"quotes around texts that contain {name}"
            )
    return ""


def is_conll(lines: Sequence[str]) -> bool:
    """Return True if lines are tokens with columns, in groups that blank lines separate."""
    some = lines[:_LOOKED_AT]
    if token_columns(some) == 0:
        return False
    groups = [len(list(group)) for blank, group in groupby(some, _is_blank) if not blank]
    return len(groups) > 1 and sum(groups) >= 2 * len(groups)


def token_columns(lines: Sequence[str], share: float = 0.9) -> int:
    """Return the usual number of columns of lines of tokens, or 0 if they are none.

    Args:
        lines: the lines.
        share: share of the lines that must have that number, and no space in the first column.
    """
    rows = [columns_of(line) for line in lines if not _is_blank(line) and not line.startswith("#")]
    sizes = Counter(map(len, rows))
    if not sizes:
        return 0
    size = max(sizes, key=lambda size: (sizes[size], size))
    words = sum(" " not in row[0].strip() for row in rows) >= share * len(rows)
    return size if size > 1 and words and sizes[size] >= share * len(rows) else 0


def columns_of(line: str) -> list[str]:
    """Return the columns of a line of a token: separated by tabs if it has one, otherwise by spaces."""
    line = line.removesuffix("\r")
    return line.split("\t") if "\t" in line else line.split(" ")


def _is_blank(line: str) -> bool:
    return not line.strip(" \t\r")
