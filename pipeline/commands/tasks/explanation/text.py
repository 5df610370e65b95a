"""An explanation on a terminal, or as plain lines."""

from rich.text import Text

from lightning_modules.tasks.explanation.explained import Explained, Row
from pipeline.console import Console
from pipeline.reports.explanation_page import deleted, left_out, pieces
from preprocess.errors import one_line, printable

SHOWN_UNITS = 300
"""Units of a text that a terminal shows."""
NAMED = 8
"""Strongest units that a plain line names."""
COLOURS = {"for": (224, 122, 31), "strong": (224, 122, 31), "against": (72, 130, 214)}
"""Background at the full share; black text is readable on it and on lighter shades of it."""


def show(console: Console, one: Explained) -> None:
    """Print an explanation: coloured text on a terminal, the strongest units in a file or a pipe."""
    console.line(f"{one_line(one.place)}: {one.title}")
    for row in one.rows:
        name = row.name.replace("_", " ")
        if console.is_terminal:
            console.coloured(name, _coloured(one, row))
        else:
            console.line(f"  {name}: {_strongest(one, row)}")
    if one.rows and console.is_terminal and (more := left_out(one, SHOWN_UNITS)):
        console.line(f"  {more:,} more units are not shown here; output=jsonl has all")
    facts = one.facts
    if "deleted" in facts:
        console.line(
            f"  score {facts['score']:.2f}; {facts['score_without_named']:.2f} without "
            f"{deleted(facts)[0]}, {facts['score_without_random']:.2f} without {deleted(facts)[1]}"
        )


def _coloured(one: Explained, row: Row) -> Text:
    text = Text()
    for piece in pieces(one, row, SHOWN_UNITS):
        style = ""
        if piece.style:
            # From white to the full colour.
            red, green, blue = (round(255 - piece.share * (255 - c)) for c in COLOURS[piece.style])
            style = f"black on rgb({red},{green},{blue})"
        text.append(printable(piece.text), style)
    return text


def _strongest(one: Explained, row: Row) -> str:
    values = row.values
    order = sorted(range(len(one.spans)), key=lambda n: (-abs(values[n]), n))[:NAMED]
    named = [
        f"{one_line(one.text[slice(*one.spans[n])])} {values[n]:{'+' if row.signed else ''}.3g}"
        for n in order
    ]
    return ", ".join(named)
