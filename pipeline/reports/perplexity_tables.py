"""Held-out figures as they are shown: on the terminal, in the report, in the model card."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.console import Console

Figures = Mapping[str, Any]
"""Details of an evaluate manifest: `lightning_modules.evaluation.held_out.Evaluation.figures` and the split."""

BITS = "bits a byte of text"
NOT_DEFINED = "not defined"
BAND_COLUMNS = ["rank of the target", "tokens"]


def figure(perplexity: float | None) -> str:
    """A perplexity to be read; that a word of text without spaces is beyond all bounds."""
    if perplexity is None:
        return NOT_DEFINED
    return f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.2g}"


def ways(figures: Figures) -> tuple[str, ...]:
    """The columns there are: a forward language model has one."""
    one_way = "backward" in figures.get("not_defined", {})
    return ("forward",) if one_way else ("forward", "backward", "average")


def perplexity_rows(
    figures: Figures, shown: Callable[[float | None], str] = figure
) -> list[list[str]]:
    """Perplexity a token and a word, or a character where there are no words; none: no text."""
    if not figures["tokens"]:
        return []
    units = [("token", "perplexity"), ("word", "word_perplexity")]
    if "word" in figures.get("not_defined", {}):
        units.append(("character", "character_perplexity"))
    return [
        [f"a {unit}", *(shown(figures[f"{way}_{key}"]) for way in ways(figures))]
        for unit, key in units
    ]


def band_rows(figures: Figures, shown: Callable[[float | None], str] = figure) -> list[list[str]]:
    """Perplexity a token by how frequent the target is; a run of biloom 0.1 has no bands."""
    return [
        [
            f"{band['first_rank']:,} to {band['last_rank']:,}",
            f"{band['forward_tokens']:,}",
            *(_of_band(band[f"{way}_perplexity"], shown) for way in ways(figures)),
        ]
        for band in figures.get("bands", ())
    ]


def _of_band(perplexity: float | None, shown: Callable[[float | None], str]) -> str:
    return "-" if perplexity is None else shown(perplexity)


def bits_per_byte(figures: Figures) -> str:
    bits = figures["bits_per_byte"]
    return NOT_DEFINED if bits is None else f"{bits:.3f}"


def reasons(figures: Figures) -> list[str]:
    """A sentence for each figure that is not defined."""
    names = {
        "backward": "backward and average perplexity",
        "word": "perplexity a word",
        "bits_per_byte": BITS,
        "bands": "perplexity by rank",
    }
    return [
        f"{names[key]}: {NOT_DEFINED} ({why})"
        for key, why in figures.get("not_defined", {}).items()
    ]


def show_evaluation(console: Console, figures: Figures) -> None:
    """Tables of the figures; one line where there was no text."""
    if not figures["tokens"]:
        console.line(f"no perplexity: the {figures['split']} split is empty")
        return
    console.line(f"{figures['tokens']:,} tokens of the {figures['split']} split, full vocabulary")
    console.table("perplexity", ["", *ways(figures)], perplexity_rows(figures))
    if bands := band_rows(figures):
        console.table("by the target's rank in training", [*BAND_COLUMNS, *ways(figures)], bands)
    if figures["bits_per_byte"] is not None:
        console.line(f"{bits_per_byte(figures)} {BITS}")
    for reason in reasons(figures):
        console.line(reason)
