"""``corpus.html``: a description of a prepared corpus, to read before a model is trained on it.

The page depends on the text files and the settings alone, so that a resumed prepare writes the same
bytes as an undisturbed one: it names neither its folder nor the time at which it was written.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import Any

from pipeline.console import count
from pipeline.reports.html_page import percent, render
from preprocess.corpus.histograms import TOKENS_PER_WORD
from preprocess.reading.block import escaped
from preprocess.shards.format import SUMS

Bars = list[tuple[str, int, float]]
"""Rows of a table with bars: name, number, share of the whole."""

SCRIPTS_SHOWN = 12
"""Maximum number of scripts with a row of their own."""
TOKEN_BITS = 32
"""Bits of the largest number of tokens that a document can have."""
UNSPACED = 16.0
"""Tokens per word from which a document counts as text without spaces between words. Text with
spaces has fewer, even if each character is a token."""


def corpus_page(
    stats: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], tokenizer: str
) -> str:
    """Return the HTML of the page.

    Args:
        stats: the content of ``stats.json`` of prepare; "copies" is None without deduplication.
        inputs: the rows of ``inputs.jsonl``.
        tokenizer: the kind of the tokenizer.
    """
    files = sorted({row["name"] for row in inputs})
    facts = [
        ("Files", f"{len(files):,} files, {files[0]} to {files[-1]}" if len(files) > 1 else ""),
        ("Newest file", newest(row["version"] for row in inputs)),
        ("Licence", stats["sources"][0]["license"] or "" if len(stats["sources"]) == 1 else ""),
        ("Languages", languages(stats)),
        ("Scripts", scripts(stats)),
        ("Tokenizer", f"{tokenizer}, vocabulary {stats['vocabulary']:,}"),
        ("Size", size(stats)),
    ]
    documents = stats["documents"]
    return render(
        "corpus.html",
        heading=_heading(stats, files),
        about="Corpus prepared by biloom",
        facts=[(name, value) for name, value in facts if value],
        tables=size_tables(stats),
        documents=_document_bars(documents),
        replaced=documents["replaced"],
        changed=_bars({k: n for k, n in documents["changed"].items() if n}, documents["read"]),
        cleaning=[
            [one["name"], _settings(one["cleaning"]), _settings(one["filters"])]
            for one in stats["sources"]
        ],
        **_screening(stats),
        lengths=_lengths(stats["histograms"].get("tokens", {})),
        ratios=_ratios(stats["histograms"].get("tokens_per_word", {})),
        scripts=_script_bars(stats["scripts"]),
        copies=_copies(stats["copies"]),
    )


def size(corpus: Mapping[str, Any]) -> str:
    """Format the documents and tokens of all splits together."""
    documents, tokens = (
        sum(sums[key] for sums in corpus["splits"].values()) for key in ("documents", "tokens")
    )
    return f"{documents:,} documents, {count(tokens)} tokens"


def scripts(stats: Mapping[str, Any]) -> str:
    """Format the largest scripts with their shares of the letters; empty if there are none."""
    most = _ordered(stats.get("scripts", {}))[:3]
    whole = sum(stats.get("scripts", {}).values())
    return ", ".join(f"{name} {percent(_share(number, whole))}" for name, number in most)


def languages(corpus: Mapping[str, Any]) -> str:
    """Format the languages that the filters keep; empty if no filter names any."""
    # Corpora of early versions record no filters.
    filters = [one.get("filters", {}) for one in corpus["sources"]]
    return ", ".join(sorted({name for one in filters for name in one.get("languages") or ()}))


def newest(versions: Iterable[str]) -> str:
    """Format the latest modification time among file versions; empty if all are ETags."""
    times = [int(version) for version in versions if re.fullmatch("[0-9]{18,19}", version)]
    return f"{datetime.fromtimestamp(max(times) // 10**9, UTC):%Y-%m-%d %H:%M} UTC" if times else ""


def size_tables(corpus: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]], int]]:
    """Return (title, header, rows, number of text columns) of each table of sizes.

    There is a table of the splits that have text and, if there are several, one of the sources.
    The text columns come first.
    """
    splits, sources = corpus["splits"], corpus["sources"]
    whole = sum(sums["tokens"] for sums in splits.values())
    sizes = [name.replace("text_bytes", "bytes") for name in SUMS]
    tables = [
        (
            "Splits",
            ["split", "share of tokens", *sizes],
            [
                [split, percent(_share(sums["tokens"], whole)), *(f"{sums[key]:,}" for key in SUMS)]
                for split, sums in splits.items()
                if sums["documents"]
            ],
            1,
        ),
        (
            "Sources",
            ["source", "licence", "share of training", *sizes],
            [
                [
                    one["name"],
                    one["license"] or "not given",
                    # Corpora of early versions record no share: they were mixed by size.
                    percent(one["share"]) if "share" in one else "by size",
                    *(f"{one[key]:,}" for key in SUMS),
                ]
                for one in sources
            ],
            2,
        ),
    ]
    return tables if len(sources) > 1 else tables[:1]


def _heading(stats: Mapping[str, Any], files: Sequence[str]) -> str:
    names = [one["name"] for one in stats["sources"]]
    if len(names) > 1 or names != ["corpus"]:
        return "Corpus: " + ", ".join([*names[:4], *(["…"] if names[4:] else [])])
    return f"Corpus of {files[0]}" if len(files) == 1 else f"Corpus of {len(files):,} files"


def _ordered(numbers: Mapping[str, int]) -> list[tuple[str, int]]:
    """Largest first; equal ones by name."""
    return sorted(numbers.items(), key=lambda one: (-one[1], one[0]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _bars(numbers: Mapping[str, int], whole: int | None = None) -> Bars:
    whole = sum(numbers.values()) if whole is None else whole
    return [(name, number, _share(number, whole)) for name, number in numbers.items()]


def _document_bars(documents: Mapping[str, Any]) -> Bars:
    dropped = {f"dropped: {reason}": n for reason, n in _ordered(documents["dropped"])}
    rows = {"read": documents["read"], "written": documents["written"], **dropped}
    return _bars(rows, documents["read"])


def _screening(stats: Mapping[str, Any]) -> dict[str, Any]:
    """Return what filters and masks did, and examples for each reason."""
    screening, documents = stats.get("screening", {}), stats["documents"]
    lines, characters = (
        screening.get(name, {}) for name in ("removed_lines", "removed_characters")
    )
    kept = sum(sums["characters"] for sums in stats["splits"].values())
    whole = kept + sum(characters.values())
    examples: Mapping[str, list[str]] = screening.get("examples", {})
    masked = screening.get("masked", {})
    reasons = [*_ordered(documents["dropped"]), *_ordered(characters), *_ordered(masked)]
    return {
        "removed": [
            [reason, f"{lines.get(reason, 0):,}", f"{n:,}", percent(_share(n, whole))]
            for reason, n in _ordered(characters)
        ],
        "masked": [[kind, f"{number:,}"] for kind, number in _ordered(masked)],
        "benchmarks": [
            [
                name,
                f"{found['items']:,}",
                f"{found['matched']:,}",
                percent(_share(found["matched"], found["items"])),
                f"{found['short']:,}",
                f"{documents['dropped'].get(f'contaminated_{name}', 0):,}",
            ]
            for name, found in screening.get("benchmarks", {}).items()
        ],
        "examples": [
            (reason, [escaped(text) for text in examples[reason]])
            for reason, _ in reasons
            if reason in examples
        ],
    }


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in settings.items()) or "none"


def _lengths(bins: Mapping[str, int]) -> dict[str, Any]:
    bounds = [0, *(1 << power for power in range(TOKEN_BITS + 1))]
    named = {str(low): _range(low, high - 1) for low, high in pairwise(bounds)}
    return _histogram(bins, named)


def _ratios(bins: Mapping[str, int]) -> dict[str, Any]:
    bounds = [0.0, *TOKENS_PER_WORD]
    named = {f"{low:g}": f"{low:g} to {high:g}" for low, high in pairwise(bounds)}
    named["0"], named[f"{bounds[-1]:g}"] = "at most 1", f"more than {bounds[-1]:g}"
    return {**_histogram(bins, named), "unspaced": _median(bins) >= UNSPACED}


def _histogram(bins: Mapping[str, int], named: Mapping[str, str]) -> dict[str, Any]:
    """Return bars from the first to the last bin that holds anything, and the median's name."""
    counts = [(name, bins.get(low, 0)) for low, name in named.items()]
    held = [place for place, (_, number) in enumerate(counts) if number]
    shown = dict(counts[held[0] : held[-1] + 1]) if held else {}
    return {"bars": _bars(shown), "median": named.get(f"{_median(bins):.15g}", "")}


def _median(bins: Mapping[str, int]) -> float:
    """Return the lower bound of the bin that holds the median; -1 if all bins are empty."""
    ordered = sorted((float(low), number) for low, number in bins.items())
    sums = list(accumulate(number for _, number in ordered))
    return next(
        (low for (low, _), up_to in zip(ordered, sums, strict=True) if 2 * up_to >= sums[-1] > 0),
        -1.0,
    )


def _range(low: int, high: int) -> str:
    return f"{low:,} to {high:,}" if high > low else f"{low:,}"


def _script_bars(letters: Mapping[str, int]) -> Bars:
    rows = _ordered(letters)
    shown = dict(rows[:SCRIPTS_SHOWN])
    if rest := rows[SCRIPTS_SHOWN:]:
        shown[f"{len(rest)} more"] = sum(number for _, number in rest)
    return _bars(shown)


def _copies(copies: Mapping[str, int] | None) -> Bars | None:
    if copies is None:
        return None
    # A bin reaches from n + 1 to 2 n.
    bounds = sorted(map(int, copies))
    named = {f"{_range(low, 2 * (low - 1))} times": copies[str(low)] for low in bounds}
    return _bars(named)
