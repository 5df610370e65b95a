"""Progress in Prometheus's text format, for node_exporter's textfile collector or any other reader.

A file instead of an endpoint: a command needs no port, several can run on a machine, and the last
figures of a command that has ended or was killed remain. All metrics are gauges, because a unit that is
read again, or another stage, starts from a smaller number.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
from collections.abc import Mapping
from typing import Any

FIGURES: dict[str, tuple[str, str]] = {
    "units": ("units_planned", "Units of work of the job."),
    "units_read": ("units_read", "Units whose first pass is finished."),
    "units_finished": ("units_finished", "Units that are finished."),
    "drop_lists": ("drop_lists", "Buckets of the deduplication that are compared."),
    "reports": ("unit_reports", "Progress records that units have written."),
    "bytes": ("read_bytes", "Raw bytes read."),
    "documents": ("documents", "Documents read."),
    "tokens": ("tokens", "Tokens made by the job, or trained on."),
    "step": ("train_step", "Optimiser step of the training."),
    "train_loss": ("train_loss", "Training loss per token, in nats."),
    "tokens_per_second": ("train_tokens_per_second", "Speed of the training."),
    "learning_rate": ("train_learning_rate", "Learning rate."),
    "gradient_norm": ("train_gradient_norm", "Norm of the gradient before clipping."),
    "skipped_steps": ("train_skipped_steps", "Steps skipped because of a gradient not finite."),
    "data_wait": ("train_data_wait_ratio", "Share of the time in which training waited for data."),
    "mfu": ("train_mfu_ratio", "Model FLOPs utilisation, 0 to 1."),
    "valid_average_perplexity": ("valid_perplexity", "Held-out perplexity, last evaluation."),
}
"""Figures of a bar: the metric's name after "biloom_", and its help."""


def exposition(progress: Mapping[str, Any], version: str, now: float, exit_code: int | None) -> str:
    """Return the metrics of a stage.

    Args:
        progress: the fields of `pipeline.progress.Progress`.
        version: biloom's version.
        now: the time, in seconds since 1970.
        exit_code: exit code of the command; None while it runs.
    """
    labels = {"stage": progress["stage"], "folder": progress["folder"]}
    page = _Page(labels)
    about = {"version": version, "work": progress["work"]}
    page.add("info", "Always 1; labels tell the version and the part of the stage.", 1, **about)
    page.add("running", "1 while the command runs, 0 after its end.", int(exit_code is None))
    if exit_code is not None:
        page.add("exit_code", "Exit code of the command.", exit_code)
    page.add("began_timestamp_seconds", "When the stage began.", progress["began"])
    page.add("written_timestamp_seconds", "When this file was written.", now)
    page.add("progress_timestamp_seconds", "When the progress last changed.", progress["moved"])
    since = max(now - progress["moved"], 0.0)
    page.add("progress_age_seconds", "Seconds between the last progress and this writing.", since)
    if progress["work"]:
        work = "raw bytes, steps, tokens, texts, files or records"
        page.add("work_done", f"Work done by the stage's part: {work}.", progress["done"])
        page.add("work_planned", f"Work planned, 0 if unknown: {work}.", progress["planned"])
        page.add("work_rate", "Work per second since the command began it.", progress["rate"])
    figures = progress["figures"]
    for key, (name, help_) in FIGURES.items():
        if isinstance(figures.get(key), int | float):
            page.add(name, help_, figures[key])
    if dropped := figures.get("dropped"):
        page.declare("dropped_documents", "Documents dropped, by reason.")
        for reason, number in sorted(dropped.items()):
            page.sample("dropped_documents", number, reason=reason)
    return page.text()


class _Page:
    """Collects the lines of a page."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels, self._lines = labels, list[str]()

    def declare(self, name: str, help_: str) -> None:
        self._lines += [f"# HELP biloom_{name} {help_}", f"# TYPE biloom_{name} gauge"]

    def sample(self, name: str, value: float, **labels: str) -> None:
        shown = ",".join(f'{k}="{_escaped(v)}"' for k, v in {**self._labels, **labels}.items())
        self._lines.append(f"biloom_{name}{{{shown}}} {_number(value)}")

    def add(self, name: str, help_: str, value: float, **labels: str) -> None:
        self.declare(name, help_)
        self.sample(name, value, **labels)

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: int | float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return repr(value) if isinstance(value, float) else str(int(value))
