"""Each judgement, on and off."""

import math
from typing import Any

import pytest

from lightning_modules.training.metrics_file import held_out_losses, training_losses
from pipeline.reports.assessment import (
    Verdict,
    assess,
    concerns,
    evaluation_verdicts,
    last_training_loss,
)

Row = dict[str, Any]
TRAINED = {"steps": 100, "passes": 2.0, "skipped_steps": 0}


def rows(*held_out: float, training: float = 100.0) -> list[Row]:
    """Metrics whose held-out perplexities are at equal distances, the last at step 100."""
    loss = math.log(training)
    found: list[Row] = [
        {"step": step, "loss_forward": loss, "loss_backward": loss} for step in range(10, 101, 10)
    ]
    for number, value in enumerate(held_out, 1):
        both = {f"valid_{way}_perplexity": value for way in ("forward", "backward")}
        found.append({"step": 100 * number // len(held_out), **both})
    return found


def verdict(topic: str, metrics: list[Row], **others: Any) -> Verdict:
    held_out = others.pop("held_out", {})
    found = {one.topic: one for one in assess({**TRAINED, **others}, metrics, held_out)}
    return found[topic]


def test_the_last_step_is_best_and_more_steps_would_help() -> None:
    assert verdict("Best step", rows(200.0, 100.0)) == Verdict(
        "good",
        "Best step",
        "Held-out perplexity is lowest at the last step. It fell by 50% since step 50, so more "
        "steps (train.steps) are likely to lower it further.",
    )


def test_the_last_step_is_best_and_the_curve_is_flat() -> None:
    found = verdict("Best step", rows(100.5, 100.0))
    assert found.text == "Held-out perplexity is lowest at the last step."


def test_a_best_step_that_is_hardly_better_than_the_last_is_no_overfitting() -> None:
    found = verdict("Best step", rows(100.0, 100.5))
    assert found.level == "good"
    assert found.text == "Held-out perplexity is lowest at step 50 and about the same at the last."


def test_overfitting_names_the_best_step() -> None:
    found = verdict("Best step", rows(120.0, 100.0, 120.0, 150.0))
    assert found.level == "attention"
    assert (
        "lowest at step 50 and 50% higher at the last step, 100: the model overfits" in found.text
    )


def test_a_rise_within_the_first_pass_is_not_called_overfitting() -> None:
    found = verdict("Best step", rows(100.0, 150.0), passes=0.5)
    assert found.level == "attention"
    assert "training is unstable, since no text was read twice" in found.text
    assert "overfit" not in found.text


@pytest.mark.parametrize(
    ("held_out", "told"), [([], "evaluated at no step"), ([90.0], "evaluated at one step only")]
)
def test_too_few_evaluations_decide_nothing(held_out: list[float], told: str) -> None:
    found = verdict("Best step", rows(*held_out))
    assert found.level == "note"
    assert told in found.text


def test_a_narrow_gap_is_good() -> None:
    found = verdict("Gap to training", rows(120.0, 110.0))
    assert found.level == "good"
    assert found.text == (
        "Held-out perplexity is 1.10 times training perplexity: no sign of overfitting."
    )


@pytest.mark.parametrize(
    ("passes", "why"), [(3.0, "memorised training text"), (0.5, "no text was read twice")]
)
def test_a_wide_gap_is_reported_with_its_likely_cause(passes: float, why: str) -> None:
    found = verdict("Gap to training", rows(220.0, 200.0), passes=passes)
    assert found.level == "attention"
    assert found.text.startswith("Held-out perplexity is 2.00 times training perplexity: ")
    assert why in found.text


def test_only_the_last_tenth_of_training_counts_for_the_gap() -> None:
    metrics = [{"step": 10, "loss_forward": 9.0}, *rows(100.0)[1:]]
    assert last_training_loss({}, metrics) == pytest.approx(math.log(100))


def test_a_sampled_softmax_has_no_gap() -> None:
    model = {"head": {"kind": "sampled_softmax"}}
    topics = [one.topic for one in assess({**TRAINED, "model": model}, rows(500.0, 400.0), {})]
    assert "Gap to training" not in topics


@pytest.mark.parametrize(
    ("forward", "backward", "level", "told"),
    [
        (100.0, 102.0, "good", "Perplexities of the two directions differ by 2.0%."),
        (
            130.0,
            100.0,
            "attention",
            "Perplexity of the forward direction is 1.30 times that of the",
        ),
        (100.0, 300.0, "attention", "of the backward direction is 3.00 times that of the forward"),
    ],
)
def test_one_direction_far_worse_than_the_other(
    forward: float, backward: float, level: str, told: str
) -> None:
    held_out = {"forward_perplexity": forward, "backward_perplexity": backward}
    found = verdict("Directions", rows(), held_out=held_out)
    assert found.level == level
    assert told in found.text


def of_states(carried: tuple[float, float], zero: tuple[float, float]) -> dict[str, Any]:
    """Return figures of both states from their forward and backward perplexities."""

    def figures(forward: float, backward: float) -> dict[str, float]:
        average = math.sqrt(forward * backward)
        return {
            "forward_perplexity": forward,
            "backward_perplexity": backward,
            "average_perplexity": average,
        }

    states = {"carried": figures(*carried), "text_by_text": figures(*zero)}
    return {**states["carried"], "state": "carried", "by_state": states}


def test_a_difference_that_few_held_out_tokens_give_by_chance_is_not_flagged() -> None:
    directions = {"forward_perplexity": 130.0, "backward_perplexity": 100.0}
    (found,) = evaluation_verdicts({**directions, "tokens": 505})
    assert found == Verdict(
        "note",
        "Directions",
        "Perplexities of the two directions differ by 30.0%, which may be chance in 505 tokens of held-out "
        "text; a larger prepare.valid_fraction gives more.",
    )
    assert len(concerns({**directions, "tokens": 5_000})) == 1
    assert len(concerns({**directions, "forward_perplexity": 290.0, "tokens": 505})) == 1

    states = {
        "carried": {"average_perplexity": 100.0},
        "text_by_text": {"average_perplexity": 160.0},
    }
    (found,) = evaluation_verdicts({"by_state": states, "tokens": 100})
    assert found.level == "note"
    assert found.text.endswith(
        "with carried state, which may be chance in 100 tokens of held-out text; a larger prepare.valid_fraction gives more."
    )
    assert len(concerns({"by_state": states, "tokens": 1_000})) == 1


def test_directions_are_compared_in_the_state_in_which_they_differ_most() -> None:
    found = {one.topic: one for one in evaluation_verdicts(of_states((99, 100), (143, 413)))}
    assert found["Directions"] == Verdict(
        "attention",
        "Directions",
        "Perplexity of the backward direction is 2.89 times that of the forward direction (text by text). "
        "The state that training carries from document to document may have learned long stretches of one "
        "kind of text, such as one language. Train again with a higher train.reset_state (true: every "
        "document starts from the zero state) and train.order=mixed. If the curve of this direction "
        "rose in training, it diverged; then a lower train.learning_rate helps.",
    )
    even = {one.topic: one for one in evaluation_verdicts(of_states((99, 100), (103, 100)))}
    assert even["Directions"].text == (
        "Perplexities of the two directions differ by 3.0% (text by text)."
    )


def test_text_by_text_far_worse_than_carried_state() -> None:
    figures = of_states((110, 110), (1441, 1441))
    assert concerns(figures) == [
        Verdict(
            "attention",
            "Text by text",
            "Perplexity text by text is 13.10 times that with carried state. Vectors and scores are made "
            "text by text from the zero state, but the model relies on the text before. Train again with a "
            "higher train.reset_state (true: every document starts from the zero state) and "
            "train.order=mixed.",
        )
    ]


def test_text_by_text_a_little_worse_than_carried_state_is_good() -> None:
    found = {one.topic: one for one in evaluation_verdicts(of_states((110, 110), (121, 121)))}
    assert found["Text by text"] == Verdict(
        "good", "Text by text", "Perplexity text by text is 1.10 times that with carried state."
    )
    assert concerns(of_states((110, 110), (121, 121))) == []


@pytest.mark.parametrize(
    "figures", [{}, {"split": "valid", "tokens": 0}, {"average_perplexity": 9.0}]
)
def test_without_figures_of_both_states_there_is_no_verdict(figures: dict[str, Any]) -> None:
    assert evaluation_verdicts(figures) == []


def test_a_forward_model_has_no_directions_to_compare() -> None:
    held_out = {"forward_perplexity": 100.0, "backward_perplexity": None}
    topics = [one.topic for one in assess(TRAINED, rows(), held_out)]
    assert "Directions" not in topics


@pytest.mark.parametrize(
    ("passes", "held_out", "level", "told"),
    [
        (0.17, (90.0, 80.0), "note", "read 17% of the corpus; more steps would read new text."),
        (3.0, (90.0, 80.0), "good", "Training read the corpus 3.0 times."),
        (12.0, (90.0, 80.0), "note", "After about 4 passes, new text helps more than more steps."),
        (3.0, (80.0, 90.0), "attention", "Too many: training read the corpus 3.0 times, and held-out"),
        (3.0, (80.0, 90.0), "attention", "rose after 1.5."),
        (0.5, (80.0, 90.0), "note", "more steps would read new text"),
    ],
)  # fmt: skip
def test_passes_over_the_corpus(
    passes: float, held_out: tuple[float, ...], level: str, told: str
) -> None:
    found = verdict("Passes over the corpus", rows(*held_out), passes=passes)
    assert found.level == level
    assert told in found.text


def test_skipped_steps() -> None:
    assert verdict("Skipped steps", rows()).level == "good"
    found = verdict("Skipped steps", rows(), skipped_steps=3)
    assert found.level == "attention"
    assert found.text.startswith(
        "3 of 100 steps were skipped because their gradient was not finite"
    )
    found = verdict("Skipped steps", rows(), skipped_steps=16, precision="float16")
    assert found.level == "note"
    assert found.text == "16 of 100 steps were skipped to find the scale of gradients in float16."
    found = verdict("Skipped steps", rows(), skipped_steps=17, precision="float16")
    assert found.level == "attention"
    trained = {"steps": 100, "passes": 1.0}
    assert "Skipped steps" not in [one.topic for one in assess(trained, [], {})]


def test_losses_leave_out_what_is_not_finite() -> None:
    metrics: list[Row] = [
        {"step": 1, "loss_forward": 2.0, "loss_backward": math.nan},
        {"step": 2, "loss_forward": None},
        {"step": 3, "valid_forward_perplexity": math.e, "valid_backward_perplexity": math.e**3},
        {"step": 4, "valid_forward_perplexity": math.inf},
    ]
    assert training_losses(metrics) == [(1, 2.0)]
    assert held_out_losses(metrics) == [(3, pytest.approx(2.0))]
