"""Reading CSV and TSV: a document for each record, as a stream of any size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from preprocess.reading.block import Block
from preprocess.reading.byte_range import unreadable_file
from preprocess.reading.encodings.decoding import decode
from preprocess.reading.formats.columns import REASON
from preprocess.reading.formats.detection import ends_with
from preprocess.reading.formats.fields import Fields
from preprocess.reading.formats.record_blocks import Record, as_utf8, blocks_of
from preprocess.reading.options import ReadOptions
from preprocess.reading.records import (
    Oversized,
    has_old_line_ends,
    whole_lines,
    without_mark,
)
from preprocess.reading.stream import Stream
from preprocess.reading.tables.dialect import choose_dialect, quotes_enclose
from preprocess.reading.tables.records import (
    DELIMITER_NAMES,
    DELIMITERS,
    Dialect,
    count_odd,
    find_dialect,
    read_records,
)

INVALID = "invalid_csv"
"""Reason to reject a record whose quotes do not match or whose number of fields is not that of the
header."""
_HEAD_LINES, _HEAD_CHARACTERS = 1000, 1 << 20
"""First lines from which the dialect is found."""
_CUT = "\udcfe"
"""Ends a line of which only the beginning was kept. No decoded text has this character."""
_SEPARATOR = "sep="
"""Begins the first line in files of Excel that name their delimiter."""
_MOST_NAMED = 20


def read_csv(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of a table; see `csv_records`."""
    chunks, _ = as_utf8(stream)
    limit = options.limits.max_document_bytes
    fields = Fields.of(options.source)
    records = csv_records(chunks, stream.name, stream.path, fields, limit)
    return blocks_of(records, stream, options, "line")


def csv_records(
    chunks: Iterable[bytes], name: str, path: str, fields: Fields, limit: int
) -> Iterator[Record]:
    """Yield the records of a table, numbered by their first lines, from 1.

    The first record names the columns, unless the fields are numbers of columns; see `_are_numbers`.
    A blank line is no record.

    Args:
        chunks: the file, in UTF-8.
        name: name of the file. In one named ``.tsv`` or ``.tab``, tabs are tried first.
        path: the file, for error messages.
        fields: the columns of texts and ids.
        limit: largest bytes of a line, and characters of a record of several lines.

    Raises:
        UnreadableFile: a column does not exist or exists twice.
    """
    lines = _lines(chunks, limit)
    head: list[str] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line)
        if len(head) >= _HEAD_LINES or size > _HEAD_CHARACTERS:
            break
    named = head[0].lower().strip() if head else ""
    skipped = 0
    delimiters: Sequence[str] = DELIMITERS if ends_with(name, ".tsv", ".tab") else _COMMA_FIRST
    if named.startswith(_SEPARATOR) and len(named) == len(_SEPARATOR) + 1:
        delimiters, head, skipped = (head[0].strip()[-1],), head[1:], 1
    dialect = _dialect(head, delimiters, fields)
    records = read_records(chain(head, lines), dialect, limit=limit)
    columns: list[str] = []
    for record in records:
        number, values = record.line + skipped, record.fields
        if not values:
            reason = "oversized" if record.first.endswith(_CUT) else INVALID
            yield Record(number, record.first.rstrip(_CUT), "", reason)
            continue
        if not columns:
            columns = _columns(path, values, fields, dialect)
            if columns == values:
                continue
        # A line that was cut is the end of a record, or inside a record of several lines.
        is_cut = values[-1].endswith(_CUT) or (record.lines > 1 and any(_CUT in v for v in values))
        if is_cut or len(values) != len(columns):
            text = dialect.delimiter.join(values)
            reason = "oversized" if _CUT in text else INVALID
            yield Record(number, text.replace(_CUT, ""), "", reason)
            continue
        row = dict(zip(columns, values, strict=True))
        text, reason = fields.text(row)
        yield Record(number, text, fields.id(row), reason)


_COMMA_FIRST = (",", ";", "\t", "|")


def _lines(chunks: Iterable[bytes], limit: int) -> Iterator[str]:
    """Yield the lines without line feeds; of a line above the limit the beginning and `_CUT`."""
    rows = iter(chunks)
    first = next(rows, b"")
    chunks = chain([first], rows)
    if has_old_line_ends(first):
        chunks = (data.replace(b"\r", b"\n") for data in chunks)
    for block in without_mark(whole_lines(chunks, 0, None, True, limit)):
        if isinstance(block, Oversized):
            yield decode(block.beginning, "utf-8")[0] + _CUT
        else:
            text, _ = decode(block.data, "utf-8")
            yield from text.removesuffix("\n").split("\n")


def _dialect(lines: Sequence[str], delimiters: Sequence[str], fields: Fields) -> Dialect:
    """Return the dialect in which the first record has the fields, or the likely one."""
    best: tuple[int, Dialect] | None = None
    for delimiter in delimiters:
        dialect, records = find_dialect(lines, delimiter)
        if not dialect.quoted and quotes_enclose(records):
            dialect = dialect._replace(quoted=True)
            records = list(read_records(lines, dialect))
        first = next((record.fields for record in records if record.fields), [])
        if not fields.missing(dict.fromkeys(first, "")):
            odd = count_odd(records, len(first))
            if best is None or odd < best[0]:
                best = odd, dialect
    if best:
        return best[1]
    chosen = choose_dialect(lines, delimiters, _known(fields))
    return chosen or Dialect(delimiters[0], any(line.startswith('"') for line in lines))


def _known(fields: Fields) -> Callable[[str], bool]:
    return {*fields.all_paths}.__contains__


def _columns(path: str, first: list[str], fields: Fields, dialect: Dialect) -> list[str]:
    """Return the names of the columns: the first record, or numbers from 1 if it is no header.

    Raises:
        UnreadableFile: a column does not exist or exists twice.
    """
    numbers = [str(number) for number in range(1, len(first) + 1)]
    names = numbers if _are_numbers(fields, first, numbers) else first
    for wanted in fields.all_paths:
        if (number := names.count(wanted)) > 1:
            problem = f"{number} columns are named '{wanted}'"
            raise unreadable_file(path, problem, "rename them, or remove all but one", REASON)
    row = dict.fromkeys(names, "")
    absent = [one for one in fields.all_paths if one not in row]
    if not absent:
        return names
    shown = ", ".join(f"'{_short(one)}'" for one in first[:_MOST_NAMED])
    shown += f" and {len(first) - _MOST_NAMED} more" if len(first) > _MOST_NAMED else ""
    key = "template" if fields.template else "text_field"
    key = "id_field" if absent == [fields.id_path] else key
    kind = DELIMITER_NAMES.get(dialect.delimiter, "CSV")
    raise unreadable_file(
        path,
        f"this is {kind} without a column '{absent[0]}'; its first record is {shown}",
        f"name one of these in {key} of its source, or a column's number, such as '1', if the first "
        "record is no header",
        REASON,
    )


def _are_numbers(fields: Fields, first: list[str], numbers: list[str]) -> bool:
    """Return True if the fields are numbers of columns, so that the first record is no header.

    A value of the first record may equal such a number, such as a class in the first column. Only a record
    of numbers, as pandas writes for columns without names, or a number that no column has, is a name then.
    """
    wanted = fields.all_paths
    if not all(map(str.isdecimal, wanted)):
        return False
    if not any(one in first for one in wanted):
        return True
    return not all(map(str.isdecimal, first)) and all(one in numbers for one in wanted)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
