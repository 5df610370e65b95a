"""Reading texts to predict for, one by one, from a file or standard input."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from preprocess.errors import UserError, one_line
from preprocess.reading.formats.fields import MISSING
from preprocess.reading.labelled.columns import (
    SAMPLE,
    TEXTS,
    has_header,
    is_known,
    normal,
)
from preprocess.reading.labelled.content import (
    STANDARD_INPUT,
    Content,
    choose_stream_encoding,
    open_content,
    whole_lines,
)
from preprocess.reading.labelled.counting import Dropped
from preprocess.reading.labelled.detection import (
    is_conll,
    is_fasttext,
    is_json_array,
    is_json_lines,
)
from preprocess.reading.labelled.examples import InputText, TaggedSentence
from preprocess.reading.labelled.labels import text_problem
from preprocess.reading.labelled.options import LabelledTextOptions, TaggedOptions
from preprocess.reading.labelled.rows import (
    Lines,
    Row,
    Rows,
    fasttext_rows,
    json_items,
    json_lines_rows,
    json_rows,
    label_first_rows,
    parse_json,
    plain_rows,
)
from preprocess.reading.labelled.tables.parquet import parquet_objects, parquet_rows
from preprocess.reading.labelled.tables.rows import table_rows
from preprocess.reading.labelled.tokens.conll import read_columns
from preprocess.reading.labelled.tokens.cutting import choose_cut, cut_text
from preprocess.reading.labelled.tokens.objects import ObjectReader, find_fields
from preprocess.reading.labelled.tokens.universal import is_universal, read_universal
from preprocess.reading.tables.dialect import choose_dialect
from preprocess.reading.tables.records import DELIMITERS, Dialect, read_records

Tell = Callable[[str], None]


def read_texts(path: str, options: LabelledTextOptions, tell: Tell) -> Iterator[InputText]:
    """Yield the texts of a file, or of standard input if ``path`` is ``-``, as they are read.

    Every record gives one `InputText`, so that the order and number of predictions are those of the
    input. Labels are ignored. The first 2,000 lines of a file tell its format, of standard input the
    first line alone, so that its texts are read as they arrive. Lines that are no JSON, no fastText,
    not separated by tabs and without a header are texts.

    Args:
        path: path or URL of the file, or ``-``.
        options: how to read it, as for `read_labelled_texts`.
        tell: called with a line about the format, the columns and each note, before the first text.

    Raises:
        UserError: at the first text: the file cannot be read, or has no column for the text.
    """
    with open_content(path) as content:
        if content.parquet:
            found = parquet_rows(path, content.parquet, options, False)
        else:
            lines = _lines(path, content, options.encoding, tell)
            found = _rows(path, lines, options)
        columns = ", ".join(f"{role}: {name}" for role, name in found.columns.items())
        how = f"{found.format}; {columns}" if columns else found.format
        for note in (f"{one_line(path)}: {how}", *found.notes):
            tell(note)
        for row in found.rows:
            yield _input(row)


def _lines(path: str, content: Content, encoding: str, tell: Tell) -> Lines:
    if not content.head and path != STANDARD_INPUT:
        raise UserError(f"{one_line(path)}: this file is empty (0 bytes); name a file with texts")
    chosen, notes = choose_stream_encoding(path, content.head, encoding)
    for note in notes:
        tell(note)
    lines = whole_lines(path, content.chunks, chosen)
    if path != STANDARD_INPUT:
        return Lines(list(islice(lines, SAMPLE)), lines)
    head: list[str] = []
    for line in lines:
        head.append(line)
        if line.strip():
            break
    return Lines(head, lines)


def _rows(path: str, lines: Lines, options: LabelledTextOptions) -> Rows:
    chosen, head = options.format, lines.head
    if chosen == "auto" and path != STANDARD_INPUT and is_json_array("\n".join(head[:20])):
        chosen = "json"
    if chosen == "json":
        return json_rows(path, "\n".join(lines), options, False)
    if chosen == "jsonl" or (chosen == "auto" and is_json_lines(head)):
        return json_lines_rows(path, lines, options, False)
    if chosen == "fasttext" or (chosen == "auto" and is_fasttext(head)):
        return fasttext_rows(lines)
    if chosen == "label-first":
        return label_first_rows(lines)
    if chosen == "parquet":
        raise UserError(f"{one_line(path)}: this is not a Parquet file; set format=auto")
    if chosen == "auto" and is_conll(head):
        raise UserError(
            f"{one_line(path)}: this looks like CoNLL columns, a token a line; read them with 'biloom "
            "tag', or set format=tsv if each line is a text"
        )
    dialect = _dialect(head, options)
    return table_rows(path, lines, dialect, options, False) if dialect else plain_rows(lines)


def _dialect(head: Sequence[str], options: LabelledTextOptions) -> Dialect | None:
    """Return the dialect of a table, or None for lines of text, in which commas are no sign of one."""
    delimiters = {"tsv": DELIMITERS[:1], "csv": DELIMITERS[1:]}.get(options.format, DELIMITERS)
    dialect = choose_dialect(head, delimiters, is_known)
    first = next((line for line in head if line.strip()), "")
    if dialect and (options.format != "auto" or dialect.delimiter == "\t" or options.text):
        return dialect
    if dialect:
        rows = [record.fields for record in read_records(head, dialect)]
        if rows[0] and has_header([row for row in rows if len(row) == len(rows[0])]):
            return dialect
    if normal(first) in TEXTS or options.header == "yes":
        # A table of one column.
        return (
            Dialect(",", True)
            if any(line.startswith('"') for line in head)
            else Dialect("\t", False)
        )
    return None


def _input(row: Row) -> InputText:
    problem = row.problem or text_problem(row.text)
    if not problem and row.pair is not MISSING:
        problem = text_problem(row.pair, "second text")
    pair = row.pair if isinstance(row.pair, str) and not problem else None
    return InputText("" if problem else str(row.text), pair, row.place, problem)


def read_untagged(path: str, options: TaggedOptions, tell: Tell) -> Iterator[TaggedSentence]:
    """Yield sentences without tags of a file, or of standard input, as they are read.

    Every record gives one sentence; `TaggedSentence.problem` says why one has no tokens. Plain text has
    one sentence a line, which is cut into tokens as `TaggedOptions.split` says. CoNLL columns, arrays
    of JSON and Parquet are read to their end first.

    Args:
        path: path or URL of a file in CoNLL columns, CoNLL-U, JSON Lines or Parquet (tokens, or a text)
            or plain text; ``-`` is standard input, whose first line tells whether it is JSON Lines.
        options: how to read it; tags are ignored.
        tell: called with a line about the format and each note, before the first sentence.

    Raises:
        UserError: at the first sentence: the file cannot be read, or has no tokens and no text.
    """
    with open_content(path) as content:
        if content.parquet:
            records, _ = parquet_objects(path, content.parquet)
            sample = [record for _, record in records[:SAMPLE]]
            yield from _objects(path, iter(records), sample, "Parquet", options, tell)
            return
        lines = _lines(path, content, options.encoding, tell)
        yield from _sentences(path, lines, options, tell)


def _sentences(
    path: str, lines: Lines, options: TaggedOptions, tell: Tell
) -> Iterator[TaggedSentence]:
    head, chosen = lines.head, options.format
    if chosen == "parquet":
        raise UserError(f"{one_line(path)}: this is not a Parquet file; set format=auto")
    is_file = path != STANDARD_INPUT
    if chosen == "json" or (chosen == "auto" and is_file and is_json_array("\n".join(head[:20]))):
        items = json_items(path, "\n".join(lines))
        records = ((f"item {number}", item) for number, item in enumerate(items, start=1))
        yield from _objects(path, records, items[:SAMPLE], "a JSON array of objects", options, tell)
    elif chosen == "jsonl" or (chosen == "auto" and is_json_lines(head)):
        numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        parsed = ((f"line {number}", parse_json(line)) for number, line in numbered)
        sample = [parse_json(line) for line in head if line.strip()]
        yield from _objects(path, parsed, sample, "JSON Lines", options, tell)
    elif chosen != "auto" or (is_file and (is_universal(head) or is_conll(head))):
        universal = chosen == "conllu" or (chosen == "auto" and is_universal(head))
        read = read_universal if universal else read_columns
        found = read(path, list(lines), options, False)
        how = f"{one_line(path)}: {found.format}; tokens: {found.columns['tokens']}"
        for note in (how, *found.notes):
            tell(note)
        for one in found.counting.records:
            if isinstance(one, Dropped):
                one = TaggedSentence((), (), one.place, problem=one.reason)
            yield one
    else:
        cut = options.split if options.split != "auto" else choose_cut(head)
        tell(f"{one_line(path)}: plain text, one sentence a line; cut into {cut}")
        for number, line in enumerate(lines, start=1):
            text, place = line.removesuffix("\r"), f"line {number}"
            if problem := text_problem(text):
                yield TaggedSentence((), (), place, problem=problem)
                continue
            offsets = cut_text(text, cut)
            tokens = tuple(text[start:end] for start, end in offsets)
            yield TaggedSentence(tokens, (), place, text, tuple(offsets), is_cut=True)


def _objects(
    path: str,
    records: Iterator[tuple[str, object]],
    sample: list[object],
    how: str,
    options: TaggedOptions,
    tell: Tell,
) -> Iterator[TaggedSentence]:
    fields = find_fields(path, sample, options, False)
    reader = ObjectReader(fields)
    columns = ", ".join(f"{role}: {name}" for role, name in fields.columns().items())
    tell(f"{one_line(path)}: {how}; {columns}")
    for place, record in records:
        found = reader.read(record, place)
        yield TaggedSentence((), (), place, problem=found) if isinstance(found, str) else found
