"""The scores and predictions of a classifier as tables, metrics and a model card."""

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy.typing as npt

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.examples import Problem, overlap_of
from lightning_modules.tasks.classification.table import (
    COLUMNS,
    Row,
    cells,
    difference,
    rows_by_label,
    scores_of,
)
from lightning_modules.tasks.folder import ModelReference
from pipeline.commands.tasks.classification.data import Data
from pipeline.commands.tasks.classification.heads import TrainedHead
from pipeline.commands.tasks.comparison import comparison
from pipeline.commands.tasks.label_table import (
    SHOWN_LABELS,
    LabelRow,
    show_labels,
    shown_label,
)
from pipeline.console import Console
from pipeline.reports.model_card import escape
from preprocess.errors import one_line
from preprocess.reading.labelled.examples import Target

WIDE = 50
"""Labels above which a table of predictions has no column for each label."""
MAJORITY, BAG, LAYER_0 = "majority", "tf-idf", "layer 0"
"""How the names of the rows begin with which the head is compared."""


def metrics_of(rows: Sequence[Row], data: Data, trained: TrainedHead) -> dict[str, Any]:
    """Return the contents of metrics.json; the last row is the chosen head."""
    problem, truth, head = data.problem, data.dev.truth, rows[-1]
    shared = overlap_of(data.train.examples, data.dev.examples).dev
    metrics: dict[str, Any] = {
        **data.figures,
        "table": [row.as_json() for row in rows],
        "layer_weights": [*trained.layer_weights] or None,
        **trained.figures,
        "above": {
            row.name: difference(head, row, truth, problem)._asdict()
            for row in rows[:-1]
            if row.name.startswith((MAJORITY, BAG, LAYER_0))
        },
        "by_label": rows_by_label(head, truth, problem),
    }
    if shared.any():
        metrics["without_shared_texts"] = {
            row.name: scores_of(truth[~shared], row.predicted[0][~shared], problem) for row in rows
        }
    return metrics


def show_table(console: Console, rows: Sequence[Row], data: Data, metrics: dict[str, Any]) -> None:
    """Print the table, and what it says of the head."""
    target = data.problem.target
    title = f"scores on {len(data.dev.examples):,} dev texts, with 95 % intervals"
    console.table(title, ["", *COLUMNS[target].values()], [cells(row, target) for row in rows])
    for line in comparisons(metrics, target):
        console.line(line)
    if without := metrics.get("without_shared_texts"):
        first = next(iter(COLUMNS[target]))
        scale = 1 if target == "number" else 100
        shown = "; ".join(
            f"{one_line(name)} {scale * found[first]:.1f}" for name, found in without.items()
        )
        console.line(
            f"{COLUMNS[target][first]} without the dev texts that are also in train: {shown}"
        )
    show_scores_of_labels(console, metrics["by_label"], "dev texts")


def comparisons(metrics: dict[str, Any], target: Target) -> list[str]:
    """Return a line for each baseline that the head is compared with."""
    first = next(iter(COLUMNS[target].values()))
    scale, digits = (1, 4) if target == "number" else (100, 1)
    lines = []
    for name, found in metrics["above"].items():
        lines.append(comparison("head", name, first, found, scale, digits))
        if name.startswith(MAJORITY) and found["low"] <= 0:
            lines.append(
                f"the {first} of the head is not above that of the most frequent label, so that its "
                "differences from other rows do not show that the vectors help"
            )
    return lines


def show_scores_of_labels(
    console: Console, found: Sequence[dict[str, Any]], texts: str = "texts"
) -> None:
    """Print the scores of the most frequent labels; ``texts`` says of what texts."""
    rows = [
        LabelRow(
            one["label"],
            [f"{100 * one[name]:.1f}" for name in ("precision", "recall", "f1")],
            one["examples"],
        )
        for one in sorted(found, key=lambda one: -one["examples"])
    ]
    show_labels(console, "labels", ["precision", "recall", "F1", texts], rows)


def value_columns(problem: Problem) -> list[str]:
    """Return the columns of a prediction: the label, its probability, and that of each label."""
    if problem.target == "number":
        return ["predicted"]
    columns = ["predicted", "probability"]
    if len(problem.labels) <= WIDE:
        columns += [f"P({label})" for label in problem.labels]
    return columns


def value_cells(problem: Problem, labels: Sequence[str], found: npt.NDArray[Any]) -> list[str]:
    """Return the cells of `value_columns` for a prediction.

    Args:
        problem: what is predicted.
        labels: the predicted labels.
        found: the probability of each label, or the predicted number, (k,).
    """
    if problem.target == "number":
        return [f"{found[0]:.6g}"]
    row = [shown_labels(problem, labels), f"{found.max(initial=0):.4f}"]
    return row + [f"{p:.4f}" for p in found] if len(problem.labels) <= WIDE else row


def shown_labels(problem: Problem, labels: Sequence[str]) -> str:
    """Return labels as a field: one as it is, several as a JSON list."""
    return json.dumps([*labels], ensure_ascii=False) if problem.target == "several" else labels[0]


def prediction_columns(data: Data) -> list[str]:
    """Return the columns of predictions.tsv."""
    pair = [] if data.train.pairs is None else ["pair"]
    return ["place", "true", *value_columns(data.problem), "note", "text", *pair]


def prediction_row(data: Data, number: int, found: npt.NDArray[Any], units: int) -> list[str]:
    """Return a row of predictions.tsv.

    Args:
        data: the examples.
        number: index of the dev example.
        found: its probabilities, or the predicted number.
        units: number of its tokens.
    """
    problem, one = data.problem, data.dev.examples[number]
    true = repr(one.value) if problem.target == "number" else shown_labels(problem, one.labels)
    labels = decided(problem, found)
    pair = [] if data.train.pairs is None else [one.pair or ""]
    note = "" if units else "no tokens"
    return [one.place, true, *value_cells(problem, labels, found), note, one.text, *pair]


def decided(problem: Problem, found: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return the labels that are predicted with these probabilities, (k,)."""
    if problem.target == "number":
        return ()
    if problem.target == "several":
        return tuple(label for label, p in zip(problem.labels, found, strict=True) if p >= 0.5)
    return (problem.labels[int(found.argmax())],)


def card(
    file: str,
    config: ClassifyConfig,
    data: Data,
    rows: Sequence[Row],
    metrics: dict[str, Any],
    model: ModelReference,
) -> str:
    """Return the model card, Markdown."""
    target = data.problem.target
    kind = {"single": "one label", "several": "any number of labels", "number": "a number"}[target]
    name = escape(PurePosixPath(file).name)
    dev = (
        "held out of the same file"
        if config.dev is None
        else escape(PurePosixPath(config.dev).name)
    )
    header = ["scores on dev", *COLUMNS[target].values()]
    kept = [f"Scores are means over the seeds; {one}.\n"] if (one := config.kept_training) else []
    lines = [
        "# Text classifier" if target != "number" else "# Text regression",
        "",
        f"Predicts {kind} for {'a pair of texts' if data.train.pairs else 'a text'} from the vectors of "
        f"the language model {model.content[:12]}, which is "
        f"{'in the folder bilm' if config.bundle else 'not in this folder'}. Trained with "
        f"`head={config.head}` on {len(data.train.examples):,} texts of {name}.",
        "",
        *kept,
        "```sh",
        "biloom classify predict THIS_FOLDER texts.txt",
        "```",
        "",
        "## Scores",
        "",
        f"On {len(data.dev.examples):,} texts ({dev}). In brackets: 95 % bootstrap intervals over these "
        "texts.",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(map(escape, cells(row, target)))} |" for row in rows),
        "",
        *(f"- {escape(line)}" for line in comparisons(metrics, target)),
        *_shared(data),
        "",
    ]
    if data.problem.labels:
        shown = ", ".join(
            escape(repr(shown_label(label))) for label in data.problem.labels[:SHOWN_LABELS]
        )
        more = ", ..." if len(data.problem.labels) > SHOWN_LABELS else ""
        lines += ["## Labels", "", f"{len(data.problem.labels):,}: {shown}{more}", ""]
    if metrics["layer_weights"]:
        weights = ", ".join(f"{weight:.3f}" for weight in metrics["layer_weights"])
        lines += ["## Learned weights of the layers", "", f"From the input on: {weights}", ""]
    return "\n".join(lines)


def _shared(data: Data) -> list[str]:
    shared = data.figures["dev_in_train"]
    return [f"- {shared:,} of these texts are also training texts."] if shared else []
