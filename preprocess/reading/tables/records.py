"""Splitting the lines of a table into records: delimiters, quotes, line breaks inside quotes.

Python's csv module takes everything up to the next quote for one field if a quote is not closed, so
that it may swallow any number of records without an error. Here such a line costs only itself.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

DELIMITERS = ("\t", ",", ";", "|")
DELIMITER_NAMES = {"\t": "TSV", ",": "CSV", ";": "CSV with ';'", "|": "CSV with '|'"}
BROKEN = "quotes that do not match"


class Record(NamedTuple):
    """A record of a table.

    Attributes:
        line: number of its first line, from 1.
        fields: its fields without quotes; empty if its quotes do not match.
        lines: number of its lines.
        first: its first line, if its quotes do not match.
    """

    line: int
    fields: list[str]
    lines: int = 1
    first: str = ""


class Dialect(NamedTuple):
    r"""How the fields of a table are written.

    Attributes:
        delimiter: the character between fields.
        quoted: fields that begin with a double quote end with one, and ``""`` in them is a quote.
        escaped: in quoted fields, ``\"`` is a quote too.
    """

    delimiter: str
    quoted: bool
    escaped: bool = False


def read_records(
    lines: Iterable[str],
    dialect: Dialect,
    is_record: Callable[[str], bool] | None = None,
    limit: int | None = None,
) -> Iterator[Record]:
    """Yield the records of a table. Blank lines are none.

    The time is linear in the size of the table: where quotes did not match over several lines, each
    of these lines is read by itself.

    Args:
        lines: the lines without line feeds.
        dialect: how the fields are written.
        is_record: tells whether a line is surely a record by itself. If such a line begins a field of
            several lines or is inside one, the quote counts as one that is not closed.
        limit: characters of the longest record of several lines, which are held in memory. In a longer
            one, the quote counts as one that is not closed.
    """
    if not dialect.quoted:
        for number, line in enumerate(lines, start=1):
            if line.strip(" \r"):
                yield Record(number, line.removesuffix("\r").split(dialect.delimiter))
        return
    rest = _Lines(lines)
    alone = 0  # lines before this number are read by themselves
    while (first := rest.line(0)) is not None:
        number = rest.number
        if not first.strip(" \r"):
            rest.skip(1)
        elif '"' not in first:
            rest.skip(1)
            yield Record(number, first.removesuffix("\r").split(dialect.delimiter))
        else:
            most = 0 if number < alone else limit
            fields, taken = _quoted(rest, dialect, is_record, most)
            if fields:
                rest.skip(taken)
                yield Record(number, fields, taken)
            else:
                alone = max(alone, number + taken - 1)
                rest.skip(1)
                yield Record(number, [], 1, first)


class _Lines:
    """Lines of a file; some can be read ahead.

    Attributes:
        number: number of the next line, from 1.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._source = iter(lines)
        self._read: list[str] = []
        self._start = 0
        self.number = 1

    def line(self, ahead: int) -> str | None:
        """Return the line that is ``ahead`` lines after the next one; None after the last one."""
        while self._start + ahead >= len(self._read):
            more = next(self._source, None)
            if more is None:
                return None
            self._read.append(more)
        return self._read[self._start + ahead]

    def skip(self, lines: int) -> None:
        self._start += lines
        self.number += lines
        # Seldom, because a long list takes long to shift.
        if 2 * self._start >= len(self._read):
            del self._read[: self._start]
            self._start = 0


def _quoted(
    rest: _Lines, dialect: Dialect, is_record: Callable[[str], bool] | None, limit: int | None
) -> tuple[list[str], int]:
    """Return the fields of the record that begins with the next line, and the number of its lines.

    No fields if quotes do not match; then the last of the lines is that in which this was found.
    """
    fields: list[str] = []
    line = rest.line(0) or ""
    lines, start, size = 1, 0, len(line)
    while True:
        if line[start : start + 1] != '"':
            end = line.find(dialect.delimiter, start)
            if end < 0:
                fields.append(line[start:].removesuffix("\r"))
                return fields, lines
            fields.append(line[start:end])
            start = end + 1
            continue
        pieces: list[str] = []
        begin = start + 1
        while (quote := _closing(line, begin, dialect.escaped)) < 0:
            pieces.append(line[begin:])
            more = rest.line(lines) if limit is None or size <= limit else None
            # In a field of several lines, the rest of its first line has no delimiter, and its last
            # line has a quote.
            alone = dialect.delimiter in pieces[0] if lines == 1 else '"' not in line
            whole = line if alone else ""
            if more is None or (is_record and is_record(whole)):
                return [], lines
            line, begin = more, 0
            lines += 1
            size += len(line) + 1
        after = line[quote + 1 :].removesuffix("\r")
        if after and not after.startswith(dialect.delimiter):
            return [], lines
        pieces.append(line[begin:quote])
        field = "\n".join(pieces).replace('""', '"')
        fields.append(field.replace('\\"', '"') if dialect.escaped else field)
        if not after:
            return fields, lines
        start = quote + 2


def _closing(line: str, position: int, escaped: bool) -> int:
    """Return the index of the quote that closes a field, or -1 if it is not in this line."""
    while (quote := line.find('"', position)) >= 0:
        if escaped and _backslashes(line, quote) % 2:
            position = quote + 1
        elif line[quote + 1 : quote + 2] == '"':
            position = quote + 2
        else:
            return quote
    return -1


def _backslashes(line: str, end: int) -> int:
    return end - len(line[:end].rstrip("\\"))


def usual_size(records: Sequence[Record]) -> int:
    """Return the most frequent number of fields; of equals, the larger one."""
    counts = Counter(len(record.fields) for record in records if record.fields)
    return max(counts, key=lambda size: (counts[size], size)) if counts else 0


def count_odd(records: Sequence[Record], size: int) -> int:
    """Return the number of lines in records that are broken, or do not have ``size`` fields."""
    return sum(one.lines for one in records if not one.fields or len(one.fields) != size)


def find_dialect(lines: Sequence[str], delimiter: str) -> tuple[Dialect, list[Record]]:
    """Return how quotes are meant in a table, and its records.

    Quotes enclose fields unless records without that rule have the usual number of fields more often,
    or always: then a quote at the start of a text has no meaning.
    """
    plain = Dialect(delimiter, quoted=False)
    if not any(line.startswith('"') or f'{delimiter}"' in line for line in lines):
        return plain, list(read_records(lines, plain))
    read = {
        dialect: list(read_records(lines, dialect))
        for dialect in (
            Dialect(delimiter, quoted=True),
            Dialect(delimiter, quoted=True, escaped=True),
            plain,
        )
    }
    sizes = {dialect: usual_size(records) for dialect, records in read.items()}
    odd = {dialect: count_odd(records, sizes[dialect]) for dialect, records in read.items()}
    best = min(read, key=odd.__getitem__)  # the first of equals
    broken = [record for record in read[best] if record.lines > 1]
    if broken and sizes[plain] > 1 and not odd[plain]:
        whole = [record.fields for record in read[best] if len(record.fields) == sizes[best]]
        if not _are_cut(broken, whole, read[plain]):
            best = plain
    return best, read[best]


def _are_cut(broken: Sequence[Record], whole: Sequence[list[str]], lines: Sequence[Record]) -> bool:
    """Return True if the lines of records with line breaks are no records by themselves.

    The column with the fewest and shortest values is that of the labels. In this column, lines that
    are no records have other values than the records have.

    Args:
        broken: the records with line breaks.
        whole: the fields of all records.
        lines: each line as a record.
    """
    columns = [{*column} for column in zip(*whole, strict=True)]
    label = min(range(len(columns)), key=lambda at: (len(columns[at]), sum(map(len, columns[at]))))
    known = {
        record.line
        for record in lines
        if record.fields[label:][:1] and record.fields[label] in columns[label]
    }
    inside = [range(record.line, record.line + record.lines) for record in broken]
    strange = sum(line not in known for numbers in inside for line in numbers)
    return 2 * strange >= sum(record.lines - 1 for record in broken)
