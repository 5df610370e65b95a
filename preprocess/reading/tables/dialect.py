"""The dialect of a table, found from its first lines."""

from collections.abc import Callable, Iterator, Sequence

from preprocess.reading.tables.records import Dialect, Record, count_odd, find_dialect, usual_size

_DIALECT_LINES = 20_000
"""First lines of a table from which its delimiter and the meaning of quotes are found."""
_SAMPLE = 2000
"""First lines in which the places of delimiters are looked at."""


def choose_dialect(
    lines: Sequence[str], delimiters: Sequence[str], is_name: Callable[[str], bool]
) -> Dialect | None:
    """Return the dialect of a table, or None if the lines are no table with one of the delimiters.

    A delimiter divides nearly all records into the same number of fields, or the first one into
    known names of columns. Of several such delimiters, the one that looks least like the punctuation of
    a text or a number is chosen.

    Args:
        lines: the first lines without line feeds.
        delimiters: the delimiters to try.
        is_name: tells whether a field is a known name of a column.
    """
    best: tuple[float, float, Dialect] | None = None
    lines = lines[:_DIALECT_LINES]
    for delimiter in delimiters:
        if not any(delimiter in line for line in lines):
            continue
        dialect, records = find_dialect(lines, delimiter)
        size = usual_size(records)
        share = 1 - count_odd(records, size) / max(1, sum(record.lines for record in records))
        first = next((record.fields for record in records if record.fields), [])
        named = len(first) > 1 and any(map(is_name, first))
        score = share + (1 if named else 0)
        key = score, -_like_prose(lines, delimiter)
        if ((size > 1 and share >= 0.9) or named) and (best is None or key > best[:2]):
            best = *key, dialect
    return best[2] if best else None


def quotes_enclose(records: Sequence[Record]) -> bool:
    """Return True if nearly all fields that begin with a quote end with one.

    Then the quotes enclose fields, even if a few of them do not match.

    Args:
        records: records that were read without the rule of quotes.
    """
    quoted = [field for one in records for field in one.fields if field.startswith('"')]
    ends = sum(field.endswith('"') and len(field) > 1 for field in quoted)
    return bool(quoted) and ends >= 0.9 * len(quoted)


def _like_prose(lines: Sequence[str], delimiter: str) -> float:
    """Return the share of a delimiter's places that are before a space or between digits."""
    inside = [line[at - 1 : at + 2] for line in lines[:_SAMPLE] for at in _places(line, delimiter)]
    like = sum(part[-1:] == " " or part.replace(",", "").isdigit() for part in inside)
    return like / max(1, len(inside))


def _places(line: str, delimiter: str) -> Iterator[int]:
    """Yield the index of each delimiter inside a line."""
    at = line.find(delimiter, 1)
    while 0 < at < len(line) - 1:
        yield at
        at = line.find(delimiter, at + 1)
