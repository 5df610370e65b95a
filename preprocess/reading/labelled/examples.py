"""Labelled examples, and what a reader reports about the file that they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar

Target = Literal["single", "several", "number"]
"""What is predicted for a text: one label, any number of labels, or a number."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a pair of texts, with its labels.

    Attributes:
        text: the text.
        pair: the second text of a pair; None if the file has no pairs.
        labels: its labels as in the file, without repeats. With the target "several" there may be none.
        place: where it is in the file: ``line 17``, ``row 3`` or ``item 3``.
        value: the label as a finite number, if the target is "number".
    """

    text: str
    pair: str | None
    labels: tuple[str, ...]
    place: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """The tokens of a sentence with one tag each.

    Attributes:
        tokens: the tokens; none is empty.
        tags: a tag for each token, as in the chosen column of the file, or IOB2 tags made from spans;
            no tags if the sentence was read without them.
        place: where it begins in the file, as in `LabelledText.place`.
        text: the text from which the tokens were cut; None for a file that has tokens only.
        offsets: (start, end) of each token in ``text``, in characters; empty without ``text``.
        problem: why an input to predict for has no tokens, such as ``empty text``; empty if it has some.
        is_cut: whether the tokens were cut from `text` by a rule, because the record has no tokens.
    """

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    place: str
    text: str | None = None
    offsets: tuple[tuple[int, int], ...] = ()
    problem: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class InputText:
    """A text to predict for. Each record of the input is one, so that predictions keep its order.

    Attributes:
        text: the text; empty if there is a problem.
        pair: the second text of a pair; None if there is none.
        place: as in `LabelledText.place`.
        problem: why the record has no text, such as ``empty text``; empty if it has one.
    """

    text: str
    pair: str | None
    place: str
    problem: str = ""


class SpanAside(NamedTuple):
    """A span that no tags can express, and that is therefore not in the tags of its sentence.

    Attributes:
        reason: ``not at the bounds of tokens``, ``overlaps another span``, ``outside the text``,
            ``empty span``, ``not a span`` or ``its text differs``.
        place: place of the sentence.
        start: first character of the span; -1 if it is no number.
        end: the character after its last one; -1 if it is no number.
        label: its label.
        text: the text of the span; empty if it is outside the text; what is in place of a span, as JSON.
    """

    reason: str
    place: str
    start: int
    end: int
    label: str
    text: str


T = TypeVar("T", LabelledText, TaggedSentence)


@dataclass(frozen=True)
class Reading(Generic[T]):
    """The examples of a file, and what became of its other records.

    ``read == len(examples) + sum(dropped.values())`` always holds.

    Attributes:
        path: the file.
        format: how it was read, such as ``TSV with a header``.
        examples: the examples, in the order of the file.
        read: the number of records; a header and blank lines are none.
        dropped: number of records that are not used, by reason.
        shown: up to `SHOWN` of their places, by reason.
        columns: the column or field of each role, such as ``{"text": "'sentence' (column 1)"}``.
        notes: what a user must know: guesses, what is unusual, and the setting that changes it.
        aside: spans of used sentences that are not in their tags.
        target: what is predicted; "single" for tagged sentences.
    """

    path: str
    format: str
    examples: tuple[T, ...]
    read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    aside: tuple[SpanAside, ...] = ()
    target: Target = "single"


SHOWN = 5
"""Places that are shown for each reason."""
