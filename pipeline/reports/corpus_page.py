"""What a corpus is, as one page to look at before anything is trained on it.

The numbers stand in tables beside or below every chart, so that nothing needs to be seen or guessed.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from pipeline.console import count
from pipeline.reports.html_page import bar_table, cards, folded, framed, html_page, percent, table
from pipeline.reports.svg_chart import columns
from preprocess.corpus.histograms import TOKENS_PER_WORD
from preprocess.shards.format import SUMS

SCRIPTS_SHOWN = 12
"""Scripts with a row of their own."""
TOKEN_BITS = 32
"""Of the longest document's number of tokens."""
UNSPACED = 16.0
"""Tokens a word from which a document is taken for text that has no spaces between its words: of
spaced text, even single characters are fewer."""

_NAMES = [name.replace("text_bytes", "bytes of text") for name in SUMS]


def corpus_page(stats: Mapping[str, Any]) -> str:
    """The whole document; names are escaped.

    Args:
        stats: what prepare writes as ``stats.json``. What a corpus has none of may be empty;
            ``copies`` is None where duplicates were not looked for.
    """
    totals = {key: sum(sums[key] for sums in stats["splits"].values()) for key in SUMS}
    figures = ("documents", "tokens", "words", "text_bytes")
    shown = [(count(totals[key]), key.replace("text_bytes", "bytes of text")) for key in figures]
    histograms = stats["histograms"]
    sections = (
        ("Splits and sources", cards(shown) + split_table(stats) + source_table(stats)),
        ("Documents", document_bars(stats) + _cleaning(stats["documents"]) + _settings(stats)),
        ("Length", _lengths(histograms.get("tokens", {}))),
        ("Tokens a word", _ratios(histograms.get("tokens_per_word", {}))),
        ("Scripts", _scripts(stats["scripts"])),
        ("Copies", _copies(stats["copies"])),
    )
    about = f"vocabulary of {stats['vocabulary']:,} ids · tokenizer {stats['tokenizer'][:12]}"
    return html_page("biloom: a corpus", "A corpus", about, sections)


def split_table(corpus: Mapping[str, Any]) -> str:
    """The sizes of the splits that hold anything."""
    splits = corpus["splits"]
    whole = sum(sums["tokens"] for sums in splits.values())
    rows = [
        [split, percent(_share(sums["tokens"], whole)), *(f"{sums[key]:,}" for key in SUMS)]
        for split, sums in splits.items()
        if sums["documents"]
    ]
    return table(["split", "share of tokens", *_NAMES], rows)


def source_table(corpus: Mapping[str, Any]) -> str:
    """The sizes and licences of the sources, and the share of training that each has."""
    rows = [
        [
            source["name"],
            source["license"] or "",
            # A corpus of an earlier version is mixed as it is, and says nothing of shares.
            percent(source["share"]) if "share" in source else "",
            *(f"{source[key]:,}" for key in SUMS),
        ]
        for source in corpus["sources"]
    ]
    return table(["source", "licence", "share of training", *_NAMES], rows, text_columns=2)


def document_bars(corpus: Mapping[str, Any]) -> str:
    """Documents read = written + dropped, by reason."""
    documents = corpus["documents"]
    read = documents["read"]
    dropped = sorted(documents["dropped"].items(), key=lambda reason: (-reason[1], reason[0]))
    rows = (
        ("read", read),
        ("written", documents["written"]),
        *((f"dropped: {reason}", number) for reason, number in dropped),
    )
    shares = [(name, number, _share(number, read)) for name, number in rows]
    return bar_table("Documents read, written and dropped", ["documents", "", "share"], shares)


def _cleaning(documents: Mapping[str, Any]) -> str:
    read, replaced = documents["read"], documents["replaced"]
    changed = [(step, number) for step, number in documents["changed"].items() if number]
    if changed:
        rows = [(step, number, _share(number, read)) for step, number in changed]
        shown = bar_table("Documents that cleaning changed", ["step", "", "share"], rows)
    else:
        shown = "<p>Cleaning changed no document.</p>"
    if replaced:
        shown += f"<p>U+FFFD stands {replaced:,} times for bytes that are no text.</p>"
    return shown


def _settings(stats: Mapping[str, Any]) -> str:
    rows = [
        [source["name"], _listed(source["cleaning"]), _listed(source["filters"])]
        for source in stats["sources"]
    ]
    shown = table(["source", "cleaning", "filters"], rows, text_columns=3)
    return folded("how each source was cleaned and filtered", shown)


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in settings.items()) or "none"


def _lengths(bins: Mapping[str, int]) -> str:
    found = _filled(bins, ["0", *(str(1 << power) for power in range(TOKEN_BITS))])
    if not found:
        return "<p>No documents.</p>"
    median = _median(found)
    caption = (
        f"documents by their tokens, from the number below a column's left edge up to the next; "
        f"the median has {_bound(median)}" + (f" to {_bound(2 * median - 1)}" if median > 1 else "")
    )
    return _histogram("Documents by length in tokens", found, caption, "tokens, at least")


def _ratios(bins: Mapping[str, int]) -> str:
    found = _filled(bins, [f"{bound:g}" for bound in (0, *TOKENS_PER_WORD)])
    if not found:
        return "<p>No document has a word.</p>"
    median = _median(found)
    if median >= UNSPACED:
        return (
            f"<p>The median document has more than {median:g} tokens between two spaces: most of "
            "this text does not put spaces between words, and tokens a word say nothing of it.</p>"
        )
    beyond = next((bound for bound, _ in found if bound > median), None)
    caption = (
        "documents by their mean tokens a word, from above the number below a column's left edge "
        f"up to the next; the median has more than {median:g}"
        + (f" and at most {beyond:g}" if beyond else "")
    )
    return _histogram("Documents by tokens a word", found, caption, "tokens a word, above")


def _filled(bins: Mapping[str, int], bounds: Sequence[str]) -> list[tuple[float, int]]:
    """The bins from the first to the last that holds anything, with the empty ones between."""
    found = [(float(bound), bins.get(bound, 0)) for bound in bounds]
    held = [place for place, (_, number) in enumerate(found) if number]
    return found[held[0] : held[-1] + 1] if held else []


def _median(bins: Sequence[tuple[float, int]]) -> float:
    """The lower bound of the bin in which the median lies."""
    sums = list(accumulate(number for _, number in bins))
    return next(bound for (bound, _), upto in zip(bins, sums, strict=True) if 2 * upto >= sums[-1])


def _histogram(title: str, bins: Sequence[tuple[float, int]], caption: str, bound: str) -> str:
    whole = sum(number for _, number in bins)
    named = [(_bound(least), number) for least, number in bins]
    rows = [[least, f"{number:,}", percent(number / whole)] for least, number in named]
    numbers = folded("the numbers", table([bound, "documents", "share"], rows, text_columns=0))
    return framed(title, columns(title, named, 960, 260), caption) + numbers


def _bound(value: float) -> str:
    return f"{value:,.10g}"


def _scripts(scripts: Mapping[str, int]) -> str:
    if not scripts:
        return "<p>No letter of any script.</p>"
    whole = sum(scripts.values())
    most = sorted(scripts.items(), key=lambda script: (-script[1], script[0]))
    rows, rest = most[:SCRIPTS_SHOWN], most[SCRIPTS_SHOWN:]
    if rest:
        rows.append((f"{len(rest)} more", sum(number for _, number in rest)))
    shares = [(name, number, _share(number, whole)) for name, number in rows]
    return bar_table("Letters of each script", ["script", "letters", "share"], shares)


def _copies(copies: Mapping[str, int] | None) -> str:
    if copies is None:
        return "<p>Duplicates were not looked for.</p>"
    if not copies:
        return "<p>No text occurs twice.</p>"
    whole = sum(copies.values())
    rows = []
    for least in sorted(map(int, copies)):
        most = 2 * (least - 1)
        times = f"{least:,} to {most:,} times" if most > least else f"{least:,} times"
        rows.append((times, copies[str(least)], _share(copies[str(least)], whole)))
    return bar_table(
        "Texts that occur more than once, each written once",
        ["a text occurs", "texts", "share"],
        rows,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
