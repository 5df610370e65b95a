"""An explanation on a terminal and in a pipe."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console as RichConsole

from lightning_modules.tasks.explanation.explained import Explained, Row
from pipeline.commands.tasks.explanation import text
from pipeline.commands.tasks.explanation.text import show
from pipeline.console import Console

ONE = Explained(
    "line 1",
    "good (p = 0.900)",
    "so [bold]very\x1b[31m good!",
    ((0, 2), (3, 18), (19, 23)),
    (Row("attribution", np.array([2.0, -1.0, 0.5]), True),),
    {"score": 2.0, "deleted": 1, "score_without_named": -1.0, "score_without_random": 1.5},
)


def shown(terminal: bool) -> str:
    printed = StringIO()
    rich = RichConsole(
        file=printed, width=80, force_terminal=terminal, color_system="truecolor", highlight=False
    )
    show(Console(rich), ONE)
    return printed.getvalue()


def test_a_terminal_shows_coloured_words_without_their_control_characters() -> None:
    out = shown(True)
    assert "48;2;224;122;31mso" in out  # the strongest word for the label
    assert "48;2;164;192;234m[bold]very" in out  # half as strong, against it
    assert "\x1b[31m good" not in out
    assert "\\x1b[31m" in out


def test_a_pipe_shows_the_strongest_words() -> None:
    assert shown(False).splitlines() == [
        "  line 1: good (p = 0.900)",
        "    attribution: so +2, [bold]very\\x1b[31m -1, good +0.5",
        "    score 2.00; -1.00 without the strongest, 1.50 without one at random",
    ]


def test_a_terminal_shows_a_part_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "SHOWN_UNITS", 1)
    assert "2 more units are not shown here; output=jsonl has all" in shown(True)
    assert "good!" not in shown(True)
