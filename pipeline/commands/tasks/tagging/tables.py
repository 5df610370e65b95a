"""The scores of taggers as tables, metrics and a model card."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning_modules.tasks.folder import ModelReference
from lightning_modules.tasks.intervals import Interval
from lightning_modules.tasks.tagging.evaluation import Evaluation, difference
from lightning_modules.tasks.tagging.trained import TrainedTagger
from pipeline.commands.tasks.comparison import comparison
from pipeline.commands.tasks.label_table import LabelRow, show_labels
from pipeline.console import Console

MOST_FREQUENT = "most frequent tag of each word"
WITHOUT, WITH = "tagger without the language model", "tagger with the language model"
TUNED = "tagger with the fine-tuned language model"
VECTORS = "vectors of the language model"
COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "strict_f1": "strict F1",
    "accuracy": "accuracy",
}
"""Name of each score in a table."""
WITH_INTERVAL = ("f1", "strict_f1", "accuracy")

Rows = tuple[list[str], list[list[str]]]
"""A header and the rows of a table."""


def score_rows(evaluations: Mapping[str, Evaluation]) -> Rows:
    """Return the scores of each tagger in percent, with 95 % intervals."""
    has = next(iter(evaluations.values())).scores
    names = [name for name in COLUMNS if name in has]
    rows = [
        [title, *(_cell(found.scores[name], name in WITH_INTERVAL) for name in names)]
        for title, found in evaluations.items()
    ]
    return ["", *(COLUMNS[name] for name in names)], rows


def _cell(score: Interval, with_interval: bool) -> str:
    value = f"{100 * score.value:.2f}"
    if not with_interval:
        return value
    return f"{value} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def show_spans(console: Console, title: str, found: Evaluation) -> None:
    """Print the scores of the spans of each label in percent; nothing if there are no spans."""
    rows = [
        LabelRow(
            label,
            [
                *(f"{100 * value:.2f}" for value in (score.precision, score.recall, score.f1)),
                f"{score.predicted:,}",
            ],
            score.gold,
        )
        for label, score in found.by_label.items()
    ]
    show_labels(console, title, ["precision", "recall", "F1", "predicted", "gold"], rows)


def scores_of(found: Evaluation) -> dict[str, Any]:
    """Return the scores as JSON types."""
    return {
        "scores": {name: score._asdict() for name, score in found.scores.items()},
        "labels": {label: score._asdict() for label, score in found.by_label.items()},
    }


@dataclass(frozen=True)
class TagTable:
    """The scores of a tagger and of its baselines on the dev sentences.

    Attributes:
        evaluations: scores of each row.
        speeds: tokens per second: of the vectors, and of the predictions of each tagger.
        train: number of training sentences.
        dev: number of dev sentences.
        seeds: number of trainings of each tagger.
        kept: which of them the folder has; empty if there is one.
    """

    evaluations: Mapping[str, Evaluation]
    speeds: Mapping[str, float]
    train: int
    dev: int
    seeds: int
    kept: str = ""

    @property
    def title(self) -> str:
        """What the table shows."""
        seeds = f", mean of {self.seeds} seeds" if self.seeds > 1 else ""
        return f"dev, {self.dev:,} sentences, percent with 95 % intervals over sentences{seeds}"

    @cached_property
    def above(self) -> dict[str, dict[str, float]]:
        """How much the last tagger is above each other one, with a 95 % interval; not the frequent tags."""
        *others, (_, last) = self.evaluations.items()
        return {
            name: difference(last, found)._asdict()
            for name, found in others
            if name != MOST_FREQUENT
        }

    def show(self, console: Console, tagger: TrainedTagger) -> None:
        """Print the scores, the layer weights and the speed."""
        console.table(self.title, *score_rows(self.evaluations))
        last = [*self.evaluations][-1]
        score = COLUMNS[self.evaluations[last].first]
        for name, found in self.above.items():
            console.line(comparison(last, f"the {name}", score, found))
        show_spans(console, f"spans by label, {last}", self.evaluations[last])
        console.line(f"learned weights of the layers, from layer 0: {_shares(tagger)}")
        for name, speed in self.speeds.items():
            console.line(f"{name}: {speed:,.0f} tokens/s")
        console.line(
            "the dev sentences also chose the best epoch; `biloom tag test TASK FILE` scores other ones"
        )

    def metrics(self, tagger: TrainedTagger) -> dict[str, Any]:
        """Return the metrics of the folder, as JSON types; the same for equal trainings."""
        result = tagger.result
        return {
            "split": "dev",
            "train_sentences": self.train,
            "dev_sentences": self.dev,
            "seeds": self.seeds,
            "rows": {name: scores_of(found) for name, found in self.evaluations.items()},
            "above": self.above,
            "layer_weights": tagger.layer_shares,
            "best_epoch": result.best_epoch if result else None,
            "history": [dict(figures) for figures in result.history] if result else [],
        }

    def card(self, tagger: TrainedTagger, model: ModelReference) -> str:
        """Return the model card, in Markdown."""
        tags = tagger.parts.tags
        kind = (
            f"spans, written as {tags.file_scheme} tags"
            if tags.file_scheme
            else "a tag of each token"
        )
        tuned = ", which was trained with it" if tagger.tuned else ""
        header, rows = score_rows(self.evaluations)
        lines = [
            "# Tagger",
            "",
            f"Predicts {kind}, with a bidirectional LSTM and a linear-chain CRF on the vectors of the "
            f"language model `{model.content[:12]}`{tuned}. Trained on {self.train:,} sentences.",
            "",
            "```sh",
            "biloom tag predict THIS_FOLDER sentences.txt",
            "```",
            "",
            f"## Measured: {self.title}",
            "",
            _markdown(header),
            _markdown(["---"] * len(header)),
            *map(_markdown, rows),
            "",
            "The dev sentences also chose the best epoch.",
            "",
            *([f"Scores are means over the seeds; {self.kept}.", ""] if self.kept else []),
            f"Learned weights of the layers, from layer 0: {_shares(tagger)}.",
            "",
        ]
        return "\n".join(lines)


def _shares(tagger: TrainedTagger) -> str:
    return ", ".join(f"{share:.3f}" for share in tagger.layer_shares)


def _markdown(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
