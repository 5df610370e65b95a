"""Tags of tokens, and the spans that they stand for.

A tag is a prefix, a hyphen and a label, as in ``B-PER``. ``B`` begins a span, ``I`` (or ``M``) goes on,
``E`` (or ``L``) ends it, and ``S`` (``U``, ``W``) is a span of one token. ``O`` is outside every span.
A prefix alone has the label `NO_LABEL`. A tag without a prefix, such as ``PER``, reads as ``I-PER``.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

Scheme = Literal["IO", "IOB1", "IOB2", "IOBES", "BILOU"]
"""How spans are written: as runs of ``I``; ``B`` only where two spans of one label touch (IOB1); ``B`` at
each start (IOB2, often called BIO); with ends and single tokens as ``E`` and ``S`` or as ``L`` and ``U``."""
SCHEMES: tuple[Scheme, ...] = ("IO", "IOB2", "IOB1", "IOBES", "BILOU")
NO_LABEL = "_"
_KINDS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S", "O": "O"}


class Span(NamedTuple):
    """A span of tokens.

    Attributes:
        start: its first token.
        end: the token after its last one.
        label: its label.
    """

    start: int
    end: int
    label: str


class Tag(NamedTuple):
    """A tag in its parts.

    Attributes:
        prefix: the letter as written; empty if the tag has none.
        kind: "B", "I", "E", "S" or "O": what the prefix means in every scheme.
        label: the label; empty for "O".
    """

    prefix: str
    kind: str
    label: str


OUTSIDE = Tag("O", "O", "")


@lru_cache(maxsize=4096)
def parse_tag(tag: str) -> Tag:
    """Return a tag in its parts."""
    prefix, hyphen, label = tag.partition("-")
    if prefix == "O":
        return OUTSIDE
    if prefix in _KINDS and (hyphen or tag == prefix):
        return Tag(prefix, _KINDS[prefix], label or NO_LABEL)
    return Tag("", "I", tag)


def spans_of(tags: Sequence[str]) -> tuple[Span, ...]:
    """Return the spans of a sequence of tags in any scheme, as conlleval reads them.

    An invalid sequence has spans too, so that predictions without constraints can be scored: a span
    begins at ``B`` and ``S``, at ``I`` or ``E`` after a tag that is outside or has ended a span, and
    where the label changes. It ends at ``E`` and ``S``, and before the next start or ``O``.

    Source: Tjong Kim Sang and Buchholz (2000), conlleval; ``E`` and ``S`` as in seqeval's default mode.
    """
    spans: list[Span] = []
    start, label = -1, ""
    for place, tag in enumerate(map(parse_tag, tags)):
        if start >= 0 and (tag.kind in "BSO" or tag.label != label):
            spans.append(Span(start, place, label))
            start = -1
        if start < 0 and tag.kind != "O":
            start, label = place, tag.label
        if tag.kind in "ES":
            spans.append(Span(start, place + 1, label))
            start = -1
    if start >= 0:
        spans.append(Span(start, len(tags), label))
    return tuple(spans)


def strict_spans_of(tags: Sequence[str], scheme: Scheme) -> tuple[Span, ...]:
    """Return only the spans that a scheme allows, as seqeval's strict mode reads them.

    In IOB2 a span without ``B`` does not count; in IOBES and BILOU neither does one without its end.
    Prefixes that the scheme lacks are outside. In IO this is `spans_of`.
    """
    if scheme == "IO":
        return spans_of(tags)
    parsed = [tag if tag.prefix in ALPHABETS[scheme] else OUTSIDE for tag in map(parse_tag, tags)]
    read = _spans_in_iob1 if scheme == "IOB1" else _spans_with_starts
    return tuple(read([*parsed, OUTSIDE], scheme))


ALPHABETS: dict[Scheme, str] = {
    "IO": "IO",
    "IOB1": "BIO",
    "IOB2": "BIO",
    "IOBES": "BIMESWO",
    "BILOU": "BILOU",
}
"""The prefixes of each scheme. IOBES is also written with ``M`` and ``W`` (BMES, BMEWO)."""


def _spans_with_starts(tags: Sequence[Tag], scheme: Scheme) -> Iterable[Span]:
    start = -1
    for place, tag in enumerate(tags):
        goes_on = start >= 0 and tag.kind in "IE" and tag.label == tags[start].label
        if start >= 0 and not goes_on:
            if scheme == "IOB2":
                yield Span(start, place, tags[start].label)
            start = -1
        if tag.kind in "BS":
            start = place
        if start >= 0 and tag.kind in "ES":
            yield Span(start, place + 1, tag.label)
            start = -1


def _spans_in_iob1(tags: Sequence[Tag], scheme: Scheme) -> Iterable[Span]:
    """Yield the spans of IOB1: a ``B`` must touch a span of its label before it.

    A span before a wrong ``B`` counts if it ends with ``I``, and not if it ends with ``B``, as in seqeval.
    """
    start, before = -1, OUTSIDE
    for place, tag in enumerate(tags):
        touches = before.kind != "O" and before.label == tag.label
        if start >= 0 and not (tag.kind == "I" and touches):
            if not (tag.kind == before.kind == "B" and not touches):
                yield Span(start, place, tags[start].label)
            start = -1
        if start < 0 and (tag.kind == "I" or (tag.kind == "B" and touches)):
            start = place
        before = tag


def write_spans(spans: Iterable[Span], length: int, scheme: Scheme) -> tuple[str, ...]:
    """Return the tags of spans that do not overlap, for a sentence of ``length`` tokens.

    Raises:
        ValueError: the scheme is IO, and two spans of one label touch.
    """
    tags = ["O"] * length
    last = Span(0, 0, "")
    for span in sorted(spans):
        assert last.end <= span.start < span.end <= length, "spans overlap, or are outside"
        touches = last.end == span.start and last.label == span.label
        if scheme == "IO" and touches:
            raise ValueError(
                f"IO tags cannot separate two spans of '{span.label}' that touch, at token "
                f"{span.start}; use IOB2"
            )
        first, inside, end, single = _LETTERS[scheme]
        if scheme == "IOB1" and touches:
            first = single = "B"
        size = span.end - span.start
        letters = [single] if size == 1 else [first, *[inside] * (size - 2), end]
        suffix = "" if span.label == NO_LABEL else f"-{span.label}"
        tags[span.start : span.end] = [letter + suffix for letter in letters]
        last = span
    return tuple(tags)


_LETTERS: dict[Scheme, tuple[str, str, str, str]] = {
    "IO": ("I", "I", "I", "I"),
    "IOB1": ("I", "I", "I", "I"),
    "IOB2": ("B", "I", "I", "B"),
    "IOBES": ("B", "I", "E", "S"),
    "BILOU": ("B", "I", "L", "U"),
}


def convert(tags: Sequence[str], target: Scheme) -> tuple[str, ...]:
    """Return tags of any scheme in another one, with the same spans.

    The source needs no name, because a valid sequence has the same spans in every scheme that allows
    it. An invalid sequence is read as by `spans_of`.

    Raises:
        ValueError: the target is IO, and two spans of one label touch.
    """
    return write_spans(spans_of(tags), len(tags), target)
