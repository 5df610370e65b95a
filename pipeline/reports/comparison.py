"""Runs side by side: settings that differ, figures and curves, on the terminal and as a page."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lightning_modules.training.metrics_file import held_out_losses, training_losses
from pipeline.console import Console, clock, count
from pipeline.lifecycle.registry import STAGES
from pipeline.reports.assessment import Verdict, last_training_loss
from pipeline.reports.held_out_rows import held_out_rows
from pipeline.reports.html_page import render
from pipeline.reports.perplexity_tables import evaluations, figure
from pipeline.reports.run_folder import Run, read_run
from pipeline.reports.svg_chart import Chart, Point, Series, chart, smooth
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.fingerprint import canonical_json

MISSING = "missing"
"""Shown instead of a figure whose stage is not finished."""
NO_SETTING = "-"
"""Shown if a run does not have the setting, for example because it has another kind of cell."""
COLOURS = 6
"""Number of colours in ``templates/style.css``; further runs share them."""

Rows = list[list[str]]


def compare(runs: Sequence[str], console: Console, page: str | None = None) -> None:
    """Show two or more runs side by side, and write the comparison as HTML to ``page``.

    A stage that a run has not finished is shown as missing.

    Args:
        runs: run folders, local paths or URLs.
        console: where the tables are printed.
        page: path or URL of the HTML page; None writes no page.

    Raises:
        UserError: fewer than two runs are named, or a folder holds no finished stage.
        ManifestError: a manifest is damaged.
    """
    if len(runs) < 2:
        raise UserError("compare needs at least two run folders")
    found = [read_run(folder) for folder in runs]
    names = short_names([run.folder for run in found])
    figures, settings, notes = figure_rows(found), setting_rows(found), cautions(found)
    console.table("figures", ["", *names], figures)
    if settings:
        console.table("settings that differ", ["setting", *names], settings)
    else:
        console.line("the settings that affect results are the same")
    for note in notes:
        console.warn(note)
    if page is None:
        return
    title, curves, caption = curve_chart(found, names)
    shown = render(
        "comparison.html",
        heading="Comparison of runs",
        about="Made by biloom",
        facts=[(name, _place(run)) for name, run in zip(names, found, strict=True)],
        names=names,
        cautions=[Verdict("attention", "Comparability", note) for note in notes],
        figures=figures,
        settings=settings,
        title=title,
        chart=curves,
        caption=caption,
        keys=[(f"c{n % COLOURS}", name) for n, name in enumerate(names)],
    )
    storage.write_bytes(page, shown.encode("utf-8", "replace"))
    console.line(f"page: {page}")


def short_names(folders: Sequence[str]) -> list[str]:
    """Return the last parts of each path, as many parts as are needed to distinguish the folders."""
    parts = [folder.rstrip("/").split("/") for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(folders)


def setting_rows(runs: Sequence[Run]) -> Rows:
    """Return [name, value of each run] for each setting that affects results and differs."""
    found = [_settings(run) for run in runs]
    names = dict.fromkeys(name for one in found for name in one)
    differing = {
        name
        for name in names
        if len({canonical_json(one[name]) for one in found if name in one}) > 1
    }
    return [
        [name, *(_value(one[name]) if name in one else NO_SETTING for one in found)]
        for name in names
        # A setting is absent in runs of other kinds, but also in runs of versions without it.
        if name in differing
        or (_has_kind_in(name, differing) and not all(name in one for one in found))
    ]


def _has_kind_in(name: str, differing: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join([*parts[:n], "kind"]) in differing for n in range(1, len(parts)))


def _settings(run: Run) -> dict[str, Any]:
    """Return the requests that the manifests record, without hashes of content."""
    settings: dict[str, Any] = {}
    for result in run.results.values():
        for name, value in result.manifest.asked.items():
            if isinstance(value, dict) and _is_source(value):
                settings |= _source(name, value, settings)
            elif name not in ("stage", "stage_version") and not name.endswith(".content"):
                settings[name] = value
    return settings


def _is_source(value: Mapping[str, Any]) -> bool:
    types = {"name": str, "files": int, "bytes": int}
    return all(type(value.get(key)) is kind for key, kind in types.items())


def _source(name: str, source: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a source of text, such as ``prepare.input.0``, and the list of all."""
    base = name.rpartition(".")[0]
    if base == "embed.sample_of":  # repeats prepare.input
        return {}
    files = f"{source['files']:,} file{'s' if source['files'] != 1 else ''}"
    text = f"{source['name']} ({files}, {count(source['bytes'])}B)"
    sources = [*(one for one in settings.get(base, []) if one != text), text]
    hidden = ("name", "files", "bytes", "names_and_sizes")
    return {base: sources} | {f"{name}.{k}": v for k, v in source.items() if k not in hidden}


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def figure_rows(runs: Sequence[Run]) -> Rows:
    """Return [name, figure of each run] for each figure of the comparison."""

    def row(name: str, stage: str, shown: Callable[[Run], str]) -> list[str]:
        return [name, *(shown(run) if stage in run.results else MISSING for run in runs)]

    def train(key: str, shown: Callable[[Any], str] = "{:,}".format) -> Callable[[Run], str]:
        return lambda run: shown(run.details("train")[key])

    return [
        ["missing stages", *(", ".join(s for s in STAGES if s not in r.results) or "none" for r in runs)],
        row("corpus", "prepare", lambda run: run.results["prepare"].manifest.content[:8]),
        row("documents", "prepare", lambda run: f"{run.details('prepare')['documents']['written']:,}"),
        row("vocabulary", "train", train("vocabulary")),
        row("parameters", "train", train("parameters")),
        row("training steps", "train", train("steps")),
        row("tokens read in training", "train", train("tokens")),
        row("passes over the corpus", "train", train("passes", "{:.2f}".format)),
        row("training time", "train", lambda run: _time([run.results["train"].stats])),
        ["time of all stages", *(_time(one.stats for one in run.results.values()) for run in runs)],
        row("training perplexity per token, at the end", "train", _training_perplexity),
        row("step of the lowest held-out perplexity", "train", _best_step),
        *(row(name, "evaluate", shown) for name, shown in held_out_rows(runs)),
    ]  # fmt: skip


def _training_perplexity(run: Run) -> str:
    loss = last_training_loss(run.details("train"), run.metrics)
    return figure(None if loss is None else math.exp(loss))


def _best_step(run: Run) -> str:
    losses = held_out_losses(run.metrics)
    return f"{min(losses, key=lambda one: one[1])[0]:,}" if losses else "not evaluated"


def _time(stats: Iterable[Mapping[str, Any]]) -> str:
    return clock(sum(one.get("seconds", 0.0) for one in stats))


def cautions(runs: Sequence[Run]) -> list[str]:
    """Return a warning for each group of figures that must not be compared."""
    found = []
    if _tokenizers_differ(runs):
        found.append(
            "The tokenizers differ: compare perplexities per word or character and bits per byte, not "
            "perplexities per token."
        )
    evaluated = [evaluations(run.details("evaluate")) for run in runs]
    texts = [
        {(one["split"], one.get("text_bytes"), one.get("words")) for one in found if one["tokens"]}
        for found in evaluated
    ]
    if not _have_the_same_text([one for one in texts if one]):
        found.append(
            "The held-out texts differ: a lower perplexity may only mean that a text is easier."
        )
    return found


def _have_the_same_text(texts: Sequence[set[tuple[Any, ...]]]) -> bool:
    """Return True if the runs share a split, and the text of each split that several have is the same.

    Args:
        texts: the splits of each run, with sizes of their text.
    """
    splits = [split for one in texts for split, *_ in one]
    compared = [{one for one in found if splits.count(one[0]) > 1} for found in texts]
    return len(texts) < 2 or (
        all(compared)
        and len(set().union(*compared)) == len({n for n in splits if splits.count(n) > 1})
    )


def _tokenizers_differ(runs: Sequence[Run]) -> bool:
    return len({run.details("train")["tokenizer"] for run in runs if "train" in run.results}) > 1


def curve_chart(runs: Sequence[Run], names: Sequence[str]) -> tuple[str, Chart, str]:
    """Return title, chart and caption of held-out and training curves over the tokens read.

    If the tokenizers differ, the chart shows bits per byte of held-out text.
    """
    in_bits = _tokenizers_differ(runs)
    series = []
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        style, trained = f"c{number % COLOURS}", run.details("train")
        if in_bits:
            held_out, training = _bits(run), []
        else:
            held_out = _perplexity(held_out_losses(run.metrics))
            training = _perplexity(smooth(training_losses(run.metrics)))
        per_step = trained["tokens"] / trained["steps"] if trained else 0.0
        lines = [[(step * per_step, y) for step, y in points] for points in (training, held_out)]
        series += [
            Series(name, style, lines[0], "faint"),
            Series(name, style, lines[1]),
            Series(name, style, lines[1], "dots"),
        ]
    title = "Bits per byte of held-out text" if in_bits else "Perplexity per token"
    thin = "" if in_bits else " Thin line: moving average of the training batches."
    caption = f"Thick line and dots: held-out text of each run.{thin} Logarithmic scale."
    drawn = chart(f"{title} by tokens read", series, log=True, x_name="tokens")
    return title, drawn, caption


def _bits(run: Run) -> list[Point]:
    key = "valid_bits_per_byte"
    return [(row["step"], row[key]) for row in run.metrics if row.get(key) is not None]


def _perplexity(losses: Iterable[tuple[float, float]]) -> list[Point]:
    return [(step, math.exp(min(loss, 700.0))) for step, loss in losses]


def _place(run: Run) -> str:
    last = list(run.results.values())[-1]
    return ", ".join(filter(None, [run.folder, last.finished]))
