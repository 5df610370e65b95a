"""The summary of a corpus that prepare prints when it ends."""

from collections.abc import Mapping
from typing import Any

from pipeline.console import Console
from pipeline.reports.html_page import percent
from pipeline.training.forecast import held_out_warning
from preprocess.shards.format import SUMS


def show_corpus(console: Console, details: Mapping[str, Any], page: str) -> None:
    """Print the ``details`` of a prepare manifest, and the path of ``corpus.html``, ``page``.

    Warn if no text is held out, or much of it.
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
    if documents["replaced"]:
        console.line(f"{documents['replaced']:,} invalid byte sequences replaced by U+FFFD")
    if "encodings" in details:
        console.line(_listed("files by detected encoding: ", details["encodings"]))
    tokens = {split: sums["tokens"] for split, sums in details["splits"].items()}
    if warning := held_out_warning(tokens):
        console.warn(warning)
    console.line(f"details: {page}")


def _listed(before: str, numbers: Mapping[str, int]) -> str:
    return before + ", ".join(f"{n:,} {name}" for name, n in numbers.items()) if numbers else ""
