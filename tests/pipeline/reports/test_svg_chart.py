"""Line charts: ticks, positions and what cannot be drawn."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reports.svg_chart import MOST_POINTS, SIDE, Chart, Point, Series, chart, short, smooth

ANY = st.lists(
    st.tuples(st.integers(0, 10**6), st.floats(0, 1e5) | st.floats()),
    max_size=30,
)


def line(points: Sequence[Point], **others: Any) -> Chart:
    return chart("label", [Series("name", "c0", points)], **others)


def places(drawing: Chart) -> list[tuple[float, float]]:
    ((_, points),) = drawing.lines
    found = (point.split(",") for point in points.split())
    return [(float(x), float(y)) for x, y in found]


def test_ticks_are_round_numbers() -> None:
    drawing = line([(0, 0.0), (2000, 0.004)], x_ticks=2)
    assert [label for _, label in drawing.y_ticks] == ["0", "0.001", "0.002", "0.003", "0.004"]
    assert drawing.x_ticks == [("0.00", "0"), ("50.00", "1k"), ("100.00", "2k")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (90.0, 4500.0, ["100", "200", "500", "1k", "2k"]),
        (1.0, 1e6, ["1", "10", "100", "1k", "10k", "100k", "1M"]),
        (90.0, 110.0, ["85", "90", "95", "100", "105", "110", "115", "120"]),
    ],
)
def test_logarithmic_ticks_fit_the_range(low: float, high: float, expected: list[str]) -> None:
    found = [label for _, label in line([(0, low), (1, high)], log=True).y_ticks]
    assert found[: len(expected)] == expected


def test_points_lie_where_their_values_are() -> None:
    (x0, y0), (x1, y1), (x2, y2) = places(line([(0, 1.0), (10, 100.0), (20, 10.0)], log=True))
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y2 == pytest.approx(y2 - y1, abs=0.2)
    assert y1 < y2 < y0


@pytest.mark.parametrize("y", [math.nan, math.inf, -1.0, 5e-324])
def test_what_cannot_be_drawn_is_left_out(y: float) -> None:
    assert line([(0, y), (1, 2.0), (2, 1.0)]) == line([(1, 2.0), (2, 1.0)])


def test_a_long_line_is_drawn_by_means() -> None:
    found = places(line([(n, float(n % 2)) for n in range(20 * MOST_POINTS)]))
    assert len(found) == MOST_POINTS
    assert len({y for _, y in found}) == 1


def test_dots_tell_their_value() -> None:
    dots = chart("label", [Series("held out", "c1", [(1000, 42.0)], "dots")], x_name="tokens").dots
    assert [(one.style, one.title) for one in dots] == [("c1", "held out, tokens 1,000: 42")]


def test_a_style_is_the_colour_and_the_kind() -> None:
    series = [Series("a", "c0", [(0, 1.0)], "faint"), Series("a", "c0", [])]
    assert [style for style, _ in chart("label", series).lines] == ["c0 faint"]


def test_a_chart_of_nothing_has_axes() -> None:
    drawing = chart("label", [])
    assert not drawing.lines
    assert drawing.x_ticks
    assert drawing.y_ticks


@given(ANY, st.booleans())
@settings(deadline=None)
def test_any_points_lie_within_the_plot(points: list[Point], log: bool) -> None:
    drawing = line(sorted(points, key=lambda point: point[0]), log=log)
    for x, y in places(drawing) if drawing.lines else []:
        assert 0 <= x <= SIDE
        assert 0 <= y <= SIDE
    for at, _ in [*drawing.x_ticks, *drawing.y_ticks]:
        assert -0.01 <= float(at) <= 100.01


def test_a_smooth_line_begins_at_the_first_value_and_skips_what_is_not_finite() -> None:
    points = [(0, 8.0), (1, math.nan), (2, 4.0), (3, 4.0)]
    found = smooth(points, share=1.0)
    assert [x for x, _ in found] == [0, 2, 3]
    assert found[0][1] == pytest.approx(8)
    assert 4 < found[2][1] < found[1][1] < 8
    assert smooth([]) == []


def test_short_numbers() -> None:
    assert [short(n) for n in (0, 0.002, 250, 1500, 2e6, 3e9, 4e12)] == [
        "0", "0.002", "250", "1.5k", "2M", "3G", "4T",
    ]  # fmt: skip


def test_a_mark_lies_at_its_x() -> None:
    points = [(10, 1.0), (30, 2.0)]
    assert line(points).marked is None
    assert line(points, marked=(15, "here")).marked == ("250.0", "here")
    assert line(points, marked=(31, "here")).marked is None
