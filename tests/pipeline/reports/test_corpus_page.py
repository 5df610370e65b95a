import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reports.corpus_page import SCRIPTS_SHOWN, corpus_page, source_table
from preprocess.corpus.histograms import TOKENS_PER_WORD
from preprocess.shards.format import SUMS

EVIL = "<script>alert('x')</script>&\"שלום"
CLEANING = {"unicode": "NFC", "whitespace": "collapse"}


def sums(documents):
    return {key: documents * (n + 1) for n, key in enumerate(SUMS)}


def source(name, share=1.0, licence="CC0", filters=None):
    common = {"name": name, "license": licence, "share": share, "cleaning": CLEANING}
    return {**common, "filters": filters or {}, **sums(36_804)}


def stats(**others):
    return {
        "tokenizer": "0123456789abcdef",
        "vocabulary": 8000,
        "cleaning": CLEANING,
        "sources": [source("web", 0.75), source("wiki", 0.25, None, {"min_characters": 20})],
        "splits": {"train": sums(36_033), "valid": sums(771), "test": sums(0)},
        "documents": {
            "read": 41_336, "written": 36_804, "replaced": 1_234,
            "dropped": {"duplicate": 4_000, "symbols": 12, "too_short": 520},
            "changed": {"control_characters": 0, "unicode": 31},
        },
        "scripts": {"Latin": 900_000, "Han": 100_000},
        "histograms": {
            "tokens": {"0": 4, "2": 10, "16": 30_000, "1024": 6_790},
            "tokens_per_word": {"1": 20_000, "1.25": 16_000, "32": 804},
        },
        "copies": {"2": 500, "3": 40, "1025": 1},
        **others,
    }  # fmt: skip


def section(shown, title):
    found = re.search(f"<section><h2>{title}</h2>(.*?)</section>", shown)
    return found[1]


def rows(part):
    """The cells of each row of each table in a part of the page."""
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in part.split("<tr>")[1:]]
    return [[re.sub("<[^>]+>", "", cell) for cell in row] for row in cells]


def bins(drawing):
    """The title of each column of a histogram, and the labels below."""
    root = ET.fromstring(re.search("<svg.*?</svg>", drawing)[0])
    group = root.find("g")
    return [one[0].text for one in group.iter("rect")], [one.text for one in group.iter("text")]


def empty():
    nothing = {"read": 0, "written": 0, "replaced": 0, "dropped": {}, "changed": {}}
    splits = {"train": sums(0), "valid": sums(0), "test": sums(0)}
    return stats(
        sources=[], splits=splits, documents=nothing, scripts={}, histograms={}, copies={},
    )  # fmt: skip


def well_formed(shown):
    # It is XML but for what HTML writes without an end.
    ET.fromstring(re.sub("<meta[^>]*>|<!doctype html>", "", shown))


def test_page_shows_every_figure():
    shown = corpus_page(stats())
    well_formed(shown)
    assert "vocabulary of 8,000 ids · tokenizer 0123456789ab<" in shown
    parts = rows(section(shown, "Splits and sources"))
    assert ["train", "97.9%", "36,033", "72,066", "108,099", "144,132", "180,165"] in parts
    assert ["wiki", "", "25.0%", "36,804", "73,608", "110,412", "147,216", "184,020"] in parts
    assert not [row for row in parts if row[0] == "test"]
    assert "<b>36.8k</b>" in shown


def test_documents_read_are_those_written_and_dropped_the_commonest_reason_first():
    shown = section(corpus_page(stats()), "Documents")
    assert rows(shown)[1:6] == [
        ["read", "41,336", "100.0%", ""],
        ["written", "36,804", "89.0%", ""],
        ["dropped: duplicate", "4,000", "9.7%", ""],
        ["dropped: too_short", "520", "1.3%", ""],
        ["dropped: symbols", "12", "&lt;0.1%", ""],
    ]
    # A step that changed nothing is no news.
    assert rows(shown)[6:8] == [["step", "", "share", ""], ["unicode", "31", "0.1%", ""]]
    assert "U+FFFD stands 1,234 times for bytes that are no text." in shown
    wiki = ["wiki", "unicode: NFC, whitespace: collapse", "min_characters: 20"]
    assert rows(shown)[-1] == wiki
    assert rows(shown)[-2] == ["web", wiki[1], "none"]


def test_lengths_are_drawn_with_the_empty_bins_between():
    shown = section(corpus_page(stats()), "Length")
    titles, labels = bins(shown)
    assert titles == ["from 0: 4", "from 2: 10", "from 16: 30,000", "from 1,024: 6,790"]
    assert labels == ["0", "1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "1,024"]
    assert ["16", "30,000", "81.5%"] in rows(shown)
    assert ["8", "0", "0.0%"] in rows(shown)
    assert "the median has 16 to 31" in shown


def test_tokens_a_word_are_drawn_with_the_median():
    shown = section(corpus_page(stats()), "Tokens a word")
    titles, _ = bins(shown)
    assert titles == ["from 1: 20,000", "from 1.25: 16,000", "from 32: 804"]
    assert "the median has more than 1 and at most 1.25" in shown


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"1": 40, "32": 60}, "The median document has more than 32 tokens between two spaces"),
        ({}, "No document has a word."),
        ({"7.77": 3, "1": 0}, "No document has a word."),
    ],
)
def test_text_without_spaces_is_told_and_not_drawn(found, told):
    histograms = {"tokens": {"1": 100}, "tokens_per_word": found}
    shown = section(corpus_page(stats(histograms=histograms)), "Tokens a word")
    assert told in shown
    assert "<svg" not in shown


@pytest.mark.parametrize(
    ("tokens", "median"),
    [("0", "has 0<"), ("1", "has 1<"), ("2147483648", "has 2,147,483,648 to 4,")],
)
def test_a_single_bin_is_drawn(tokens, median):
    histograms = {"tokens": {tokens: 1}, "tokens_per_word": {"0": 1}}
    shown = corpus_page(stats(histograms=histograms))
    assert bins(section(shown, "Length"))[0] == [f"from {int(tokens):,}: 1"]
    assert median in section(shown, "Length")
    assert "the median has more than 0 <" in section(shown, "Tokens a word").replace("<", " <")


def test_scripts_beyond_the_largest_are_summed():
    scripts = {f"Script{n}": 10**12 - n for n in range(SCRIPTS_SHOWN + 3)}
    found = rows(section(corpus_page(stats(scripts=scripts)), "Scripts"))[1:]
    assert len(found) == SCRIPTS_SHOWN + 1
    assert found[0] == ["Script0", "1,000,000,000,000", "6.7%", ""]
    assert found[-1] == ["3 more", "2,999,999,999,961", "20.0%", ""]
    scripts = dict(list(scripts.items())[:SCRIPTS_SHOWN])
    assert len(rows(section(corpus_page(stats(scripts=scripts)), "Scripts"))) == SCRIPTS_SHOWN + 1


def test_copies_are_told_by_their_range():
    assert rows(section(corpus_page(stats()), "Copies"))[1:] == [
        ["2 times", "500", "92.4%", ""],
        ["3 to 4 times", "40", "7.4%", ""],
        ["1,025 to 2,048 times", "1", "0.2%", ""],
    ]


@pytest.mark.parametrize(
    ("copies", "told"), [({}, "No text occurs twice."), (None, "Duplicates were not looked for.")]
)
def test_no_copies_and_none_looked_for_are_told_apart(copies, told):
    assert section(corpus_page(stats(copies=copies)), "Copies") == f"<p>{told}</p>"


def test_an_empty_corpus_has_a_page():
    shown = corpus_page(empty())
    well_formed(shown)
    for told in (
        "Cleaning changed no document.", "No documents.", "No document has a word.",
        "No letter of any script.", "No text occurs twice.",
    ):  # fmt: skip
        assert told in shown
    assert "<svg" not in shown


def test_names_are_escaped_and_keep_their_direction():
    named = [source(EVIL, licence=EVIL, filters={"scripts": EVIL})]
    documents = stats()["documents"] | {"dropped": {EVIL: 3}, "changed": {EVIL: 2}}
    shown = corpus_page(stats(sources=named, documents=documents, scripts={EVIL: 1}))
    well_formed(shown)
    assert "<script" not in shown
    assert "שלום" not in re.sub("<bdi>.*?</bdi>", "", shown)


def test_a_corpus_of_an_earlier_version_has_no_shares():
    earlier = source("web")
    del earlier["share"]
    assert rows(source_table({"sources": [earlier]}))[1][:4] == ["web", "CC0", "", "36,804"]


COUNTS = st.integers(0, 10**15)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.sampled_from([0, *(1 << n for n in range(32))]).map(str), COUNTS),
    st.dictionaries(st.sampled_from([0, *TOKENS_PER_WORD]).map(lambda n: f"{n:g}"), COUNTS),
    st.dictionaries(st.text(max_size=5).filter(str.isprintable), COUNTS, max_size=20),
    st.dictionaries(st.integers(0, 40).map(lambda n: str((1 << n) + 1)), COUNTS),
)
def test_any_stats_make_a_page_of_whole_drawings(tokens, ratios, scripts, copies):
    histograms = {"tokens": tokens, "tokens_per_word": ratios}
    shown = corpus_page(stats(histograms=histograms, scripts=scripts, copies=copies))
    well_formed(shown)
    for width, height, x, y in re.findall(
        r'<rect x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"', shown
    ):
        assert all(float(place) >= 0 for place in (width, height, x, y))
