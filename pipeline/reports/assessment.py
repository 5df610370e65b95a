"""Judgements on a training run, from its metrics and its held-out figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_modules.evaluation.held_out import CARRIED, TEXT_BY_TEXT
from lightning_modules.training.metrics_file import Row, held_out_losses, training_losses
from pipeline.console import Console
from pipeline.reports.perplexity_tables import Figures, by_state, ways

WORSE = 1.01
"""The last step counts as worse than the best if its held-out perplexity is more than this many times
that of the best."""
STILL_FALLING = 0.98
"""More steps are expected to help if the last held-out perplexity is at most this many times the one
before."""
WIDE_GAP = 1.5
"""The gap counts as wide if held-out perplexity is more than this many times training perplexity."""
UNEVEN = 1.25
"""A direction counts as far worse if its held-out perplexity is more than this many times the
other's.

Measured: up to 1.07 in healthy models of English, Chinese, and German with Hebrew; 1.21 in a model that
overfits its corpus."""
COLD_START = 1.5
"""Text by text counts as far worse if its held-out perplexity is more than this many times that with
carried state.

Measured: 0.89 to 1.05 in the same models."""
CHANCE = 7.5
"""Three standard deviations of the loss of a token in nats, about 2.5 each. So the logarithm of a ratio of
perplexities over n tokens may reach ``CHANCE / sqrt(n)`` by chance."""
MANY_PASSES = 4.0
"""Passes up to which repeated text is worth nearly as much as new text (Muennighoff et al. 2023)."""
LAST_PART = 0.1
"""Last share of the steps, over which training loss is averaged to compare it with held-out loss."""

FIRST_SKIPS, LATER_SKIPS = 16, 1e-3
"""Steps that a training in float16 skips at most, as long as it does not diverge: the first ones until the
scale of the gradients has fallen from 65,536, and one after each 2,000 steps, at which it doubles."""


@dataclass(frozen=True)
class Verdict:
    """A judgement on one topic: ``good``, a neutral ``note``, or something that needs ``attention``."""

    level: Literal["good", "note", "attention"]
    topic: str
    text: str


def assess(
    training: Mapping[str, Any], metrics: Sequence[Row], held_out: Mapping[str, Any]
) -> list[Verdict]:
    """Return one verdict for each topic on which there are figures.

    Args:
        training: details of the train manifest.
        metrics: rows of metrics.jsonl, in the order of steps.
        held_out: details of the evaluate manifest.
    """
    evaluations = held_out_losses(metrics)
    best = min(evaluations, key=lambda one: one[1], default=None)
    worse = math.exp(evaluations[-1][1] - best[1]) if best else 1.0
    overfits = worse > WORSE
    verdicts = [
        _best_step(evaluations, worse, training["passes"]),
        _gap(training, metrics, evaluations),
        *evaluation_verdicts(held_out),
        _passes(training, best[0] if best and overfits else None),
        _skipped(training),
    ]
    return [verdict for verdict in verdicts if verdict]


def evaluation_verdicts(figures: Figures) -> list[Verdict]:
    """Return verdicts on the directions, and on texts that are read from the zero state.

    Args:
        figures: figures of a split; empty if there are none.
    """
    return [one for one in (_directions(figures), _text_by_text(figures)) if one]


def concerns(figures: Figures) -> list[Verdict]:
    """Return the `evaluation_verdicts` that need attention."""
    return [one for one in evaluation_verdicts(figures) if one.level == "attention"]


def show_concerns(console: Console, figures: Figures) -> None:
    """Warn of each of the `concerns`."""
    for verdict in concerns(figures):
        console.warn(f"{verdict.topic}: {verdict.text}")


def last_training_loss(training: Mapping[str, Any], metrics: Sequence[Row]) -> float | None:
    """Return the mean training loss per token in nats over the last steps.

    None if there is no loss, or for a sampled softmax, whose loss is not over the whole vocabulary.
    """
    losses = training_losses(metrics)
    if not losses or training.get("model", {}).get("head", {}).get("kind") == "sampled_softmax":
        return None
    last = [loss for step, loss in losses if step > (1 - LAST_PART) * losses[-1][0]]
    return sum(last) / len(last)


def _best_step(evaluations: Sequence[tuple[int, float]], worse: float, passes: float) -> Verdict:
    topic = "Best step"
    if len(evaluations) < 2:
        few = "at one step only" if evaluations else "at no step"
        return Verdict(
            "note",
            topic,
            f"Held-out text was evaluated {few}, so the best step is unknown. A smaller "
            "train.evaluate_steps and a larger prepare.valid_fraction give more evaluations.",
        )
    step, last = min(evaluations, key=lambda one: one[1])[0], evaluations[-1][0]
    if worse > WORSE:
        why = (
            "the model overfits. The best step is the one that is exported, unless "
            "export.checkpoint=last. train.patience stops such a training, and more text or more dropout "
            "helps against it."
            if passes > 1
            else "training is unstable, since no text was read twice. A lower train.learning_rate "
            "usually prevents this."
        )
        return Verdict(
            "attention",
            topic,
            f"Held-out perplexity is lowest at step {step:,} and {worse - 1:.0%} higher at the last "
            f"step, {last:,}: {why}",
        )
    fall = math.exp(evaluations[-1][1] - evaluations[-2][1])
    more = (
        f" It fell by {1 - fall:.0%} since step {evaluations[-2][0]:,}, so more steps "
        "(train.steps) are likely to lower it further."
        if fall <= STILL_FALLING
        else ""
    )
    where = "the last step" if step == last else f"step {step:,} and about the same at the last"
    return Verdict("good", topic, f"Held-out perplexity is lowest at {where}.{more}")


def _gap(
    training: Mapping[str, Any], metrics: Sequence[Row], evaluations: Sequence[tuple[int, float]]
) -> Verdict | None:
    loss = last_training_loss(training, metrics)
    if loss is None or not evaluations:
        return None
    ratio = math.exp(evaluations[-1][1] - loss)
    text = f"Held-out perplexity is {ratio:.2f} times training perplexity"
    if ratio <= WIDE_GAP:
        return Verdict("good", "Gap to training", f"{text}: no sign of overfitting.")
    why = (
        "the model has memorised training text; use more text or more dropout"
        if training["passes"] > 1
        else "no text was read twice, so the cause is not overfitting; the held-out text may be of "
        "another kind, or training too short or unstable"
    )
    return Verdict("attention", "Gap to training", f"{text}: {why}.")


def _directions(figures: Figures) -> Verdict | None:
    """Compare the directions in the state in which they differ most."""
    found = []
    for label, one in by_state(figures):
        forward, backward = (one.get(f"{way}_perplexity") for way in ("forward", "backward"))
        if forward and backward:
            ratio, worse = max((forward / backward, "forward"), (backward / forward, "backward"))
            found.append((ratio, worse, f" ({label})" if label else ""))
    if not found:
        return None
    ratio, worse, label = max(found)
    better = "forward" if worse == "backward" else "backward"
    text = f"Perplexities of the two directions differ by {ratio - 1:.1%}{label}"
    return _of_ratio(
        "Directions",
        (ratio, UNEVEN),
        text,
        figures,
        f"Perplexity of the {worse} direction is {ratio:.2f} times that of the {better} direction{label}. "
        "The state that training carries from document to document may have learned long stretches of one "
        f"kind of text, such as one language. Train again with {_OTHER_STATE}. If the curve of this "
        "direction rose in training, it diverged; then a lower train.learning_rate helps.",
    )


def _text_by_text(figures: Figures) -> Verdict | None:
    """Compare texts read from the zero state with texts read with the carried state."""
    states = figures.get("by_state", {})
    way = ways(figures)[-1]
    carried, zero = (
        states.get(one, {}).get(f"{way}_perplexity") for one in (CARRIED, TEXT_BY_TEXT)
    )
    if not carried or not zero:
        return None
    ratio = zero / carried
    text = f"Perplexity text by text is {ratio:.2f} times that with carried state"
    return _of_ratio(
        "Text by text",
        (ratio, COLD_START),
        text,
        figures,
        f"{text}. Vectors and scores are made text by text from the zero state, but the model relies on "
        f"the text before. Train again with {_OTHER_STATE}.",
    )


def _of_ratio(
    topic: str, measured: tuple[float, float], text: str, figures: Figures, concern: str
) -> Verdict:
    """Judge a ratio of two perplexities.

    Args:
        topic: the topic of the verdict.
        measured: the ratio, and the largest one that is good.
        text: says what the ratio is.
        figures: the figures of the evaluation.
        concern: the text of the verdict if the ratio is larger than chance explains.
    """
    ratio, limit = measured
    if ratio <= limit:
        return Verdict("good", topic, f"{text}.")
    if math.log(ratio) * math.sqrt(figures.get("tokens", math.inf)) <= CHANCE:
        return Verdict(
            "note",
            topic,
            f"{text}, which may be chance in {figures['tokens']:,} tokens of held-out text; a larger "
            "prepare.valid_fraction gives more.",
        )
    return Verdict("attention", topic, concern)


_OTHER_STATE = (
    "a higher train.reset_state (true: every document starts from the zero state) and "
    "train.order=mixed"
)


def _passes(training: Mapping[str, Any], best: int | None) -> Verdict:
    passes, topic = training["passes"], "Passes over the corpus"
    if best is not None and passes > 1:
        return Verdict(
            "attention",
            topic,
            f"Too many: training read the corpus {passes:.1f} times, and held-out perplexity rose "
            f"after {passes * best / training['steps']:.1f}.",
        )
    if passes < 1:
        text = f"Training read {passes:.0%} of the corpus; more steps would read new text."
        return Verdict("note", topic, text)
    text = f"Training read the corpus {passes:.1f} times"
    if passes > MANY_PASSES:
        text += f". After about {MANY_PASSES:.0f} passes, new text helps more than more steps"
        return Verdict("note", topic, f"{text}.")
    return Verdict("good", topic, f"{text}.")


def _skipped(training: Mapping[str, Any]) -> Verdict | None:
    skipped, steps = training.get("skipped_steps"), training["steps"]
    if skipped is None:
        return None
    if not skipped:
        return Verdict("good", "Skipped steps", "No step was skipped: every gradient was finite.")
    if training.get("precision") == "float16" and skipped <= FIRST_SKIPS + steps * LATER_SKIPS:
        text = f"{skipped:,} of {steps:,} steps were skipped to find the scale of gradients in float16."
        return Verdict("note", "Skipped steps", text)
    return Verdict(
        "attention",
        "Skipped steps",
        f"{skipped:,} of {steps:,} steps were skipped because their gradient was not finite. "
        "A lower train.learning_rate or train.clip_norm usually prevents this.",
    )
