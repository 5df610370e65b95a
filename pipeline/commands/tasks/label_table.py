"""A table of scores by label, which stays readable with many or long labels."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.console import Console
from preprocess.errors import one_line

SHOWN_LABELS = 20
"""Labels that are shown."""
_LONGEST = 60
"""Characters of a label that are shown."""


class LabelRow(NamedTuple):
    """The scores of a label.

    Attributes:
        label: the label; any characters.
        scores: the cells of its scores.
        examples: number of its true examples, which decides whether it is shown.
    """

    label: str
    scores: Sequence[str]
    examples: int


def show_labels(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[LabelRow]
) -> None:
    """Print the scores of the labels, or of the most frequent labels if there are many.

    Args:
        console: where to print.
        title: what is scored.
        columns: names of the scores, and of the number of true examples.
        rows: a row for each label; none prints nothing.
    """
    if not rows:
        return
    if len(rows) > SHOWN_LABELS:
        title += f" (the {SHOWN_LABELS} most frequent of {len(rows):,})"
        rows = sorted(rows, key=lambda row: -row.examples)[:SHOWN_LABELS]
    cells = [[shown_label(row.label), *row.scores, f"{row.examples:,}"] for row in rows]
    console.table(title, ["label", *columns], cells)


def shown_label(label: str) -> str:
    """Return a label in one line of at most 60 characters."""
    label = one_line(label)
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
