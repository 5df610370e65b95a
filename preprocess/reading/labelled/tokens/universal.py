"""Sentences in CoNLL-U and CoNLL-U Plus, whose columns have names."""

import re
from collections.abc import Sequence

from preprocess.errors import UserError, one_line
from preprocess.reading.labelled.columns import listed
from preprocess.reading.labelled.counting import Counting
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.reading.labelled.tokens.conll import Tagged, add_sentence, groups_of

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_GLOBAL = re.compile(r"#\s*global\.columns\s*=\s*(.+)")
_ID = re.compile(r"\d+(?:[-.]\d+)?")
_OF_SPANS = re.compile(r"O|[BIMELSUW]-.+")
NOTHING = "_"
"""Value of an empty column, and of an attribute that a token lacks."""


def is_universal(lines: Sequence[str]) -> bool:
    """Return True if nearly all lines of tokens begin with an id and have all columns."""
    names = _names(lines)
    some = [line for line in lines if line.strip(" \t\r") and not line.startswith("#")][:2000]
    size = len(names or COLUMNS)
    good = sum(line.count("\t") == size - 1 and _begins_with_id(line) for line in some)
    return bool(some) and good >= 0.8 * len(some)


def _begins_with_id(line: str) -> bool:
    return _ID.fullmatch(line.partition("\t")[0]) is not None


def _names(lines: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names of the columns of CoNLL-U Plus, if the first line gives them."""
    found = _GLOBAL.match(lines[0]) if lines else None
    return tuple(found[1].split()) if found else None


def read_universal(
    path: str, lines: Sequence[str], options: TaggedOptions, with_tags: bool
) -> Tagged:
    """Read sentences of syntactic words.

    Words of a multiword token (``1-2``) are read, not the token; empty nodes (``1.1``) are left out.
    Both are counted. Lines of ``#`` are comments.

    Args:
        path: the file, for error messages.
        lines: its lines.
        options: the columns of tokens and tags: a name, ``COLUMN:Attribute`` for columns of attributes
            such as ``FEATS:Case``, or a number.
        with_tags: False reads tokens only.

    Raises:
        UserError: there is no such column.
    """
    plus = _names(lines)
    names = plus or COLUMNS
    token, _ = _column(path, "tokens", options.tokens or "FORM", names)
    tag, attribute = 0, ""
    wanted = options.tags or ("UPOS" if "UPOS" in names else names[-1])
    if with_tags:
        tag, attribute = _column(path, "tags", wanted, names)
    nothing = _nothing(lines, tag, attribute) if attribute else NOTHING
    counting = Counting[TaggedSentence]()
    ranges = nodes = lacking = 0
    for group in groups_of(lines, tabs=True):
        rows = [line for line in group if not line.text.startswith("#")]
        words = [line for line in rows if line.columns[0].isdecimal()]
        ranges += sum("-" in line.columns[0] for line in rows)
        nodes += sum("." in line.columns[0] for line in rows)
        wrong = [
            line
            for line in rows
            if len(line.columns) != len(names) or not _ID.fullmatch(line.columns[0])
        ]
        if wrong:
            reason = "not the columns of CoNLL-U"
            counting.drop(reason, f"line {wrong[0].number}")
        elif words:
            tags = [_value(line.columns[tag], attribute) for line in words] if with_tags else []
            lacking += sum(value == NOTHING for value in tags)
            tags = [nothing if value == NOTHING else value for value in tags]
            add_sentence(counting, [line.columns[token] for line in words], tags, words)
        elif rows:
            counting.drop("no words", f"line {rows[0].number}")
    notes: list[str] = []
    if ranges:
        notes.append(f"multiword tokens, of which the words are read: {ranges:,}")
    if nodes:
        notes.append(f"empty nodes, which are left out: {nodes:,}")
    if lacking:
        notes.append(f"words without {one_line(wanted)}, with the tag '{nothing}': {lacking:,}")
    columns = {"tokens": names[token]}
    if with_tags:
        columns["tags"] = f"{names[tag]}:{attribute}" if attribute else names[tag]
        if options.tags is None:
            columns["tags"] += " (guessed)"
            notes.append(
                f"other tags: tags= one of {', '.join(names)}, or an attribute (FEATS:Case)"
            )
    kind = "CoNLL-U Plus" if plus else "CoNLL-U"
    return Tagged(kind, counting, columns, tuple(notes))


def _nothing(lines: Sequence[str], tag: int, attribute: str) -> str:
    """Return the tag of words without an attribute: "O" if the attribute holds tags of spans."""
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    found = {_value(row[tag], attribute) for row in rows if len(row) > tag} - {NOTHING}
    return "O" if found and all(map(_OF_SPANS.fullmatch, found)) else NOTHING


def _column(path: str, key: str, option: str, names: Sequence[str]) -> tuple[int, str]:
    """Return the index of a column, and the attribute inside it, which may be empty."""
    upper = [name.upper() for name in names]
    # Names of CoNLL-U Plus may contain a colon, as in PARSEME:MWE.
    name, _, attribute = option.partition(":")
    for wanted, inner in ((option, ""), (name, attribute)):
        if wanted.upper() in upper:
            return upper.index(wanted.upper()), inner
    if option.isdecimal() and 1 <= int(option) <= len(names):
        return int(option) - 1, ""
    raise UserError(
        f"{one_line(path)}: there is no column '{one_line(option)}'; set {key} to one of {listed(names)}, "
        f"or to a number from 1 to {len(names)}"
    )


def _value(column: str, attribute: str) -> str:
    if not attribute:
        return column
    pairs = (part.partition("=") for part in column.split("|"))
    return next((value for name, _, value in pairs if name == attribute and value), NOTHING)
