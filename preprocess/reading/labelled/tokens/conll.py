"""Sentences in CoNLL columns: a token and its columns a line, blank lines between sentences."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from preprocess.errors import UserError, one_line
from preprocess.reading.labelled.counting import Counting
from preprocess.reading.labelled.examples import SpanAside, TaggedSentence
from preprocess.reading.labelled.labels import has_surrogates
from preprocess.reading.labelled.options import TaggedOptions

DOCUMENT = "-DOCSTART-"
_DIGITS = "0123456789"
_MANY_LINES = 500
"""Lines of a sentence from which blank lines seem to be missing."""


class TokenLine(NamedTuple):
    """A line of a token.

    Attributes:
        number: its number in the file, from 1.
        columns: its columns.
        text: the line.
    """

    number: int
    columns: list[str]
    text: str


class Tagged(NamedTuple):
    """The sentences of a file and how they were read; see `Reading` for the parts."""

    format: str
    counting: Counting[TaggedSentence]
    columns: dict[str, str]
    notes: tuple[str, ...]
    aside: tuple[SpanAside, ...] = ()


def groups_of(lines: Sequence[str], tabs: bool) -> Iterator[list[TokenLine]]:
    """Yield the lines of each sentence with their columns, split at tabs or at runs of spaces."""
    group: list[TokenLine] = []
    for number, line in enumerate(lines, start=1):
        if line.strip(" \t\r"):
            group.append(TokenLine(number, split_columns(line, tabs), line))
        elif group:
            yield group
            group = []
    if group:
        yield group


def split_columns(line: str, tabs: bool) -> list[str]:
    """Return the columns of a line. Only tabs and spaces separate them, no other whitespace."""
    line = line.rstrip(" \t\r")
    if tabs:
        return line.split("\t")
    return [column for column in line.replace("\t", " ").split(" ") if column]


def has_tabs(lines: Sequence[str]) -> bool:
    """Return True if most lines that are not blank have tabs."""
    some = [line for line in lines if line.strip(" \t\r")]
    return 2 * sum("\t" in line for line in some) > len(some)


def read_columns(
    path: str, lines: Sequence[str], options: TaggedOptions, with_tags: bool
) -> Tagged:
    """Read sentences in columns of any number and order.

    A line ``-DOCSTART-`` begins a document and is no token. A sentence in which a line has another
    number of columns than most lines is dropped, because its tags may be in the wrong place.

    Args:
        path: the file, for error messages.
        lines: its lines.
        options: the columns of tokens and tags, by number.
        with_tags: False reads tokens only.

    Raises:
        UserError: there is no such column.
    """
    tabs = has_tabs(lines)
    groups = list(groups_of(lines, tabs))
    size = _usual_size(groups)
    notes: list[str] = []
    groups, documents, comments = _without_marks(groups, size)
    notes += [f"documents ({DOCUMENT}): {documents:,}"] if documents else []
    if comments:
        first = comments[0]
        shown = one_line(first.text[:40])
        notes.append(f"comment lines: {len(comments):,} (line {first.number}: '{shown}')")
    numbered = size > 2 and all(_is_numbered(group) for group in groups)
    token = _column(path, "tokens", options.tokens, size, 1 if numbered else 0)
    if numbered and options.tokens is None:
        notes.append("column 1 counts the tokens, so that the tokens are in column 2 (tokens=2)")
    tag = _column(path, "tags", options.tags, size, size - 1) if with_tags else None
    if tag == token and size > 1:
        raise UserError(
            f"{one_line(path)}: column {token + 1} is set for tokens and for tags; set two of {size}"
        )
    marked = options.positions == "yes" or (
        options.positions == "auto" and _are_marked(groups, token, size)
    )
    if marked:
        notes.append(
            "each token ends with its position in a word, as in Weibo NER, which is removed "
            "(positions=no keeps it)"
        )
    counting = Counting[TaggedSentence]()
    for group in groups:
        _add(counting, group, size, token, tag, marked)
    if any(len(group) > _MANY_LINES for group in groups) and len(groups) < 3:
        notes.append(f"sentences: {len(groups)}; are blank lines between them missing?")
    columns = {"tokens": f"column {token + 1}"}
    columns |= {} if tag is None else {"tags": f"column {tag + 1} of {size}"}
    kind = "tabs" if tabs else "spaces"
    return Tagged(f"CoNLL columns, separated by {kind}", counting, columns, tuple(notes))


def _usual_size(groups: Sequence[Sequence[TokenLine]]) -> int:
    sizes = Counter(
        len(line.columns) for group in groups for line in group if not line.text.startswith("#")
    )
    return max(sizes, key=lambda size: (sizes[size], size)) if sizes else 0


def _without_marks(
    groups: Sequence[list[TokenLine]], size: int
) -> tuple[list[list[TokenLine]], int, list[TokenLine]]:
    """Return the groups without lines that begin documents, and without comments.

    A line of ``#`` is a comment if it has another number of columns than tokens have, or if it
    begins a sentence and its last column holds nothing that the last column of a token does.
    """
    last = {line.columns[-1] for group in groups for line in group if not line.text.startswith("#")}
    kept: list[list[TokenLine]] = []
    documents = 0
    comments: list[TokenLine] = []
    for group in groups:
        rest: list[TokenLine] = []
        for line in group:
            odd = len(line.columns) != size or (not rest and line.columns[-1] not in last)
            if line.columns[0] == DOCUMENT:
                documents += 1
            elif line.text.startswith("#") and odd:
                comments.append(line)
            else:
                rest.append(line)
        if rest:
            kept.append(rest)
    return kept, documents, comments


def _is_numbered(group: Sequence[TokenLine]) -> bool:
    return all(line.columns[0] == str(number) for number, line in enumerate(group, start=1))


def _column(path: str, key: str, option: str | None, size: int, default: int) -> int:
    if option is None:
        return default
    if option.isdecimal() and 1 <= int(option) <= size:
        return int(option) - 1
    raise UserError(
        f"{one_line(path)}: there is no column '{one_line(option)}'; the columns of this file have no "
        f"names, so set {key} to a number from 1 to {size}"
    )


def _are_marked(groups: Sequence[Sequence[TokenLine]], token: int, size: int) -> bool:
    """Return True if nearly all tokens end with their position in a word."""
    fitting = total = 0
    for group in groups:
        tokens = [line.columns[token] for line in group if len(line.columns) == size]
        _, misfits = _without_positions(tokens)
        fitting += len(tokens) - misfits
        total += len(tokens)
    return fitting >= 0.99 * total > 0


def _without_positions(tokens: Sequence[str]) -> tuple[list[str], int]:
    """Return tokens without the position in a word that each ends with, and the number of misfits.

    The positions of a word are 0, 1, 2, …, so that they are told from digits of the tokens: after 9
    comes 10, or 0 in a new word. At a misfit all last digits are the position; "" is a token without.
    """
    found: list[str] = []
    position = -1
    misfits = 0
    for token in tokens:
        for mark in (str(position + 1), "0"):
            if len(token) > len(mark) and token.endswith(mark):
                break
        else:
            misfits += 1
            mark = token[len(token[:1] + token[1:].rstrip(_DIGITS)) :]
        found.append(token[: len(token) - len(mark)] if mark else "")
        position = int(mark or -1)
    return found, misfits


def _add(
    counting: Counting[TaggedSentence],
    group: Sequence[TokenLine],
    size: int,
    token: int,
    tag: int | None,
    marked: bool,
) -> None:
    for line in group:
        if len(line.columns) != size:
            few = len(line.columns) < size
            counting.drop("too few columns" if few else "too many columns", f"line {line.number}")
            return
    tokens = [line.columns[token] for line in group]
    tags = [] if tag is None else [line.columns[tag] for line in group]
    if marked:
        tokens, _ = _without_positions(tokens)
        if "" in tokens:
            line = group[tokens.index("")]
            counting.drop("a token without its position", f"line {line.number}")
            return
    add_sentence(counting, tokens, tags, group)


def add_sentence(
    counting: Counting[TaggedSentence],
    tokens: Sequence[str],
    tags: Sequence[str],
    group: Sequence[TokenLine],
) -> None:
    """Add a sentence whose tokens and tags stand in these lines, or count why it cannot be used."""
    for number, token in enumerate(tokens):
        tag = tags[number] if tags else "O"
        reason = token_problem(token, tag)
        if reason:
            counting.drop(reason, f"line {group[number].number}")
            return
    counting.add(TaggedSentence(tuple(tokens), tuple(tags), f"line {group[0].number}"))


def token_problem(token: str, tag: str) -> str:
    """Return why a token and its tag cannot be used, or an empty string."""
    if not token.strip():
        return "empty token"
    if not tag:
        return "empty tag"
    return "invalid characters" if has_surrogates(token) or has_surrogates(tag) else ""
