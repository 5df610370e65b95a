"""What is shown of a text: its units, coloured by one or more rows of values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.tokenizers.aligned_text import Tokenised

Doubles = npt.NDArray[np.float64]
By = Literal["auto", "word", "token"]

LONG_WORD = 12.0
"""Characters per word above which a text has no spaces between words, as in `held_out.LONG_WORD`."""


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


def shown_units(texts: Sequence[Tokenised], by: By) -> tuple[str, Units]:
    """Return the texts, joined by line breaks, and their units: words, or tokens.

    Args:
        texts: the text, or both texts of a pair.
        by: "auto" takes the words, unless the text has no spaces between words.
    """
    by_word = by == "word" or (by == "auto" and _has_words(texts))
    spans: list[tuple[int, int]] = []
    groups: list[npt.NDArray[np.int64]] = []
    start = 0
    for text in texts:
        units = text.words if by_word and text.words else text.tokens
        of_text = np.arange(len(text.tokens))
        if units is text.words:
            # A token that two words share counts for the second one.
            of_text = np.searchsorted(text.word_spans()[0], of_text, "right") - 1
        groups.append(np.maximum(of_text, 0).astype(np.int64) + len(spans))
        spans += [(start + unit.start, start + unit.end) for unit in units]
        start += len(text.text) + 1
    joined = "\n".join(text.text for text in texts)
    return joined, Units(tuple(spans), np.concatenate(groups))


def _has_words(texts: Sequence[Tokenised]) -> bool:
    words = [word for text in texts for word in text.words]
    characters = sum(word.end - word.start for word in words)
    return characters <= LONG_WORD * max(1, len(words))
