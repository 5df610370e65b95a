"""What prepare says at its end: short, and nothing that is no news."""

from io import StringIO

import pytest
from rich.console import Console as RichConsole

from pipeline.console import Console
from pipeline.reports.corpus_summary import show_corpus, show_screening
from pipeline.training import forecast
from preprocess.shards.format import SUMS


@pytest.fixture(autouse=True)
def tiny_valid_split(monkeypatch):
    """The valid split of these figures is not called small."""
    monkeypatch.setattr(forecast, "FEW_HELD_OUT", 0)


def sums(documents):
    return {key: documents * (n + 1) for n, key in enumerate(SUMS)}


def said(sources, valid=10, keep_keys=False, **documents):
    counts = {"read": 1_000, "written": 900, "replaced": 0, "dropped": {}, "changed": {}}
    details = {
        "splits": {"train": sums(890), "valid": sums(valid), "test": sums(0)},
        "sources": sources,
        "documents": counts | documents,
    }
    printed = StringIO()
    console = Console(RichConsole(file=printed, width=1000))
    show_corpus(console, details, "out/corpus.html", keep_keys)
    return printed.getvalue().splitlines()


def test_a_plain_corpus_is_its_splits_and_one_line_of_documents():
    assert said([{"name": "corpus", "share": 1.0, **sums(900)}], changed={"unicode": 0}) == [
        "  corpus: split | documents | tokens | words | characters | text_bytes",
        "    train | 890 | 1,780 | 2,670 | 3,560 | 4,450",
        "    valid | 10 | 20 | 30 | 40 | 50",
        "  documents: 1,000 read, 900 written",
        "  details: out/corpus.html",
    ]


def test_an_empty_or_large_valid_split_is_warned_of():
    assert said([{"name": "corpus", "share": 1.0, **sums(900)}], valid=0)[-2].startswith(
        "  no held-out text: no perplexity will be reported; raise prepare.valid_fraction"
    )
    assert said([{"name": "corpus", "share": 1.0, **sums(900)}], valid=890)[-2].startswith(
        "  50% of the corpus's tokens are held out"
    )


def test_missing_keys_are_warned_of():
    plain = [{"name": "corpus", "share": 1.0, **sums(900)}]
    assert said(plain, keep_keys=True)[-2].startswith(
        "  no hashes of the documents are kept, although prepare.keep_keys is true, because an earlier"
    )
    assert "no hashes" not in "".join(said(plain))


def test_sources_drops_and_cleaning_are_reported_where_there_are_any():
    sources = [
        {"name": "web", "share": 0.75, **sums(600)},
        {"name": "[bold]", "share": 0.0001, **sums(300)},
    ]
    dropped, changed = {"duplicate": 90, "empty": 10}, {"unicode": 1_234, "whitespace": 5}
    assert said(sources, dropped=dropped, changed=changed, replaced=7_000)[3:] == [
        "  sources: source | documents | tokens | share of training",
        "    web | 600 | 1,200 | 75.0%",
        "    [bold] | 300 | 600 | <0.1%",
        "  documents: 1,000 read, 900 written, dropped: 90 duplicate, 10 empty",
        "  documents changed by cleaning: 1,234 unicode, 5 whitespace",
        "  7,000 invalid byte sequences replaced by U+FFFD",
        "  details: out/corpus.html",
    ]


def test_rules_that_remove_parts_of_lines_are_not_counted_as_lines():
    screening = {
        "removed_lines": {"c4_citations": 0, "c4_short_line": 3},
        "removed_characters": {"c4_citations": 24, "c4_short_line": 40},
    }
    printed = StringIO()
    show_screening(Console(RichConsole(file=printed, width=200)), screening, read=10)
    assert printed.getvalue().splitlines() == [
        "  lines removed: 3 c4_short_line",
        "  characters removed inside lines: 24 c4_citations",
    ]
