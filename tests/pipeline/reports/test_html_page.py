import re
from html.parser import HTMLParser

import pytest

from pipeline.reports.html_page import bar_table, cards, folded, framed, html_page, percent, table

EVIL = "<script>alert('x')</script>&\""
SAFE = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;&quot;"


class Cells(HTMLParser):
    """The text of every cell."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("td", "th"):
            self.found.append("")

    def handle_data(self, data):
        self.found[-1] += data


def test_page_loads_and_runs_nothing_and_is_light_and_dark():
    shown = html_page("title", "heading", "about", [("first", "<p>1</p>"), ("second", "<p>2</p>")])
    assert shown.index("first") < shown.index("<p>1</p>") < shown.index("second")
    assert "default-src 'none'; style-src 'unsafe-inline'" in shown
    assert "prefers-color-scheme: dark" in shown
    assert not re.search(r"<script|<link|<img|https?:|url\(|@import|src=", shown)


def test_everything_but_contents_is_escaped():
    rows = [[EVIL, EVIL]]
    for shown in (
        html_page(EVIL, EVIL, EVIL, [(EVIL, "")]),
        cards([(EVIL, EVIL)]),
        framed(EVIL, "<svg></svg>"),
        folded(EVIL, "<p></p>"),
        table([EVIL, EVIL], rows),
        bar_table(EVIL, [EVIL, EVIL, EVIL], [(EVIL, 1, 1.0)]),
    ):
        assert SAFE in shown
        assert "<script" not in shown


def test_names_keep_their_direction_to_themselves():
    shown = table(["name", "kind", "n"], [["שלום", "مرحبا", "1"]], text_columns=2)
    assert "<td><bdi>שלום</bdi></td><td><bdi>مرحبا</bdi></td>" in shown
    assert '<td class="number">1</td>' in shown


def test_bars_stand_beside_their_numbers():
    rows = [("all", 2_000_000, 1.0), ("some", 7, 0.0000035), ("none", 0, 0.0)]
    shown = bar_table("What there is", ["what", "how many", "share"], rows)
    assert "<caption>What there is</caption>" in shown
    assert Cells(shown[shown.index("<tr>") :]).found == [
        *("what", "how many", "share", ""),
        *("all", "2,000,000", "100.0%", ""),
        *("some", "7", "<0.1%", ""),
        *("none", "0", "0.0%", ""),
    ]  # fmt: skip
    # A tiny share has a bar still, by the style's least width; none has none.
    assert re.findall(r"width:[\d.]+%", shown) == ["width:100.00%", "width:0.00%"]


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0%"), (1e-9, "<0.1%"), (0.0005, "0.1%"), (0.125, "12.5%"), (1.0, "100.0%")],
)
def test_a_small_share_is_not_none(share, shown):
    assert percent(share) == shown
