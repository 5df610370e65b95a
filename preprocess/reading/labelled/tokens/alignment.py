"""Aligning spans of characters to tokens, and writing them as IOB2 tags."""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from preprocess.reading.labelled.examples import SpanAside

STARTS = ("start", "start_offset", "start_char", "begin", "from")
ENDS = ("end", "end_offset", "end_char", "stop", "to")
LABELS = ("label", "type", "entity", "entity_type", "tag", "class")
SURFACES = ("text", "surface", "word", "value")


class Spans(NamedTuple):
    """The tags of a sentence, and the spans that are not in them.

    Attributes:
        tags: an IOB2 tag for each token.
        aside: spans that do not fit, with the reason.
        longer: number of them that would fit if their end were one character later.
        units: number of them that would fit if they counted the units of an encoding, by its name.
    """

    tags: tuple[str, ...]
    aside: tuple[SpanAside, ...]
    longer: int
    units: Counter[str]


def align(
    spans: Sequence[object], text: str, offsets: Sequence[tuple[int, int]], place: str
) -> Spans:
    """Return the IOB2 tags of spans.

    Spaces at the bounds of a span do not count. Of spans that overlap, the one that begins first is
    kept; of those, the longest.

    Args:
        spans: ``[start, end, label]`` or objects with such fields, see `STARTS`.
        text: the text in which the spans count characters; the end is the character after the last.
        offsets: (start, end) of each token.
        place: place of the sentence.
    """
    aside: list[SpanAside] = []
    longer = 0
    units: Counter[str] = Counter()
    tags = ["O"] * len(offsets)
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    for span in spans:
        if _parts(span) is None:
            shown = json.dumps(span, ensure_ascii=False)
            aside.append(SpanAside("not a span", place, -1, -1, "", shown))
    read = [parts for span in spans if (parts := _parts(span))]
    for found in sorted(read, key=lambda parts: (parts.start, -parts.end, parts.label)):
        start, end, label, surface = found
        reason = _problem(found, text)
        first = last = 0
        if not reason:
            inner = text[start:end]
            start += len(inner) - len(inner.lstrip())
            end = start + len(inner.strip())
            first, last = bisect_left(starts, start), bisect_left(ends, end)
            if not _fits(starts, first, start) or not _fits(ends, last, end):
                reason = "not at the bounds of tokens"
                longer += _fits(starts, first, start) and _fits(
                    ends, bisect_left(ends, end + 1), end + 1
                )
            elif any(tag != "O" for tag in tags[first : last + 1]):
                reason = "overlaps another span"
        if reason:
            shown = text[found.start : found.end] if 0 <= found.start <= found.end else ""
            aside.append(SpanAside(reason, place, found.start, found.end, label, shown))
            if reason == _DIFFERS:
                longer += text[found.start : found.end + 1] == surface
            if found.start >= 0 and reason != "empty span" and not text.isascii():
                units.update(_fitting_units(found, text, starts, ends))
            continue
        tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
    return Spans(tuple(tags), tuple(aside), longer, units)


def _fitting_units(
    span: "_Parts", text: str, starts: Sequence[int], ends: Sequence[int]
) -> list[str]:
    """Return the encodings in whose units a span would fit: bytes of UTF-8, or units of UTF-16."""
    found = []
    for encoding, size in (("utf-8", 1), ("utf-16-le", 2)):
        data = text.encode(encoding, "surrogatepass")
        bounds = [
            len(data[: at * size].decode(encoding, "ignore")) for at in (span.start, span.end)
        ]
        inner = text[bounds[0] : bounds[1]]
        same = span.surface is None or span.surface == inner
        whole = len(inner.encode(encoding, "surrogatepass")) == (span.end - span.start) * size
        if same and whole and bounds[0] in starts and bounds[1] in ends:
            found.append(encoding.removesuffix("-le").upper())
    return found


class _Parts(NamedTuple):
    start: int
    end: int
    label: str
    surface: str | None


_DIFFERS, _OUTSIDE = "its text differs", "outside the text"


def _parts(span: object) -> _Parts | None:
    """Return the parts of a span, or None if it is none."""
    surface: object = None
    if isinstance(span, dict):
        start, end, label, surface = (
            next((span[key] for key in keys if key in span), None)
            for keys in (STARTS, ENDS, LABELS, SURFACES)
        )
    elif isinstance(span, list) and len(span) == 3:
        start, end, label = span
    else:
        return None
    numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (start, end))
    if not numbers or not isinstance(label, str) or not label.strip():
        return None
    assert isinstance(start, int)
    assert isinstance(end, int)
    return _Parts(start, end, label, surface if isinstance(surface, str) else None)


def _problem(span: _Parts, text: str) -> str:
    if not 0 <= span.start <= len(text) or span.end > len(text):
        return _OUTSIDE
    if not text[span.start : span.end].strip():
        return "empty span"
    if span.surface is not None and span.surface != text[span.start : span.end]:
        return _DIFFERS
    return ""


def _fits(bounds: Sequence[int], index: int, bound: int) -> bool:
    return index < len(bounds) and bounds[index] == bound


def locate(tokens: Sequence[str], text: str) -> list[tuple[int, int]] | None:
    """Return the (start, end) of each token in a text, or None if they are not its words in order.

    Only whitespace may stand between two tokens.
    """
    found: list[tuple[int, int]] = []
    position = 0
    for token in tokens:
        start = text.find(token, position)
        if start < 0 or text[position:start].strip():
            return None
        position = start + len(token)
        found.append((start, position))
    return None if text[position:].strip() else found
