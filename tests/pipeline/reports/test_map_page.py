"""The page of a map: escaped, without scripts, with a colour for each group."""

import re

import numpy as np

from pipeline.reports.map_page import COLOURS, MapPoint, map_page
from preprocess.vectors.word_sample import Snippet


def page_of(points, places=None, heading="Map"):
    places = np.arange(2.0 * len(points)).reshape(-1, 2) if places is None else np.array(places)
    return map_page(heading, "about", [("Cache", "c")], points, places, ["axis"])


def test_the_text_of_a_point_is_shown_and_escaped(markup, evil):
    shown = markup(page_of([MapPoint(evil, Snippet(evil, evil, evil))] * 2, heading=evil))
    assert not {"script", "img", "iframe", "link"} & set(shown.tags)
    assert shown.text_of("h1") == evil
    texts = [one for one in shown.all("a") if one.get("class") == "p g0"]
    assert len(texts) == 2


def test_a_page_requests_nothing_and_repeats():
    points = [MapPoint("g", Snippet("the ", "word", " here"))] * 3
    html = page_of(points)
    assert html == page_of(points)
    assert "url(" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert "the <mark>word</mark> here" in html
    assert ".p:hover span" in html


def test_points_keep_their_proportions():
    points = [MapPoint("g", Snippet("", "w", ""))] * 3
    html = page_of(points, [[0, 0], [4, 0], [0, 2]])
    places = re.findall(r'left:([\d.]+)%;top:([\d.]+)%"', html)
    assert places == [("2.00", "74.00"), ("98.00", "74.00"), ("2.00", "26.00")]


def test_points_at_one_place():
    html = page_of([MapPoint("g", Snippet("", "w", ""))] * 2, [[1, 1], [1, 1]])
    assert html.count("left:50.00%;top:50.00%") == 2


def test_the_most_frequent_groups_have_colours():
    points = [MapPoint(f"g{n}", Snippet("", "w", "")) for n in range(COLOURS + 3)]
    points += [MapPoint(f"g{COLOURS + 2}", Snippet("", "w", ""))]
    html = page_of(points)
    assert 'class="p g0" tabindex="0"><i style="left:98' in html
    assert html.count('class="p rest"') == 3
    assert "others (3 labels)" in html
    for number in range(COLOURS):
        assert f".g{number} {{ color" in html
