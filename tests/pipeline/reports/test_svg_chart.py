import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reports.svg_chart import MOST_POINTS, Series, chart, columns, short, smooth

ANY = st.lists(
    st.tuples(st.integers(0, 10**6), st.floats(0, 1e5) | st.floats()),
    max_size=30,
)


def labels(drawing):
    return [text.text for text in ET.fromstring(drawing).iter("text")]


def line(points, **others):
    return chart("label", [Series("name", "forward", points)], 600, 300, **others)


def test_ticks_are_round_numbers():
    drawing = line([(0, 0.0), (2000, 0.004)])
    assert labels(drawing) == ["0", "0.001", "0.002", "0.003", "0.004", "0", "1k", "2k"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (90.0, 4500.0, ["100", "200", "500", "1k", "2k"]),
        (1.0, 1e6, ["1", "10", "100", "1k", "10k", "100k", "1M"]),
        (90.0, 110.0, ["85", "90", "95", "100", "105", "110", "115", "120"]),
    ],
)
def test_logarithmic_ticks_fit_the_range(low, high, expected):
    found = labels(line([(0, low), (1, high)], log=True))
    assert found[: len(expected)] == expected


def test_points_lie_where_their_values_are():
    drawing = line([(0, 1.0), (10, 100.0), (20, 10.0)], log=True)
    points = re.search(r'points="([^"]+)"', drawing)[1].split()
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, point.split(","))) for point in points]
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y2 == pytest.approx(y2 - y1, abs=0.2)
    assert y1 < y2 < y0


@pytest.mark.parametrize("y", [math.nan, math.inf, -1.0, 5e-324])
def test_what_cannot_be_drawn_is_left_out(y):
    assert line([(0, y), (1, 2.0), (2, 1.0)]) == line([(1, 2.0), (2, 1.0)])


def test_long_line_is_drawn_by_means():
    drawing = line([(n, float(n % 2)) for n in range(20 * MOST_POINTS)])
    points = re.search(r'points="([^"]+)"', drawing)[1].split()
    assert len(points) == MOST_POINTS
    assert len({point.split(",")[1] for point in points}) == 1


def test_dots_tell_their_value_and_names_are_escaped():
    drawing = chart('a "<b>"', [Series("<i>", "forward", [(1000, 42.0)], "dots")], 600, 300)
    assert ET.fromstring(drawing).get("aria-label") == 'a "<b>"'
    assert "<title>&lt;i&gt;, step 1,000: 42</title>" in drawing


@given(ANY, st.booleans())
@settings(deadline=None)
def test_any_points_make_a_drawing_within_its_bounds(points, log):
    root = ET.fromstring(line(sorted(points), log=log))
    for place in root.find("polyline").get("points").split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= 600
        assert 0 <= y <= 300


def test_smooth_line_begins_at_the_first_value_and_skips_what_is_not_finite():
    points = [(0, 8.0), (1, math.nan), (2, 4.0), (3, 4.0)]
    found = smooth(points, share=1.0)
    assert [x for x, _ in found] == [0, 2, 3]
    assert found[0][1] == pytest.approx(8)
    assert 4 < found[2][1] < found[1][1] < 8
    assert smooth([]) == []


def test_short_numbers():
    assert [short(n) for n in (0, 0.002, 250, 1500, 2e6, 3e9, 4e12)] == [
        "0", "0.002", "250", "1.5k", "2M", "3G", "4T",
    ]  # fmt: skip


def test_columns_are_as_high_as_their_counts_over_a_scale_of_whole_numbers():
    root = ET.fromstring(columns('a "<b>"', [("0", 1), ("1", 0), ("2", 2)], 800, 260))
    assert root.get("aria-label") == 'a "<b>"'
    first, second = root.iter("rect")
    assert float(second.get("height")) == pytest.approx(2 * float(first.get("height")), abs=0.2)
    assert [one.get("height") for one in (first, second)] == ["54.5", "109.0"]
    assert [title.text for title in root.iter("title")] == ["from 0: 1", "from 2: 2"]
    assert [text.text for text in root.iter("text")] == ["0", "1", "2", "3", "4", "0", "1", "2"]


def test_a_column_too_small_to_see_is_seen():
    drawing = columns("label", [("0", 1), ("1", 10**15)], 800, 260)
    assert [one.get("height") for one in ET.fromstring(drawing).iter("rect")] == ["1.0", "207.6"]
    assert "1000T" in labels(drawing)


def test_labels_of_columns_leave_room_for_one_another():
    bars = [(f"{1 << n:,}", 1) for n in range(24)]
    below = ET.fromstring(columns("label", bars, 800, 260)).find("g").iter("text")
    assert [text.text for text in below] == [
        "1",
        "8",
        "64",
        "512",
        "4,096",
        "32,768",
        "262,144",
        "2,097,152",
    ]


def test_no_columns_are_an_empty_drawing():
    assert not list(ET.fromstring(columns("label", [], 800, 260)).iter("rect"))
