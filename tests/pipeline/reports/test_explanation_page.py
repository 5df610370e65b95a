"""The coloured parts of a text."""

import numpy as np

from lightning_modules.tasks.explanation.explained import Explained, Row
from pipeline.reports.explanation_page import PageTexts, Piece, explanation_page, left_out, pieces

ROW = Row("attribution", np.array([2.0, -1.0, 0.001]), True)
ONE = Explained("line 1", "good (p = 0.900)", "so very good!", ((0, 2), (3, 7), (8, 12)), (ROW,))


def test_the_parts_are_the_text() -> None:
    found = [*pieces(ONE, ROW)]
    assert "".join(piece.text for piece in found) == ONE.text
    assert found[0] == Piece("so", "for", 1.0, "2")
    assert found[2] == Piece("very", "against", 0.5, "-1")
    assert found[4].style == ""  # too small a value


def test_values_without_sign_have_one_colour() -> None:
    row = Row("saliency", np.array([0.0, 2.0, 1.0]), False)
    assert [piece.style for piece in pieces(ONE, row)] == ["", "", "strong", "", "strong", ""]


def test_the_first_units_are_shown() -> None:
    found = [*pieces(ONE, ROW, 2)]
    assert "".join(piece.text for piece in found) == "so very"
    assert left_out(ONE, 2) == 1
    assert left_out(ONE, 3) == 0


def test_units_may_overlap_or_be_empty() -> None:
    one = Explained("line 1", "", "абв", ((0, 1), (0, 0), (0, 2), (2, 3)), ())
    row = Row("x", np.array([1.0, 1.0, 1.0, 0.0]), False)
    assert "".join(piece.text for piece in pieces(one, row)) == "абв"
    assert [*pieces(Explained("line 1", "", "", (), ()), Row("x", np.zeros(0), False))] == []


def test_figures_are_shown_below_the_text() -> None:
    texts = PageTexts()
    facts = {
        "score": 2.5, "baseline": 0.25, "deleted": 3, "missing": 0.001,
        "score_without_named": 0.125, "score_without_random": 2.0,
    }  # fmt: skip
    texts.add(Explained("line 1", "good", ONE.text, ONE.spans, (ROW,), facts))
    page = explanation_page("Explanations", [("texts", "1")], ["About."], texts)
    assert "2.500; 0.250 for a text of zero vectors" in page
    assert "0.125 without the 3 strongest; 2.000 without as many at random" in page
