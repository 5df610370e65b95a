"""What all pages have in common: markup, escaping, direction of text, no requests."""

from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest

from pipeline.reports.assessment import Verdict
from pipeline.reports.html_page import percent, render

Page = Callable[..., Any]  # a Markup of conftest.py

VALUES: dict[str, Any] = {
    "heading": "Comparison",
    "about": "about",
    "facts": [("a", "/runs/a")],
    "names": ["a", "b"],
    "cautions": [Verdict("attention", "Topic", "Text.")],
    "figures": [["steps", "1", "2"]],
    "settings": [["train.steps", "1", "2"]],
    "title": "Curve",
    "chart": {
        "label": "label",
        "x_ticks": [],
        "y_ticks": [],
        "lines": [],
        "dots": [],
        "marked": None,
    },
    "caption": "caption",
    "keys": [("c0", "a")],
}


@pytest.fixture
def page(markup: Any) -> Page:
    return lambda **values: markup(render("comparison.html", **{**VALUES, **values}))


def test_a_page_requests_and_runs_nothing(page: Page) -> None:
    shown = page()
    assert not {"script", "link", "img", "iframe"} & set(shown.tags)
    policy = [one.get("content") for one in shown.all("meta")]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policy
    style = shown.text_of("style")
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize(
    "rule",
    [
        "@media (prefers-color-scheme: dark)",
        "@media print",
        "break-inside: avoid",
        "@media (max-width:",
        "overflow-x: auto",
    ],
)
def test_the_style_has_rules_for_dark_print_and_narrow_screens(rule: str, page: Page) -> None:
    assert rule in page().text_of("style")


def test_the_viewport_is_that_of_the_device(page: Page) -> None:
    assert "width=device-width, initial-scale=1" in [m.get("content") for m in page().all("meta")]


def test_every_value_is_escaped(page: Page, evil: str) -> None:
    shown = page(
        heading=evil,
        about=evil,
        facts=[(evil, evil)],
        names=[evil, evil],
        cautions=[Verdict("attention", evil, evil)],
        figures=[[evil, evil, evil]],
        settings=[[evil, evil, evil]],
        title=evil,
        chart={
            "label": evil,
            "x_ticks": [("1", evil)],
            "y_ticks": [],
            "lines": [],
            "dots": [],
            "marked": None,
        },
        caption=evil,
        keys=[("c0", evil)],
    )
    assert "script" not in shown.tags
    assert shown.text_of("h1") == evil
    assert set(shown.rows("Figures")[1]) == {evil}


def test_tables_scroll_by_keyboard_and_have_a_name(page: Page) -> None:
    regions = [one for one in page().all("div") if one.get("class") == "scroll"]
    assert [one["aria-label"] for one in regions] == ["Figures", "Settings that differ"]
    assert all(one["tabindex"] == "0" and one["role"] == "region" for one in regions)


def test_numbers_are_aligned_to_the_end_and_names_are_not(page: Page) -> None:
    cells = page(settings=[]).all("td")
    assert [cell.get("class") for cell in cells] == ["name", "number", "number"]


def test_a_chart_has_labels_outside_the_stretched_drawing(page: Page) -> None:
    chart = {**VALUES["chart"], "x_ticks": [("50.00", "1k")], "y_ticks": [("10.00", "200")]}
    shown = page(chart=chart)
    (drawing,) = shown.all("svg")
    assert drawing["preserveaspectratio"] == "none"
    assert drawing["aria-label"] == "label"
    labels = [one for one in shown.all("span") if one.get("class") in ("x", "y")]
    assert [one["style"] for one in labels] == ["top:10.00%", "left:50.00%"]


def test_a_missing_value_is_an_error_and_no_gap() -> None:
    with pytest.raises(Exception, match="'heading' is undefined"):
        render("comparison.html", **{k: v for k, v in VALUES.items() if k != "heading"})


def test_the_templates_are_files_of_the_package() -> None:
    folder = resources.files("pipeline.reports") / "templates"
    names = {one.name for one in folder.iterdir()}
    assert {"run.html", "corpus.html", "comparison.html", "style.css"} <= names


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0%"), (1e-9, "<0.1%"), (0.0005, "0.1%"), (0.125, "12.5%"), (1.0, "100.0%")],
)
def test_a_small_share_does_not_read_as_zero(share: float, shown: str) -> None:
    assert percent(share) == shown
