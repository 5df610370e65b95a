"""``corpus.html``: which corpus it is of, and what the numbers mean."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.reports.corpus_page import (
    SCRIPTS_SHOWN,
    corpus_page,
    languages,
    newest,
    scripts,
    size_tables,
)
from preprocess.corpus.histograms import TOKENS_PER_WORD
from preprocess.shards.format import SUMS

CLEANING = {"unicode": "NFC", "whitespace": "collapse"}
INPUTS = [
    {"name": "b.txt", "version": "1700000000000000000"},
    {"name": "a.txt", "version": "1600000000000000000"},
]


def sums(documents: int) -> dict[str, int]:
    return {key: documents * (n + 1) for n, key in enumerate(SUMS)}


def source(
    name: str, share: float = 1.0, licence: str | None = "CC0", filters: Any = None
) -> dict[str, Any]:
    common = {"name": name, "license": licence, "share": share, "cleaning": CLEANING}
    return {**common, "filters": filters or {}, **sums(36_804)}


def stats(**others: Any) -> dict[str, Any]:
    return {
        "tokenizer": "0123456789abcdef",
        "vocabulary": 8000,
        "cleaning": CLEANING,
        "sources": [source("web", 0.75), source("wiki", 0.25, None, {"min_characters": 20})],
        "splits": {"train": sums(36_033), "valid": sums(771), "test": sums(0)},
        "documents": {
            "read": 41_336, "written": 36_804, "replaced": 1_234,
            "dropped": {"symbols": 12, "duplicate": 4_000, "too_short": 520},
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


@pytest.fixture
def page(markup: Any) -> Any:
    return lambda inputs=INPUTS, kind="sentencepiece", **others: markup(
        corpus_page(stats(**others), inputs, kind)
    )


def test_the_head_says_which_corpus_it_is(page: Any) -> None:
    shown = page()
    assert shown.text_of("h1") == "Corpus: web, wiki"
    assert shown.facts == {
        "Files": "2 files, a.txt to b.txt",
        "Newest file": "2023-11-14 22:13 UTC",
        "Scripts": "Latin 90.0%, Han 10.0%",
        "Tokenizer": "sentencepiece, vocabulary 8,000",
        "Size": "36,804 documents, 73.6k tokens",
    }


def test_an_unnamed_corpus_is_called_after_its_files(page: Any) -> None:
    sources = [source("corpus", licence="CC-BY-4.0", filters={"languages": ["he", "ar"]})]
    shown = page(INPUTS[:1], sources=sources)
    assert shown.text_of("h1") == "Corpus of b.txt"
    assert "Files" not in shown.facts
    assert shown.facts["Licence"] == "CC-BY-4.0"
    assert shown.facts["Languages"] == "ar, he"
    assert page(sources=sources).text_of("h1") == "Corpus of 2 files"
    many = [source(f"s{n}") for n in range(6)]
    assert page(sources=many).text_of("h1") == "Corpus: s0, s1, s2, s3, …"


def test_the_page_depends_on_text_and_settings_alone() -> None:
    once, again = (corpus_page(stats(), inputs, "char") for inputs in (INPUTS, INPUTS[::-1]))
    assert once == again


@pytest.mark.parametrize(
    ("versions", "shown"),
    [
        (["1700000000000000000", "1600000000000000000"], "2023-11-14 22:13 UTC"),
        (['"9b2cf535f27731c974343645a3985328"', "1600000000000000000"], "2020-09-13 12:26 UTC"),
        (['"123"', "", "17", "9" * 30], ""),
        ([], ""),
    ],
)
def test_only_modification_times_are_dates(versions: list[str], shown: str) -> None:
    assert newest(versions) == shown


def test_it_links_to_the_report_above_its_folder(page: Any) -> None:
    assert [one["href"] for one in page().all("a")] == ["../report.html"]


def test_splits_and_sources_have_a_table_each(page: Any) -> None:
    shown = page()
    header = ["documents", "tokens", "words", "characters", "bytes"]
    splits = shown.rows("Splits")
    assert splits[0] == ["split", "share of tokens", *header]
    assert splits[1] == ["train", "97.9%", "36,033", "72,066", "108,099", "144,132", "180,165"]
    assert [row[0] for row in splits[1:]] == ["train", "valid"]
    assert shown.rows("Sources")[2][:4] == ["wiki", "not given", "25.0%", "36,804"]


def test_the_sizes_of_a_single_source_are_not_repeated(page: Any) -> None:
    assert "Sources" not in [
        one.get("aria-label") for one in page(sources=[source("a")]).all("div")
    ]


def test_documents_read_are_those_written_and_dropped_the_commonest_reason_first(
    page: Any,
) -> None:
    shown = page()
    assert shown.rows("Documents read, written and dropped")[1:] == [
        ["read", "41,336", "100.0%", ""],
        ["written", "36,804", "89.0%", ""],
        ["dropped: duplicate", "4,000", "9.7%", ""],
        ["dropped: too_short", "520", "1.3%", ""],
        ["dropped: symbols", "12", "<0.1%", ""],
    ]
    # A step that changed nothing is left out.
    assert shown.rows("Documents changed by cleaning")[1:] == [["unicode", "31", "0.1%", ""]]
    assert "1,234 byte sequences were not valid" in shown.section("Documents read")
    cleaning = "unicode: NFC, whitespace: collapse"
    assert shown.rows("Cleaning and filters")[1:] == [
        ["web", cleaning, "none"],
        ["wiki", cleaning, "min_characters: 20"],
    ]


def test_the_longest_bar_takes_the_width_and_zero_has_none(page: Any) -> None:
    shown = page(scripts={"Latin": 30, "Han": 15, "Thai": 0}, copies={})
    start = shown.source.index('aria-label="Letters of each script"')
    bars = shown.source[start:].count('class="bar"')
    assert bars == 2
    assert "width:100.00%" in shown.source[start:]
    assert "width:50.00%" in shown.source[start:]


def test_lengths_are_shown_with_the_empty_bins_between(page: Any) -> None:
    shown = page()
    rows = shown.rows("Documents by length")[1:]
    assert [row[0] for row in rows[:4]] == ["0", "1", "2 to 3", "4 to 7"]
    assert [row[0] for row in rows[-2:]] == ["512 to 1,023", "1,024 to 2,047"]
    assert ["16 to 31", "30,000", "81.5%", ""] in rows
    assert ["8 to 15", "0", "0.0%", ""] in rows
    assert "The median document has 16 to 31 tokens." in shown.section("Document length")


def test_tokens_per_word_are_shown_with_the_median(page: Any) -> None:
    shown = page()
    rows = shown.rows("Documents by tokens per word")[1:]
    assert rows[0] == ["1 to 1.25", "20,000", "54.3%", ""]
    assert rows[-1][0] == "32 to 64"
    assert "The median is 1 to 1.25." in shown.section("Tokens per word")


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"1": 40, "32": 60}, "The median document has 32 to 64 tokens between two spaces."),
        ({"128": 60}, "The median document has more than 128 tokens between two spaces."),
        ({}, "No document has a word."),
        ({"1": 0}, "No document has a word."),
    ],
)
def test_text_without_spaces_is_reported_and_not_shown(
    found: dict[str, int], told: str, page: Any
) -> None:
    section = page(histograms={"tokens": {"1": 100}, "tokens_per_word": found})
    assert told in section.section("Tokens per word")
    assert "share" not in section.section("Tokens per word")


@pytest.mark.parametrize(
    ("tokens", "median"),
    [("0", "has 0 tokens"), ("1", "has 1 token."), ("2147483648", "has 2,147,483,648 to 4,")],
)
def test_a_single_bin_is_shown(tokens: str, median: str, page: Any) -> None:
    shown = page(histograms={"tokens": {tokens: 1}, "tokens_per_word": {"0": 1}})
    assert len(shown.rows("Documents by length")) == 2
    assert median in shown.section("Document length")
    assert "The median is at most 1." in shown.section("Tokens per word")


def test_scripts_beyond_the_largest_are_summed(page: Any) -> None:
    found = {f"Script{n}": 10**12 - n for n in range(SCRIPTS_SHOWN + 3)}
    rows = page(scripts=found).rows("Letters of each script")[1:]
    assert len(rows) == SCRIPTS_SHOWN + 1
    assert rows[0] == ["Script0", "1,000,000,000,000", "6.7%", ""]
    assert rows[-1] == ["3 more", "2,999,999,999,961", "20.0%", ""]
    exact = dict(list(found.items())[:SCRIPTS_SHOWN])
    assert len(page(scripts=exact).rows("Letters of each script")) == SCRIPTS_SHOWN + 1


def test_copies_are_reported_by_their_range(page: Any) -> None:
    assert page().rows("Texts by number of copies")[1:] == [
        ["2 times", "500", "92.4%", ""],
        ["3 to 4 times", "40", "7.4%", ""],
        ["1,025 to 2,048 times", "1", "0.2%", ""],
    ]


@pytest.mark.parametrize(
    ("copies", "told"),
    [({}, "No text occurs more than once."), (None, "Duplicates were not looked for")],
)
def test_no_copies_and_deduplication_off_are_reported_apart(
    copies: dict[str, int] | None, told: str, page: Any
) -> None:
    assert told in page(copies=copies).section("Exact duplicates")


def test_an_empty_corpus_has_a_page(page: Any) -> None:
    nothing = {"read": 0, "written": 0, "replaced": 0, "dropped": {}, "changed": {}}
    splits = {"train": sums(0), "valid": sums(0), "test": sums(0)}
    shown = page(
        inputs=[],
        sources=[],
        splits=splits,
        documents=nothing,
        scripts={},
        histograms={},
        copies={},
    )
    for told in (
        "Cleaning changed no document.", "No documents.", "No document has a word.",
        "The text has no letters.", "No text occurs more than once.",
    ):  # fmt: skip
        assert told in shown.source


def test_names_are_escaped_and_keep_their_direction(page: Any, evil: str) -> None:
    named = [source(evil, licence=evil, filters={"scripts": evil}), source("b")]
    documents = stats()["documents"] | {"dropped": {evil: 3}, "changed": {evil: 2}}
    inputs = [{"name": evil, "version": "1"}]
    shown = page(inputs, kind=evil, sources=named, documents=documents, scripts={evil: 1})
    assert "script" not in shown.tags
    assert shown.rows("Sources")[1][:2] == [evil, evil]
    assert evil in shown.text_of("h1")
    isolated = "".join(shown.texts("bdi"))
    # The title is shown by the browser; everything else is isolated.
    assert shown.source.count("שלום") == isolated.count("שלום") + 1


def test_what_filters_removed_is_shown_with_examples(page: Any, evil: str) -> None:
    splits = {"train": {**sums(36_033), "characters": 9_000}, "valid": sums(0), "test": sums(0)}
    screening = {
        "removed_lines": {"c4_short_line": 12},
        "removed_characters": {"c4_short_line": 1_000, "c4_citations": 40},
        "masked": {"email": 1_234},
        "benchmarks": {
            "sst2": {"items": 872, "matched": 4, "short": 95, "without_text": 0},
        },
        "examples": {
            "too_short": [evil],
            "c4_short_line": ["Home\u202e"],
            "email": ["to xx@xx.xx"],
        },
    }
    dropped = {"too_short": 520, "contaminated_sst2": 7}
    documents = stats()["documents"] | {"dropped": dropped}
    shown = page(screening=screening, documents=documents, splits=splits)
    assert shown.rows("Removed from documents")[1:] == [
        ["c4_short_line", "12", "1,000", "10.0%"],
        ["c4_citations", "0", "40", "0.4%"],
    ]
    assert shown.rows("Personal data replaced")[1:] == [["email", "1,234"]]
    assert shown.rows("Benchmarks")[1:] == [["sst2", "872", "4", "0.5%", "95", "7"]]
    assert shown.texts("h4") == ["too_short", "c4_short_line", "email"]
    assert "script" not in shown.tags
    # Marks of direction are shown as escapes.
    assert "Home\\u202e" in shown.texts("bdi")
    assert "Examples for each reason" not in page().source


def test_scripts_and_languages_of_a_corpus_that_records_none() -> None:
    assert scripts({}) == ""
    assert languages({"sources": [source("a")]}) == ""


def test_a_corpus_of_an_earlier_version_has_no_shares() -> None:
    earlier = source("web")
    del earlier["share"], earlier["filters"]
    assert languages({"sources": [earlier]}) == ""
    found = size_tables({"sources": [earlier, source("b")], "splits": {}})
    assert found[1][2][0][:4] == ["web", "CC0", "by size", "36,804"]


COUNTS = st.integers(0, 10**15)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(st.sampled_from([0, *(1 << n for n in range(32))]).map(str), COUNTS),
    st.dictionaries(st.sampled_from([0, *TOKENS_PER_WORD]).map(lambda n: f"{n:g}"), COUNTS),
    st.dictionaries(st.text(max_size=5).filter(str.isprintable), COUNTS, max_size=20),
    st.dictionaries(st.integers(0, 40).map(lambda n: str((1 << n) + 1)), COUNTS),
)
def test_any_stats_make_a_page(
    markup: Any,
    tokens: dict[str, int],
    ratios: dict[str, int],
    letters: dict[str, int],
    copies: dict[str, int],
) -> None:
    histograms = {"tokens": tokens, "tokens_per_word": ratios}
    found = stats(histograms=histograms, scripts=letters, copies=copies)
    shown = markup(corpus_page(found, INPUTS, "char"))
    if any(tokens.values()):
        rows = shown.rows("Documents by length")[1:]
        assert sum(int(row[1].replace(",", "")) for row in rows) == sum(tokens.values())
