"""The best step of a training: its file in the result, and what the user is told about it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_modules.evaluation.held_out import perplexity
from lightning_modules.models.checkpoint_file import BEST, read_checkpoint
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.metrics_file import Row, held_out_losses, training_losses
from lightning_modules.training.weights.best import (
    RISES,
    Loss,
    evaluations_since_best,
    is_last_step,
    overfits,
)
from pipeline.lifecycle.stage import StageFolder
from preprocess.files import storage
from preprocess.work.folder import best_file, best_steps

WORSE = 1.01
"""The last step is called worse than the best if its perplexity is more than this many times the best."""


class BestStep(NamedTuple):
    """The step with the lowest held-out loss.

    Attributes:
        step: the step.
        figures: its held-out figures; "loss" is the mean -log p per token in nats.
        weights: its weights, by their names in the checkpoint.
    """

    step: int
    figures: dict[str, Any]
    weights: dict[str, Tensor]

    @property
    def perplexity(self) -> float:
        """Held-out perplexity per token, averaged over the directions."""
        return perplexity(self.figures["loss"])


def publish_best(place: StageFolder, last: int) -> BestStep | None:
    """Copy the best weights up to the ``last`` step into the result; None if nothing was evaluated."""
    steps = [step for step in best_steps(place.work) if step <= last]
    if not steps:
        return None
    storage.copy(best_file(place.work, steps[-1]), place.new_file(BEST))
    saved = read_checkpoint(place.new_file(BEST), mapped=True)
    return BestStep(saved["step"], saved["held_out"], saved["state_dict"])


def last_figures(rows: Sequence[Row], step: int) -> dict[str, Any] | None:
    """Return the figures of the last step on the whole held-out split.

    They are those of `FinalEvaluation`, or of the last evaluation if that read the whole split. None if there
    are none, or if the loss is not a number.

    Args:
        rows: rows of metrics.jsonl.
        step: the last step.
    """
    of_step = [row for row in rows if row["step"] == step]
    for prefix in ("whole_", "valid_"):
        for row in of_step:
            if row.get(f"{prefix}loss") is not None:
                return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
    return None


def stop_reason(train: TrainConfig, step: int, losses: Sequence[float]) -> str | None:
    """Return why a training ended before its last step; None if it did not.

    Args:
        train: settings of the training.
        step: the step at which it ended.
        losses: held-out losses at multiples of `evaluate_steps`.
    """
    if step >= train.steps or not is_last_step(train, step, losses):
        return None
    waited = evaluations_since_best(losses)
    times = f"{waited} held-out evaluation{'s' if waited > 1 else ''}"
    return f"{times} in a row did not improve on the best one (train.patience={train.patience})"


def ending(
    train: TrainConfig,
    step: int,
    losses: Sequence[float],
    best: BestStep | None,
    rows: Sequence[Row],
    passes: float,
) -> list[str]:
    """Return what to tell when a training is finished.

    Args:
        train: settings of the training.
        step: number of steps taken.
        losses: held-out losses at multiples of `evaluate_steps`.
        best: the best step.
        rows: rows of metrics.jsonl.
        passes: number of passes over the train split.
    """
    lines = []
    if reason := stop_reason(train, step, losses):
        lines.append(
            f"stopped at step {step:,} of {train.steps:,}, because {reason}; the same command with a "
            "larger train.patience trains further"
        )
    if best and best.step < step:
        last = held_out_losses(rows)[-1][1]
        found = f"held-out perplexity was lowest at step {best.step:,}: {best.perplexity:,.1f}"
        if math.exp(last - best.figures["loss"]) > WORSE:
            why = (
                "the steps after it only fitted the training text"
                if passes > 1
                else "no text was read twice, so training became unstable (try a lower train.learning_rate)"
            )
            found += f", against {perplexity(last):,.1f} at the last step, {step:,}; {why}"
        lines.append(
            f"{found}. evaluate and export take step {best.step:,}; to take the last step, set "
            "export.checkpoint=last"
        )
    whole = last_figures(rows, step)
    sample = best.figures.get("tokens") if best else None
    if whole and sample and sample < whole.get("tokens", 0):
        lines.append(
            f"held-out perplexity at the last step: {perplexity(whole['loss']):,.1f} on all "
            f"{whole['tokens']:,} tokens; the best step was chosen by a sample of {sample:,}"
        )
    return lines


class OverfittingWatch:
    """Warns once if held-out loss rises from evaluation to evaluation while training loss falls.

    Args:
        history: rows of metrics.jsonl up to the step that training starts from.
        patience: `train.patience`, for the advice.
        warn: called with the warning.
    """

    def __init__(
        self, history: Sequence[Row], patience: int | None, warn: Callable[[str], None]
    ) -> None:
        self._held_out: list[Loss] = held_out_losses(history)
        self._training: list[Loss] = training_losses(history)
        self._patience, self._warn = patience, warn
        self._has_warned = False

    def add(self, row: Row) -> None:
        """Add a row of metrics.jsonl, and warn if it shows that the model overfits."""
        self._training += training_losses([row])
        evaluated = held_out_losses([row])
        self._held_out += evaluated
        if evaluated and not self._has_warned and overfits(self._held_out, self._training):
            self._has_warned = True
            self._warn(self._warning())

    def _warning(self) -> str:
        (first, low), (last, high) = self._held_out[-RISES - 1], self._held_out[-1]
        advice = (
            "" if self._patience else f"a new run with train.patience={RISES} stops early, and "
        )
        return (
            f"the model overfits: held-out perplexity rose in {RISES} evaluations in a row, from "
            f"{perplexity(low):,.1f} at step {first:,} to {perplexity(high):,.1f} at step {last:,}, while "
            f"training loss fell. The best step is kept for export; {advice}more text, a higher dropout or "
            "a smaller model helps against it"
        )
