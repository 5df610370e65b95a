"""A self-contained HTML page of texts coloured by their explanations."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lightning_modules.tasks.explanation.explained import Explained, Row
from pipeline.reports.html_page import render

PAGE_UNITS, TEXT_UNITS = 20_000, 2_000
"""Units of all texts, and of one text, that a page shows; browsers become slow with more."""
FAINT = 0.03
"""Share of the largest value below which a unit is not coloured."""


class Piece(NamedTuple):
    """A part of a text.

    Attributes:
        text: the part.
        style: "for", "against" or "strong", the class of its colour; empty without colour.
        share: its value as a share of the largest one of the text, from 0 to 1.
        value: the value as text; empty between units.
    """

    text: str
    style: str
    share: float
    value: str


def pieces(one: Explained, row: Row, most: int = TEXT_UNITS) -> Iterator[Piece]:
    """Yield the parts of a text in order: its first ``most`` units and what is between them."""
    spans = one.spans[:most]
    largest = float(abs(row.values[:most]).max()) if len(spans) else 0.0
    done = 0
    for (start, end), value in zip(spans, row.values.tolist(), strict=False):
        start, end = max(start, done), max(end, done)
        if start > done:
            yield Piece(one.text[done:start], "", 0.0, "")
        share = min(1.0, abs(value) / largest) if largest > 0 else 0.0
        style = ("for" if value > 0 else "against") if row.signed else "strong"
        if end > start:
            yield Piece(one.text[start:end], style if share > FAINT else "", share, f"{value:.3g}")
        done = end
    if len(one.spans) <= most and done < len(one.text):
        yield Piece(one.text[done:], "", 0.0, "")


def left_out(one: Explained, most: int = TEXT_UNITS) -> int:
    """Return the number of units that `pieces` leaves out."""
    return max(0, len(one.spans) - most)


class PageTexts:
    """Collects the first texts for a page, so that it stays small.

    Attributes:
        shown: the texts of the page.
        more: texts that are not on it.
    """

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.more = 0
        self._units = 0

    def add(self, one: Explained) -> None:
        """Add a text, or count it if the page is full."""
        units = sum(min(len(row.values), TEXT_UNITS) for row in one.rows)
        if self.shown and self._units + units > PAGE_UNITS:
            self.more += 1
            return
        self._units += units
        rows = [
            {
                "name": row.name.replace("_", " "),
                "signed": row.signed,
                "pieces": [*pieces(one, row)],
            }
            for row in one.rows
        ]
        self.shown.append(
            {"place": one.place, "title": one.title, "text": "" if rows else one.text[:500],
             "rows": rows, "facts": _facts(one), "left_out": left_out(one)}
        )  # fmt: skip


def _facts(one: Explained) -> list[tuple[str, str]]:
    """Return the figures below a text."""
    facts = one.facts
    if "deleted" not in facts:
        return []
    shown = [
        ("score", f"{facts['score']:.3f}; {facts['baseline']:.3f} for a text of zero vectors"),
        (
            "deletion",
            f"{facts['score_without_named']:.3f} without {deleted(facts)[0]}; "
            f"{facts['score_without_random']:.3f} without {deleted(facts)[1]}",
        ),
    ]
    if facts.get("missing") is not None:
        shown.append(("not attributed", f"{facts['missing']:.2g}"))
    return shown


def deleted(facts: dict[str, Any]) -> tuple[str, str]:
    """Name the units that are deleted by their attributions, and those deleted at random."""
    count = facts["deleted"]
    if count == 1:
        return "the strongest", "one at random"
    return f"the {count:,} strongest", "as many at random"


def explanation_page(
    heading: str, facts: Iterable[tuple[str, str]], about: Sequence[str], texts: PageTexts
) -> str:
    """Return the page.

    Args:
        heading: its title.
        facts: name and value of what holds for all texts.
        about: sentences that explain the colours.
        texts: the texts.
    """
    return render(
        "explanations.html",
        heading=heading,
        about=" ".join(about),
        facts=[*facts],
        texts=texts.shown,
        more=texts.more,
    )
