"""The summary of a corpus that prepare prints when it ends."""

from collections.abc import Mapping
from typing import Any

from pipeline.console import Console
from pipeline.reports.html_page import percent
from pipeline.training.forecast import held_out_warning
from preprocess.corpus.known import KEYS
from preprocess.quality.benchmarks import cached_benchmarks
from preprocess.shards.format import SUMS
from preprocess.text.quality.benchmark_config import DecontaminationConfig


def show_corpus(
    console: Console, details: Mapping[str, Any], page: str, keep_keys: bool = False
) -> None:
    """Print a corpus, with warnings if no text is held out, or much of it, or if keys are missing.

    Args:
        console: where it is printed.
        details: details of its manifest.
        page: path of ``corpus.html``.
        keep_keys: the setting of prepare.
    """
    rows = [
        [split, *(f"{sums[key]:,}" for key in SUMS)]
        for split, sums in details["splits"].items()
        if sums["documents"]
    ]
    console.table("corpus", ["split", *SUMS], rows)
    if len(details["sources"]) > 1:
        rows = [
            [one["name"], f"{one['documents']:,}", f"{one['tokens']:,}", percent(one["share"])]
            for one in details["sources"]
        ]
        console.table("sources", ["source", "documents", "tokens", "share of training"], rows)
    documents = details["documents"]
    console.line(
        f"documents: {documents['read']:,} read, {documents['written']:,} written"
        + _listed(", dropped: ", documents["dropped"])
    )
    changed = {step: number for step, number in documents["changed"].items() if number}
    if changed:
        console.line(_listed("documents changed by cleaning: ", changed))
    show_screening(console, details.get("screening", {}), documents["read"])
    if documents["replaced"]:
        console.line(f"{documents['replaced']:,} invalid byte sequences replaced by U+FFFD")
    if "encodings" in details:
        console.line(_listed("files by detected encoding: ", details["encodings"]))
    tokens = {split: sums["tokens"] for split, sums in details["splits"].items()}
    if warning := held_out_warning(tokens):
        console.warn(warning)
    if keep_keys and KEYS not in details:
        console.warn(
            "no hashes of the documents are kept, although prepare.keep_keys is true, because an earlier "
            "version of biloom prepared a part of them: other corpora cannot name this one in "
            "prepare.known; prepare it in another run.output for that"
        )
    console.line(f"details: {page}")


def show_screening(console: Console, screening: Mapping[str, Any], read: int) -> None:
    """Print what was removed from the texts and masked, and the matches of benchmarks."""
    removed = screening.get("removed_lines", {})
    if lines := {reason: number for reason, number in removed.items() if number}:
        console.line(_listed("lines removed: ", lines))
    characters = screening.get("removed_characters", {})
    # A rule that removes parts of lines, such as marks of citations, removes no whole line.
    if inside := {reason: n for reason, n in characters.items() if n and not removed.get(reason)}:
        console.line(_listed("characters removed inside lines: ", inside))
    if masked := screening.get("masked"):
        console.line(_listed("personal data masked: ", masked))
    rows = [
        [name, *(f"{found[key]:,}" for key in ("items", "matched", "short"))]
        for name, found in screening.get("benchmarks", {}).items()
    ]
    if rows:
        console.table("benchmarks", ["benchmark", "items", "matched", "too short"], rows)
    if (without := screening.get("without_url", 0)) == read > 0:
        console.warn(
            f"lists of URLs are set, but none of the {without:,} documents has a URL as its id; set "
            "id_field to the field that holds the URL"
        )


def show_benchmarks(console: Console, config: DecontaminationConfig) -> None:
    """Print what is read of each benchmark, and how many of its items are too short.

    Raises:
        UserError: a benchmark cannot be used.
    """
    if not config.benchmarks:
        return
    for name, read in cached_benchmarks(config).items.items():
        for note in read.notes:
            console.line(f"benchmark {name}: {note}")
        missing = f", {read.without_text:,} without a text" if read.without_text else ""
        console.line(
            f"benchmark {name}: {read.items:,} items{missing}; {read.short:,} have fewer than "
            f"{config.shortest} words and are not searched"
        )


def _listed(before: str, numbers: Mapping[str, int]) -> str:
    return before + ", ".join(f"{n:,} {name}" for name, n in numbers.items()) if numbers else ""
