"""Scores by label: many labels, long ones, and any characters."""

import pytest

from pipeline.commands.tasks.label_table import LabelRow, show_labels
from pipeline.console import Console

Table = tuple[str, list[str], list[list[str]]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Table]:
    """The tables that were printed."""
    tables: list[Table] = []
    monkeypatch.setattr(Console, "table", lambda _, *table: tables.append(table))
    return tables


def test_few_labels_keep_their_order(shown: list[Table]) -> None:
    rows = [LabelRow("b", ["50.0"], 1), LabelRow("a", ["20.0"], 9_999)]
    show_labels(Console(), "labels", ["F1", "texts"], rows)
    cells = [["b", "50.0", "1"], ["a", "20.0", "9,999"]]
    assert shown == [("labels", ["label", "F1", "texts"], cells)]


def test_no_table_without_labels(shown: list[Table]) -> None:
    show_labels(Console(), "labels", ["F1", "texts"], [])
    assert shown == []


def test_of_many_labels_the_most_frequent_are_shown(shown: list[Table]) -> None:
    rows = [LabelRow(f"label {n}", ["1.0"], n) for n in range(10_000)]
    show_labels(Console(), "labels", ["F1", "texts"], rows)
    [(title, _, cells)] = shown
    assert title == "labels (the 20 most frequent of 10,000)"
    assert [row[2] for row in cells] == [f"{n:,}" for n in range(9999, 9979, -1)]


def test_a_label_takes_one_short_line(shown: list[Table]) -> None:
    rows = [LabelRow("a\tb\nc [red]\N{GRINNING FACE}", ["1.0"], 1), LabelRow("x" * 5000, [""], 1)]
    show_labels(Console(), "labels", ["F1", "texts"], rows)
    [(_, _, cells)] = shown
    assert "\n" not in cells[0][0]
    assert cells[0][0].endswith("c [red]\N{GRINNING FACE}")
    assert cells[1][0] == f"{'x' * 59}…"
