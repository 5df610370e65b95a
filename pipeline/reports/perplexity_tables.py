"""Held-out figures as tables: on the terminal, in the report and in the model card."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning_modules.evaluation.held_out import CARRIED, TEXT_BY_TEXT
from pipeline.console import Console

Figures = Mapping[str, Any]
"""The split and its figures, as of `lightning_modules.evaluation.held_out.Evaluation.figures`."""

OTHERS = "others"
"""Entry of the details of an evaluate manifest: the figures of the splits that were evaluated before."""

STATES = {CARRIED: "carried state", TEXT_BY_TEXT: "text by text"}
"""Labels of the states in which held-out text is read."""
ABOUT_STATES = (
    "carried state: from text to text; text by text: each text from the zero state, as embed and score "
    "read it"
)

_SPLITS = ("valid", "test", "train")

BITS = "bits per byte of text"
NOT_DEFINED = "not defined"
RANKS = "perplexity per token, by the predicted token's frequency rank in the training text"
BAND_COLUMNS = ["rank of the predicted token", "tokens"]


def figure(perplexity: float | None) -> str:
    """Format a perplexity: one decimal, or two digits from 1e6 on, which values per word can reach."""
    if perplexity is None:
        return NOT_DEFINED
    return f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.2g}"


def evaluations(details: Mapping[str, Any]) -> list[Figures]:
    """Return the figures of each split, valid before test before train, from an evaluate manifest.

    Args:
        details: the manifest's details: the figures of the split that was evaluated last, and those of
            others; empty if there is no manifest.
    """
    if not details:
        return []
    found = [details, *details.get(OTHERS, ())]
    return sorted(found, key=lambda one: split_order(one["split"]))


def split_order(split: str) -> int:
    """Return the place of a split in tables."""
    return (*_SPLITS, split).index(split)


def by_state(figures: Figures) -> list[tuple[str, Figures]]:
    """Return the label and the figures of each state in which the split was read.

    The results of earlier versions have one state, that of training, and no label.
    """
    found = figures.get("by_state", {})
    labelled = [(label, found[state]) for state, label in STATES.items() if state in found]
    return labelled or [("", figures)]


def ways(figures: Figures) -> tuple[str, ...]:
    """Return the names of the columns: forward, backward, average; forward only if there is one direction."""
    one_way = "backward" in figures.get("not_defined", {})
    return ("forward",) if one_way else ("forward", "backward", "average")


def perplexity_rows(
    figures: Figures, shown: Callable[[float | None], str] = figure
) -> list[list[str]]:
    """Return the rows of a table with the columns of `ways`, the first cell naming unit and state.

    The units are token and word, and also character if the text has no words between spaces. There
    are no rows without held-out text.

    Args:
        figures: details of an evaluate manifest.
        shown: formats a perplexity; None means that it is not defined.
    """
    if not figures["tokens"]:
        return []
    units = [("token", "perplexity"), ("word", "word_perplexity")]
    if "word" in figures.get("not_defined", {}):
        units.append(("character", "character_perplexity"))
    return [
        [
            ", ".join(filter(None, (f"per {unit}", label))),
            *(shown(one.get(f"{way}_{key}")) for way in ways(figures)),
        ]
        for unit, key in units
        for label, one in by_state(figures)
    ]


def band_rows(figures: Figures, shown: Callable[[float | None], str] = figure) -> list[list[str]]:
    """Return rows [ranks, tokens, perplexity of each way]; none for runs of early versions."""
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
    """Format the bits per byte of text, of each state; `NOT_DEFINED` if they are not defined."""
    shown = [
        f"{one['bits_per_byte']:.3f}" + (f" ({label})" if label else "")
        for label, one in by_state(figures)
        if one.get("bits_per_byte") is not None
    ]
    return ", ".join(shown) or NOT_DEFINED


def reasons(figures: Figures) -> list[str]:
    """Return, for each figure that is not defined, a line that says why."""
    names = {
        "backward": "backward and average perplexity",
        "word": "perplexity per word",
        "bits_per_byte": BITS,
        "bands": "perplexity by rank",
    }
    return [
        f"{names[key]}: {NOT_DEFINED} ({why})"
        for key, why in figures.get("not_defined", {}).items()
        if key in names
    ]


def show_evaluation(console: Console, figures: Figures) -> None:
    """Show tables of the figures, or one line if the split is empty."""
    if not figures["tokens"]:
        console.line(f"no perplexity: the {figures['split']} split is empty")
        return
    console.line(f"{figures['tokens']:,} tokens of the {figures['split']} split, full vocabulary")
    console.table("perplexity", ["", *ways(figures)], perplexity_rows(figures))
    if "by_state" in figures:
        console.line(ABOUT_STATES)
    if bands := band_rows(figures):
        console.table(RANKS, [*BAND_COLUMNS, *ways(figures)], bands)
    if (bits := bits_per_byte(figures)) != NOT_DEFINED:
        console.line(f"{bits} {BITS}")
    for reason in reasons(figures):
        console.line(reason)
