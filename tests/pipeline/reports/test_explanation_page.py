"""The coloured parts of a text."""

import re

import numpy as np
import pytest

from lightning_modules.tasks.explanation.explained import Explained, Row
from pipeline.reports.explanation_page import PageTexts, Piece, explanation_page, left_out, pieces
from pipeline.reports.map_page import COLOURS, MapPoint, map_page
from preprocess.vectors.word_sample import Snippet

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


Colour = tuple[float, ...]


def rgb(written: str) -> Colour:
    digits = written.lstrip("#")
    digits = "".join(2 * one for one in digits) if len(digits) == 3 else digits
    return tuple(int(digits[at : at + 2], 16) for at in (0, 2, 4))


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of WCAG 2.1."""

    def luminance(colour: Colour) -> float:
        parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        return sum(
            part * share for part, share in zip(parts, (0.2126, 0.7152, 0.0722), strict=True)
        )

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mixed(colour: Colour, ground: Colour, share: float) -> Colour:
    return tuple(share * a + (1 - share) * b for a, b in zip(colour, ground, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_words_are_readable_on_every_colour(scheme: str) -> None:
    page = explanation_page("Explanations", [], [], PageTexts())
    light, dark, of_print = re.findall(r":root \{(.+?)\}", page, re.DOTALL)
    style = {"light": light, "dark": dark, "print": of_print}[scheme]
    values = dict(re.findall(r"(--[\w-]+): ([^;]+);", light + style))
    text, card, tint = (
        rgb(values["--text"]),
        rgb(values["--card"]),
        int(values["--tint"][:-1]) / 100,
    )
    classes = dict(
        re.findall(r"\.(strong|against) \{ background: color-mix\(in srgb, var\((.+?)\)", page)
    )
    assert page.count("calc(var(--share) * var(--tint)), transparent)") == len(classes) == 2
    for name in classes.values():
        for share in (0, 0.25, 0.5, 0.75, 1):
            ground = mixed(rgb(values[name]), card, share * tint)
            assert contrast(text, ground) >= 4.5
    assert contrast(rgb(values["--soft"]), card) >= 4.5


@pytest.mark.parametrize("scheme", [0, 1])
def test_points_of_a_map_stand_out(scheme: int) -> None:
    point = MapPoint("g", Snippet("", "w", ""))
    page = map_page("Map", "", [], [point] * 2, np.eye(2), [])
    card = rgb(re.findall(r"--card: (#\w+);", page)[scheme])
    opacity = float(re.findall(r"currentColor; opacity: ([\d.]+)", page)[0])
    colours = re.findall(r"\.g\d \{ color: (#\w+); \}", page)[scheme * COLOURS :][:COLOURS]
    for colour in colours:
        assert contrast(mixed(rgb(colour), card, opacity), card) >= 3
