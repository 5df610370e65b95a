"""Held-out figures of several runs side by side."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from lightning_modules.evaluation.held_out import CARRIED, TEXT_BY_TEXT, WAYS
from pipeline.reports.perplexity_tables import (
    BITS,
    NOT_DEFINED,
    STATES,
    evaluations,
    figure,
    split_order,
)
from pipeline.reports.run_folder import Run


def held_out_rows(runs: Sequence[Run]) -> list[tuple[str, Callable[[Run], str]]]:
    """Return the names of the rows, and functions from a run to the figure in the row."""
    return [
        (f"{prefix}{name}", partial(_evaluated, key, split, state))
        for prefix, split in _splits(runs)
        for name, key, state in (*_perplexities(runs), *_bits_per_byte(runs))
    ]


def _splits(runs: Sequence[Run]) -> list[tuple[str, str | None]]:
    """Return for each split the prefix of the names of its rows, and the split.

    If no run has more than one split, all runs share one set of rows: an empty prefix and None.
    """
    found = [evaluations(run.details("evaluate")) for run in runs]
    if all(len(one) <= 1 for one in found):
        return [("", None)]
    splits = {one["split"] for of_run in found for one in of_run}
    return [(f"{split} split: ", split) for split in sorted(splits, key=split_order)]


def _perplexities(runs: Sequence[Run]) -> Iterable[tuple[str, str, str]]:
    """Yield (name of the row, key of the figures, state of `_states`)."""
    evaluated = [one for run in runs for one in evaluations(run.details("evaluate"))]
    # A text without spaces has no words, so its characters are counted instead.
    by_character = any("word" in one.get("not_defined", {}) for one in evaluated)
    for unit in ("token", "word", *(["character"] if by_character else [])):
        for way in WAYS:
            key = f"{way}_perplexity" if unit == "token" else f"{way}_{unit}_perplexity"
            if any(one.get(key) is not None for one in evaluated):
                for state, label in _states(runs):
                    yield f"perplexity per {unit}{label}, {way}", key, state


def _bits_per_byte(runs: Sequence[Run]) -> Iterable[tuple[str, str, str]]:
    for state, label in _states(runs):
        yield f"{BITS}{label}", "bits_per_byte", state


def _states(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return the states in which the texts were read, each with a part of the names of its rows.

    If all results are of earlier versions, there is one set of rows for the state of training, "".
    """
    evaluated = [one for run in runs for one in evaluations(run.details("evaluate"))]
    if any("by_state" in one for one in evaluated):
        return [(state, f", {label}") for state, label in STATES.items()]
    return [("", "")]


def _evaluated(key: str, split: str | None, state: str, run: Run) -> str:
    found = evaluations(run.details("evaluate"))
    figures = next((one for one in found if split in (None, one["split"])), None)
    if figures is None:
        return "not evaluated"
    if not figures["tokens"]:
        return "no held-out text"
    states = figures.get("by_state", {_own_state(run): figures})
    figures = states.get(state) if state else figures
    if figures is None:
        return "not evaluated"
    if key != "bits_per_byte":
        return figure(figures.get(key))
    bits = figures.get(key)
    return NOT_DEFINED if bits is None else f"{bits:.3f}"


def _own_state(run: Run) -> str:
    """Return the state in which an earlier version evaluated a run: that of its training."""
    return TEXT_BY_TEXT if run.details("train").get("reset_state") else CARRIED
