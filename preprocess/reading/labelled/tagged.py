"""Reading sentences with a tag for each token."""

from collections.abc import Sequence
from typing import BinaryIO

from preprocess.errors import UserError, one_line
from preprocess.reading.labelled.content import (
    decode_whole,
    open_content,
    read_whole,
    split_lines,
)
from preprocess.reading.labelled.detection import (
    is_json_array,
    is_json_lines,
    is_other_json,
    token_columns,
)
from preprocess.reading.labelled.examples import Reading, TaggedSentence
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.reading.labelled.rows import json_items, parse_json
from preprocess.reading.labelled.tables.parquet import parquet_objects
from preprocess.reading.labelled.tokens.conll import Tagged, read_columns
from preprocess.reading.labelled.tokens.objects import read_objects
from preprocess.reading.labelled.tokens.universal import is_universal, read_universal


def read_tagged_sentences(path: str, options: TaggedOptions) -> Reading[TaggedSentence]:
    """Read the tagged sentences of a file.

    The file may be compressed and in UTF-16 or UTF-32. Tags are as in the file; spans become IOB2 tags.
    Spans that are not at the bounds of tokens, that overlap others or are outside their text are in
    `Reading.aside`; their sentences are used without them.

    Args:
        path: path or URL of the file.
        options: how to read it.

    Returns:
        All its sentences: those that can be used, and the others counted by reason.

    Raises:
        UserError: the file cannot be read, its format or columns cannot be found, or none of its
            sentences can be used.
    """
    with open_content(path) as content:
        if content.parquet:
            found, notes = _of_parquet(path, content.parquet, options)
        else:
            text, notes = decode_whole(path, read_whole(path, content), options.encoding)
            found, more = _of_text(path, text, options)
            notes += more
    found.counting.check(path, found.format, "sentences")
    examples = found.counting.examples
    return Reading(
        path,
        found.format,
        examples,
        found.counting.read,
        found.counting.dropped,
        found.counting.shown,
        found.columns,
        (*notes, *found.notes, *_tag_notes(examples)),
        found.aside,
    )


def _of_parquet(
    path: str, file: BinaryIO, options: TaggedOptions
) -> tuple[Tagged, tuple[str, ...]]:
    if options.format not in ("auto", "parquet"):
        raise UserError(f"{one_line(path)}: this is a Parquet file; set format=auto")
    records, notes = parquet_objects(path, file)
    return read_objects(path, "Parquet", records, options), notes


def _of_text(path: str, text: str, options: TaggedOptions) -> tuple[Tagged, tuple[str, ...]]:
    """Return the sentences of a text, and notes about its line ends."""
    lines, notes = split_lines(text)
    chosen = options.format if options.format != "auto" else _format(path, text, lines)
    if chosen == "parquet":
        raise UserError(f"{one_line(path)}: this is not a Parquet file; set format=auto")
    if chosen == "json":
        items = json_items(path, text)
        records = [(f"item {number}", item) for number, item in enumerate(items, start=1)]
        return read_objects(path, "a JSON array of objects", records, options), notes
    if chosen == "jsonl":
        numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        records = [(f"line {number}", parse_json(line)) for number, line in numbered]
        return read_objects(path, "JSON Lines", records, options), notes
    read = read_universal if chosen == "conllu" else read_columns
    return read(path, lines, options, True), notes


def _format(path: str, text: str, lines: Sequence[str]) -> str:
    if is_json_array(text) or is_other_json(text, lines):
        return "json"
    if is_json_lines(lines):
        return "jsonl"
    if is_universal(lines):
        return "conllu"
    if token_columns(lines[:2000], share=0.6):
        return "conll"
    raise UserError(
        f"{one_line(path)}: this is neither a token and its columns a line (CoNLL, CoNLL-U) nor JSON "
        "Lines nor Parquet; for texts with a label each use 'biloom classify', or set format=conll"
    )


def _tag_notes(sentences: Sequence[TaggedSentence]) -> tuple[str, ...]:
    tags = {tag for sentence in sentences for tag in sentence.tags}
    if len(tags) == 1:
        return (f"all tags are {tags.pop()!r}; check the column of the tags",)
    if tags and all(tag.isdecimal() for tag in tags):
        return (
            f"the {len(tags):,} tags are numbers, which name no spans; for spans, write the names that "
            "they stand for, such as B-PER",
        )
    return ()
