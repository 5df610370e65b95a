"""What is shown of a text: its units, coloured by one or more rows of values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError, one_line
from preprocess.tokenizers.aligned_text import Tokenised
from preprocess.tokenizers.segmentation.segmenters import is_unspaced

Doubles = npt.NDArray[np.float64]
By = Literal["auto", "word", "token"]

Spans = list[tuple[int, int]]

LONG_WORD = 12.0
"""Characters per word above which a text has no spaces between words, as in `held_out.LONG_WORD`."""


class ExplainError(UserError):
    """Something that cannot be explained; the message says what to do."""


class Row(NamedTuple):
    """A value for each unit of a text.

    Attributes:
        name: what the values are.
        values: float64 (units,).
        signed: whether negative values count against, so that they get another colour.
    """

    name: str
    values: Doubles
    signed: bool


@dataclass(frozen=True)
class Explained:
    """A text with its explanation.

    Attributes:
        place: where the text is in its file.
        title: what is explained, such as a label with its probability; a note if nothing is.
        text: the text after cleaning, with the second text of a pair after a line break.
        spans: first character of each unit in ``text``, and the character after its last one.
        rows: values of the units.
        facts: further figures as JSON types.
    """

    place: str
    title: str
    text: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    rows: tuple[Row, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the explanation as JSON types."""
        units = [
            {
                "text": self.text[start:end],
                "start": start,
                "end": end,
                **{row.name: float(f"{row.values[number]:.6g}") for row in self.rows},
            }
            for number, (start, end) in enumerate(self.spans)
        ]
        return {
            "place": self.place,
            "title": self.title,
            **self.facts,
            "text": self.text,
            "units": units,
        }


class Units(NamedTuple):
    """The units of a text that get a value.

    Attributes:
        spans: as in `Explained.spans`.
        groups: the unit of each token, int64 (tokens,).
    """

    spans: tuple[tuple[int, int], ...]
    groups: npt.NDArray[np.int64]

    def sums(self, values: Doubles) -> Doubles:
        """Return the sum over the tokens of each unit, (units,), of values of tokens, (tokens,)."""
        found: Doubles = np.bincount(self.groups, values, len(self.spans)).astype(np.float64)
        return found


def check_label(label: str, labels: Sequence[str]) -> None:
    """Raise ExplainError if a task has no such label."""
    if label not in labels:
        known = one_line(", ".join(labels[:10]))[:300] + ", …" * (len(labels) > 10)
        raise ExplainError(
            f"for_label: the task has no label '{one_line(label)[:40]}'; its labels are {known}"
        )


def shown_units(texts: Sequence[Tokenised], by: By) -> tuple[str, Units]:
    """Return the texts, joined by line breaks, and their units: words, or tokens.

    A token without a character of its own, such as all bytes of a character but the last one, or a
    space before a word, belongs to the unit of the next token.

    Args:
        texts: the text, or both texts of a pair.
        by: "auto" takes the words, but cuts a word in a script without spaces between words into
            its tokens.
    """
    spans: list[tuple[int, int]] = []
    groups: list[npt.NDArray[np.int64]] = []
    start = 0
    cut_all = by == "token" or (by == "auto" and not _has_words(texts))
    for text in texts:
        units, of = _token_units(text)
        if text.words and not cut_all:
            # A token between two words, such as a space, belongs to the second one.
            words = np.searchsorted(text.word_spans()[1], np.arange(len(text.tokens)))
            units, of = _word_units(text, np.minimum(words, len(text.words) - 1), units, of, by)
        groups.append(of + len(spans))
        spans += [(start + first, start + last) for first, last in units]
        start += len(text.text) + 1
    joined = "\n".join(text.text for text in texts)
    return joined, Units(tuple(spans), np.concatenate(groups))


def _token_units(text: Tokenised) -> tuple[Spans, npt.NDArray[np.int64]]:
    """Return the characters of the tokens, and the unit of each token.

    Tokens that share a character, such as its bytes, are one unit.
    """
    units: Spans = []
    of = np.empty(len(text.tokens), np.int64)
    for number, token in enumerate(text.tokens):
        of[number] = len(units)
        if not text.text[token.start : token.end].strip():
            continue
        if units and token.start < units[-1][1]:
            of[number] -= 1
            units[-1] = (units[-1][0], max(units[-1][1], token.end))
        else:
            units.append((token.start, token.end))
    if len(text.tokens) and not units:
        units.append((text.tokens[0].start, text.tokens[-1].end))
    return units, np.minimum(of, max(0, len(units) - 1))


def _word_units(
    text: Tokenised,
    words: npt.NDArray[np.int64],
    units: Spans,
    of: npt.NDArray[np.int64],
    by: By,
) -> tuple[Spans, npt.NDArray[np.int64]]:
    """Return the words; a word in a script without spaces is cut into its tokens.

    Args:
        text: the text.
        words: the word of each token.
        units: as `_token_units` returns them.
        of: the unit of each token.
        by: "word" cuts no word.
    """
    spans: Spans = []
    groups = np.empty(len(of), np.int64)
    ends = np.searchsorted(words, np.arange(len(text.words)), "right").tolist()
    for word, begin, end in zip(text.words, [0, *ends], ends, strict=False):
        own = slice(begin, end)
        if by == "auto" and begin < end and is_unspaced(word.spelling):
            first = int(of[begin])
            groups[own] = len(spans) + of[own] - first
            spans += units[first : of[end - 1] + 1]
        else:
            groups[own] = len(spans)
            spans.append((word.start, word.end))
    return spans, groups


def _has_words(texts: Sequence[Tokenised]) -> bool:
    words = [word for text in texts for word in text.words]
    characters = sum(word.end - word.start for word in words)
    return characters <= LONG_WORD * max(1, len(words))
