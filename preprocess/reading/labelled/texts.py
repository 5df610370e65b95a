"""Reading texts with labels from a file of any supported format."""

from preprocess.errors import UserError, one_line
from preprocess.reading.formats.detection import INSTALLED_DOCS
from preprocess.reading.labelled.columns import is_known
from preprocess.reading.labelled.content import (
    Content,
    decode_whole,
    open_content,
    read_whole,
    split_lines,
)
from preprocess.reading.labelled.detection import (
    is_conll,
    is_fasttext,
    is_json_array,
    is_json_lines,
    is_label_first,
    is_other_json,
    uneven,
)
from preprocess.reading.labelled.examples import LabelledText, Reading
from preprocess.reading.labelled.installed import installed_rows
from preprocess.reading.labelled.labels import (
    find_target,
    label_notes,
    labelled_texts,
    read_lists,
)
from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.reading.labelled.rows import (
    Lines,
    Rows,
    fasttext_rows,
    json_lines_rows,
    json_rows,
    label_first_rows,
)
from preprocess.reading.labelled.tables.parquet import parquet_rows
from preprocess.reading.labelled.tables.rows import table_rows
from preprocess.reading.tables.dialect import choose_dialect
from preprocess.reading.tables.records import DELIMITERS


def read_labelled_texts(path: str, options: LabelledTextOptions) -> Reading[LabelledText]:
    """Read the labelled texts of a file.

    The file may be compressed (gzip, bzip2, xz, Zstandard), and in UTF-16 or UTF-32. Texts and labels
    are as in the file: no spaces are removed (except as `LabelledTextOptions.strip_labels` says, and
    around the parts of a fastText line), and no characters are normalised.

    Args:
        path: path or URL of the file, or `INSTALLED_DOCS` for the documentation of installed packages.
        options: how to read it.

    Returns:
        All its records: those that can be used, and the others counted by reason. The notes name what
        was guessed.

    Raises:
        UserError: the file cannot be read, its format or columns cannot be found, or none of its
            records can be used.
    """
    notes: tuple[str, ...] = ()
    if path == INSTALLED_DOCS:
        path, found = path.removesuffix(":"), installed_rows()
        rows = list(found.rows)
    else:
        with open_content(path) as content:
            found, notes = _rows(path, content, options)
            rows = list(found.rows)
    rows, lists = read_lists(rows)
    target = find_target(rows, found.several or bool(lists), options)
    counting = labelled_texts(rows, target, options)
    counting.check(path, found.format, "texts")
    examples = counting.examples
    return Reading(
        path,
        found.format,
        examples,
        counting.read,
        counting.dropped,
        counting.shown,
        found.columns,
        (*notes, *found.notes, *lists, *label_notes(examples, target, options)),
        target=target,
    )


def _rows(
    path: str, content: Content, options: LabelledTextOptions
) -> tuple[Rows, tuple[str, ...]]:
    """Return the rows of a file, and notes about its encoding and line ends."""
    chosen = options.format
    if content.parquet and chosen in ("auto", "parquet"):
        return parquet_rows(path, content.parquet, options, True), ()
    if chosen == "parquet" or content.parquet:
        what = "is" if content.parquet else "is not"
        raise UserError(f"{one_line(path)}: this {what} a Parquet file; set format=auto")
    text, notes = decode_whole(path, read_whole(path, content), options.encoding)
    all_lines, more = split_lines(text)
    notes += more
    lines = Lines(all_lines, iter(()))
    if chosen == "auto" and is_json_array(text):
        chosen = "json"
    if chosen == "json" or (chosen == "auto" and is_other_json(text, all_lines)):
        return json_rows(path, text, options, True), notes
    if chosen == "jsonl" or (chosen == "auto" and is_json_lines(all_lines)):
        return json_lines_rows(path, lines, options, True), notes
    if chosen == "fasttext" or (chosen == "auto" and is_fasttext(all_lines)):
        _check_columns(path, options, "words with __label__")
        return fasttext_rows(lines), notes
    if chosen == "label-first":
        _check_columns(path, options, "the first words of its lines")
        return label_first_rows(lines), notes
    if chosen == "auto" and is_conll(all_lines):
        raise UserError(
            f"{one_line(path)}: this looks like CoNLL columns, a token a line; read them with 'biloom "
            "tag', or set format=tsv if each line is a text"
        )
    delimiters = {"tsv": DELIMITERS[:1], "csv": DELIMITERS[1:]}.get(chosen, DELIMITERS)
    dialect = choose_dialect(all_lines, delimiters, is_known)
    if dialect is None and chosen == "auto" and is_label_first(all_lines):
        _check_columns(path, options, "the first words of its lines")
        return label_first_rows(lines), notes
    if dialect is None:
        tried = {"tsv": "tabs", "csv": "',', ';' or '|'"}.get(chosen)
        problem = f"no {tried} separate its columns" if tried else uneven(all_lines) or _UNKNOWN
        raise UserError(f"{one_line(path)}: {problem}; {_REMEDY}")
    return table_rows(path, lines, dialect, options, True), notes


def _check_columns(path: str, options: LabelledTextOptions, labels: str) -> None:
    """Check that no column is set for a format that has none."""
    for key in ("text", "pair", "label", "labels"):
        if getattr(options, key) is not None:
            raise UserError(
                f"{one_line(path)}: this file has no columns, because its labels are {labels}; remove "
                f"{key}=, or set format to the right one"
            )


_UNKNOWN = "its format cannot be told from its lines"
_REMEDY = (
    "write a TSV or CSV file with the columns text and label, JSON Lines, or __label__NAME before each "
    "text, or set format to the right one (label-first: the first word of a line is its label)"
)


def check_labels(reading: Reading[LabelledText]) -> None:
    """Check that a classifier can be trained with these labels.

    Raises:
        UserError: there are fewer than two different labels (or numbers).
    """
    found = {label for example in reading.examples for label in example.labels}
    if (
        reading.target == "several"
        and len(found) == 1
        and any(not e.labels for e in reading.examples)
    ):
        return
    if len(found) > 1:
        return
    what = f"only the label {found.pop()!r}" if found else "no label"
    column = reading.columns.get("label")
    source = f" in {column}" if column else ""
    raise UserError(
        f"{one_line(reading.path)}: its {len(reading.examples):,} texts have {what}{source}, and a "
        "classifier needs two; check the column of the labels (label=…)"
    )
