"""Texts whose words are given by their places, for libraries that have a tokenizer of their own."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Self

from preprocess.errors import UserError
from preprocess.tokenizers.segmentation.segmenters import Span

Clean = Callable[[list[str]], list[str]]
"""Returns texts after cleaning, in the same order."""


class SpannedText(str):
    """A string that knows where its words are, such as the text of a spaCy document.

    A model reads it as any string; only ``unit="word"`` uses the places. So a word such as ``n't`` is
    read as a part of ``don't``, and not as if there were a space before it.

    Args:
        text: the text.
        words: characters [start, end) of each word, in order, without overlaps.

    Raises:
        UserError: the places are not in order, overlap, or are outside of the text.
    """

    words: tuple[Span, ...]

    def __new__(cls, text: str, words: Sequence[tuple[int, int]]) -> Self:
        found = super().__new__(cls, text)
        found.words = tuple(Span(*word) for word in words)
        ends = [Span(0, 0), *found.words, Span(len(text), len(text))]
        for one, other in pairwise(ends):
            if not one.start <= one.end <= other.start:
                raise UserError(
                    f"the word {tuple(other)} of a text of {len(text):,} characters overlaps or precedes "
                    f"{tuple(one)}; give the words in order, each as (start, end)"
                )
        return found

    def __getnewargs__(self) -> tuple[str, tuple[Span, ...]]:  # type: ignore[override]
        return str(self), self.words


def cleaned_places(text: SpannedText, cleaned: str, clean: Clean) -> list[Span]:
    """Return the place of each word of a text in the text after cleaning.

    Args:
        text: the text.
        cleaned: ``clean([text])[0]``.
        clean: the cleaning. It may change words and whitespace, but must keep their order.

    Returns:
        As many places as words. A word of whitespace, or that cleaning leaves empty, has length 0.
    """
    if text == cleaned:
        return [_stripped(cleaned, *word) for word in text.words]
    ends = sorted({end for word in text.words for end in word})
    place_of: dict[int, int] = {}
    number = place = 0
    chunks = list(re.finditer(r"\S+", text))
    for chunk, changed in zip(chunks, clean([chunk[0] for chunk in chunks]), strict=True):
        while number < len(ends) and ends[number] < chunk.start():
            place_of[ends[number]] = place  # in whitespace
            number += 1
        inside = []
        while number < len(ends) and ends[number] <= chunk.end():
            inside.append(ends[number] - chunk.start())
            number += 1
        start = max(place, cleaned.find(changed, place))
        lengths = _lengths(chunk[0], changed, inside, clean)
        for end, length in zip(inside, lengths, strict=True):
            place_of[chunk.start() + end] = start + length
        place = start + len(changed)
    place_of.update(dict.fromkeys(ends[number:], place))
    return [_stripped(cleaned, place_of[word.start], place_of[word.end]) for word in text.words]


def _lengths(chunk: str, changed: str, ends: list[int], clean: Clean) -> list[int]:
    """Return the length after cleaning of ``chunk[:end]`` for each of ``ends``, which increase."""
    if chunk == changed:
        return ends
    parts = clean([chunk[a:b] for a, b in pairwise([0, *ends, len(chunk)])])
    if "".join(parts) == changed:
        lengths, total = [], 0
        for part in parts[:-1]:
            total += len(part)
            lengths.append(total)
        return lengths
    # Characters on both sides of an end have been joined, such as a letter and its accent.
    return [min(len(one), len(changed)) for one in clean([chunk[:end] for end in ends])]


def _stripped(cleaned: str, start: int, end: int) -> Span:
    """Return a place without the whitespace at its ends."""
    word = cleaned[start:end]
    start += len(word) - len(word.lstrip())
    return Span(start, max(start, start + len(word.strip())))
