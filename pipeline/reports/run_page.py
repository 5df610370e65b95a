"""``report.html``: a finished run, judged and shown with its curves, figures and words."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_modules.config import ModelConfig
from pipeline.console import clock, count
from pipeline.reports.assessment import Verdict
from pipeline.reports.corpus_page import languages, scripts, size, size_tables
from pipeline.reports.html_page import render
from pipeline.reports.perplexity_tables import (
    ABOUT_STATES,
    BAND_COLUMNS,
    BITS,
    NOT_DEFINED,
    RANKS,
    Figures,
    band_rows,
    bits_per_byte,
    perplexity_rows,
    reasons,
    ways,
)
from pipeline.reports.run_folder import Result
from pipeline.reports.svg_chart import Chart, Point, Series, chart, smooth
from preprocess.files.manifest import recorded
from preprocess.vectors.neighbours import WordUses

STYLES = {"forward": "c0", "backward": "c1"}

CURVES = (
    (
        "learning_rate",
        "Learning rate",
        "Set by train.learning_rate, train.warmup_steps and train.schedule.",
    ),
    ("gradient_norm", "Gradient norm", "Before clipping. Sudden peaks show unstable training."),
    ("skipped_steps", "Skipped steps", "Total number of steps with a gradient that is not finite."),
    ("tokens_per_second", "Tokens per second", "Training speed, without the time of evaluations."),
    (
        "mfu",
        "Model FLOPs utilisation",
        "Share of the device's measured matmul speed that training uses.",
    ),
    ("data_wait", "Waiting for data", "Share of the time spent waiting for the next batch."),
)
"""Column of metrics.jsonl, title and caption of each small chart."""


@dataclass(frozen=True)
class Findings:
    """What `page` shows.

    Attributes:
        folder: the run folder, an absolute path or a URL.
        tokenizer: the kind of the tokenizer.
        corpus_page: relative URL of ``corpus.html``; None if it cannot be linked.
        config: YAML of all settings.
        corpus: result of prepare.
        training: result of train.
        held_out: figures of each evaluated split.
        metrics: rows of metrics.jsonl.
        verdicts: judgements on the training.
        words: words whose uses are shown.
    """

    folder: str
    tokenizer: str
    corpus_page: str | None
    config: str
    corpus: Result
    training: Result
    held_out: Sequence[Figures]
    metrics: Sequence[Mapping[str, Any]]
    verdicts: Sequence[Verdict]
    words: Sequence[WordUses]

    def curve(self, key: str) -> list[Point]:
        """Return (step, value) of a column of metrics.jsonl, without rows that have no value."""
        return [(row["step"], float(row[key])) for row in self.metrics if row.get(key) is not None]


def page(found: Findings) -> str:
    """Return the HTML of the page."""
    return render(
        "run.html",
        heading=found.folder.rstrip("/").rsplit("/", 1)[-1],
        about="Report of a biloom run",
        facts=[(name, value) for name, value in _facts(found) if value],
        found=found,
        perplexity=_perplexity_chart(found),
        keys=[(style, way) for way, style in STYLES.items() if found.curve(f"loss_{way}")],
        curves=list(_small_charts(found)),
        held_out=list(map(_held_out, found.held_out)),
        bits=BITS,
        ranks=RANKS,
        tables=size_tables(found.corpus.details),
    )


def _held_out(figures: Figures) -> dict[str, Any]:
    """Return what the page shows of a split."""
    return {
        "tokens": figures["tokens"],
        "split": figures["split"],
        "bits_per_byte": _bits(figures),
        "about_states": ABOUT_STATES if "by_state" in figures else "",
        "columns": ["perplexity", *ways(figures)],
        "rows": perplexity_rows(figures),
        "band_columns": [*BAND_COLUMNS, *ways(figures)],
        "band_rows": band_rows(figures),
        "reasons": reasons(figures),
    }


def _facts(found: Findings) -> Iterable[tuple[str, str]]:
    corpus, trained = found.corpus.stats, found.training
    seconds = trained.stats.get("seconds")
    yield "Folder", found.folder
    yield (
        "Trained",
        ", ".join(filter(None, [trained.finished, f"biloom {trained.manifest.biloom}"])),
    )
    yield "Corpus", size(corpus)
    yield "Languages", languages(corpus)
    yield "Scripts", scripts(corpus)
    yield "Tokenizer", f"{found.tokenizer}, vocabulary {trained.details['vocabulary']:,}"
    yield "Model", architecture(trained.details)
    yield "Training", _length(trained.details, seconds)
    yield "Precision", trained.details.get("precision", "")


def _length(trained: Mapping[str, Any], seconds: float | None = None) -> str:
    """Describe the length of a training and its best step in one line.

    Args:
        trained: details of the train manifest.
        seconds: duration of the training, if it is known.
    """
    steps, planned = trained["steps"], trained.get("planned_steps", trained["steps"])
    of = f" of {planned:,}" if steps < planned else ""
    duration = f" in {clock(seconds)}" if seconds is not None else ""
    stopped = f"; stopped because {trained['stopped']}" if trained.get("stopped") else ""
    best = trained.get("best_step")
    marked = "" if best is None or best == steps else f"; best step {best:,}"
    return f"{steps:,}{of} steps, {count(trained['tokens'])} tokens{duration}{stopped}{marked}"


def architecture(trained: Mapping[str, Any]) -> str:
    """Describe a model in one line, from the details of its train manifest."""
    model = recorded(ModelConfig, trained, "model")
    recurrent = model.recurrent
    directions = "bidirectional" if model.directions == "both" else "forward"
    width = recurrent.direction_width
    projection = f", projection {width}" if width != recurrent.hidden else ""
    return (
        f"{directions} {recurrent.kind.upper()}, {recurrent.layers} "
        f"layer{'s' if recurrent.layers > 1 else ''} of {recurrent.hidden}"
        f"{projection}; {trained['parameters']:,} parameters"
    )


def _bits(figures: Figures) -> str:
    bits = bits_per_byte(figures) if figures["tokens"] else NOT_DEFINED
    return "" if bits == NOT_DEFINED else bits


def _perplexity_chart(found: Findings) -> Chart:
    losses = {way: found.curve(f"loss_{way}") for way in STYLES}
    series = [
        *(Series(way, style, _exp(losses[way]), "faint") for way, style in STYLES.items()),
        *(Series(way, style, _exp(smooth(losses[way]))) for way, style in STYLES.items()),
        *(
            Series(f"{way}, held out", style, found.curve(f"valid_{way}_perplexity"), "dots")
            for way, style in STYLES.items()
        ),
    ]
    best = found.training.details.get("best_step")
    marked = None if best is None else (best, f"step {best:,}, the best on held-out text")
    return chart("Perplexity per token by training step", series, log=True, marked=marked)


def _small_charts(found: Findings) -> Iterable[tuple[str, Chart, str]]:
    for column, title, caption in CURVES:
        points = found.curve(column)
        # A curve of zeros shows nothing; the assessment says if no step was skipped.
        if any(y for _, y in points):
            yield title, chart(title, [Series(title, "c2", points)], x_ticks=2), caption


def _exp(losses: Iterable[Point]) -> list[Point]:
    return [(step, math.exp(min(loss, 700.0))) for step, loss in losses]
