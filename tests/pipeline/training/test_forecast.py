"""How long a training is, is told before and early: passes over the corpus, hours on the device."""

import time
from typing import Any

import pytest

from lightning_modules.config import ModelConfig
from lightning_modules.recurrent_config import GRUConfig, LSTMConfig
from lightning_modules.training.config import TrainConfig
from pipeline.config.load import load_config
from pipeline.training import forecast
from pipeline.training.forecast import (
    TimedBar,
    cpu_tokens_per_second,
    duration,
    evaluation_warning,
    held_out_warning,
    passes_warning,
    strongest_dropout,
    time_warning,
    trains_on_cpu,
    zipf_counts,
)


class Recorder:
    """A bar and a console that keep what they are given."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.updates: list[tuple[float, str]] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def update(self, done: float, note: str = "", figures: Any = None) -> None:
        self.updates.append((done, note))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; a test sets its only entry."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_many_passes_are_warned_of_with_those_that_the_dropout_allows() -> None:
    assert passes_warning(70.25, 50_000, 0.1) == (
        "50,000 steps are 70 passes over the corpus; with dropout 0.1, a model memorises its text "
        "after about 9, and held-out perplexity rises; set train.passes=9, or model.recurrent.dropout "
        "and model.input.dropout to 0.2"
    )
    assert passes_warning(70.25, 50_000, 0.3) == (
        "50,000 steps are 70 passes over the corpus; with dropout 0.3, a model memorises its text "
        "after about 19, and held-out perplexity rises; set train.passes=19"
    )


def test_the_strongest_dropout_counts() -> None:
    model = ModelConfig(recurrent=LSTMConfig(dropout=0.2))
    assert strongest_dropout(model) == 0.2
    assert strongest_dropout(ModelConfig(recurrent=GRUConfig(output_dropout=0.5))) == 0.5
    assert strongest_dropout(ModelConfig()) == 0.1


@pytest.mark.parametrize(("passes", "shown"), [(0.1234, "0.12"), (0.999, "0.99"), (1e-5, "1e-05")])
def test_less_than_a_pass_shows_a_warning(passes: float, shown: str) -> None:
    assert passes_warning(passes, 1000, 0.1) == (
        f"train.steps=1000 reads {shown} of a pass over the corpus; train.passes=1 reads all of it"
    )


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (
            (100, 0, 0),
            "no held-out text: no perplexity will be reported; raise prepare.valid_fraction",
        ),
        (
            (100, 0, 50),
            "no held-out text: no perplexity will be reported; raise prepare.valid_frac",
        ),
        (
            (70, 20, 10),
            "30% of the corpus's tokens are held out (valid and test), so training does not",
        ),
        ((0, 20, 0), "100% of the corpus's tokens are held out"),
        ((80, 10, 10), None),
        (
            (46_900, 590, 0),
            "the valid split has only 590 tokens, so held-out perplexity and the best step are uncertain; "
            "prepare.valid_fraction=0.05 holds out about 2,374",
        ),
        ((9_900, 100, 0), "the valid split has only 100 tokens, so held-out perplexity and the "),
        ((46_900, 1000, 0), None),
    ],
)
def test_a_held_out_text_that_is_missing_small_or_large_is_warned_of(
    tokens: tuple[int, int, int], told: str | None
) -> None:
    warning = held_out_warning(dict(zip(("train", "valid", "test"), tokens, strict=True)))
    assert warning is None if told is None else (warning or "").startswith(told)


def test_evaluations_that_take_long_are_warned_of() -> None:
    settings = {"rows": 10, "unroll": 10, "evaluate_steps": 100}
    train = TrainConfig(steps=1001, evaluate_share=None, **settings)

    def warning(train: TrainConfig, valid_tokens: int) -> str | None:
        return evaluation_warning(ModelConfig(), train, 8000, valid_tokens)

    assert warning(train, 50_000) == (
        "11 evaluations of 50k held-out tokens take about 183% of the time of the training steps; "
        "raise train.evaluate_steps, or prepare a smaller valid split"
    )
    assert warning(train, 5000) is None
    once = TrainConfig(steps=50, evaluate_share=None, **settings)
    assert (warning(once, 50_000) or "").startswith(
        "1 evaluation of 50k held-out tokens takes about "
    )
    sampled = TrainConfig(steps=1001, **settings)
    assert warning(sampled, 50_000) is None
    assert (warning(sampled, 100_000) or "").startswith(
        "11 evaluations of 2,000 of 100k held-out tokens and one of all of them take about 41% of the time"
    )


@pytest.mark.parametrize(("passes", "dropout"), [(1.0, 0.0), (4.0, 0.0), (14.0, 0.2)])
def test_few_passes_are_no_news(passes: float, dropout: float) -> None:
    assert passes_warning(passes, 1000, dropout) is None


def test_a_long_training_is_warned_of_with_a_number_of_steps_for_an_hour() -> None:
    assert time_warning(43_200, 50_000, "this machine") == (
        "50,000 steps take 12 hours on this machine; train.steps=4100 takes about 1 hour, and steps "
        "can be added later"
    )
    assert time_warning(7200, 50_000, "this machine") is None


def run_at(seconds_a_step: float, steps: int, first: int, clock: list[float]) -> Recorder:
    shown = Recorder()
    bar = TimedBar(shown, steps, "2 CPU threads", shown)
    for step in range(first, min(first + 200, steps) + 1, 10):
        bar.update(step, f"step {step}")
        clock[0] += 10 * seconds_a_step
    return shown


def test_a_slow_training_is_warned_of_once_after_its_speed_is_known(clock: list[float]) -> None:
    shown = run_at(1.0, 50_000, 0, clock)
    assert shown.warnings == [
        "at this speed, 49,960 steps take 14 hours on 2 CPU threads; for about 1 hour, stop it "
        "(Ctrl-C) and add train.steps=3600 --overwrite"
    ]
    assert shown.updates[1] == (10, "step 10")
    assert len(shown.updates) == 21


def test_the_slow_first_steps_do_not_count(clock: list[float]) -> None:
    shown = Recorder()
    bar = TimedBar(shown, 10_000, "2 CPU threads", shown)
    for step, now in ((0, 0), (10, 900), (1010, 940), (2010, 980)):
        clock[0] = now
        bar.update(step)
    assert shown.warnings == []


def test_a_training_near_its_end_is_not_advised_to_begin_anew(clock: list[float]) -> None:
    shown = run_at(20.0, 50_000, 40_000, clock)
    assert shown.warnings == ["at this speed, 9,980 steps take 2.3 days on 2 CPU threads"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 second"),
        (40, "40 seconds"),
        (300, "5 minutes"),
        (3600, "1 hour"),
        (4000, "67 minutes"),
        (5400, "1.5 hours"),
        (43_200, "12 hours"),
        (129_600, "1.5 days"),
        (1e7, "116 days"),
    ],
)
def test_a_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "model",
    [
        (),
        ("model.input.kind=char_cnn",),
        ("model.head.kind=softmax",),
        ("model.output_vocabulary=500",),
        ("model.head.cutoffs=[100,900]",),
        ("model.input.kind=adaptive",),
        ("model.recurrent.kind=gru",),
        ("model.recurrent.kind=hgrn2",),
        ("model.recurrent.kind=sru",),
    ],
)
def test_the_speed_on_a_cpu_is_that_of_its_matmul_over_the_work_of_a_token(
    model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_matmul_speed", lambda: 1e11)
    config = load_config([], ["prepare.input=x", *model])
    wider = config.model_copy(
        update={"model": config.model.model_copy(update={"directions": "forward"})}
    )
    counts = zipf_counts(2000)
    assert 1e3 < cpu_tokens_per_second(config, counts) < 1e6
    assert cpu_tokens_per_second(wider, counts) > cpu_tokens_per_second(config, counts)


def test_a_matmuls_speed_is_measured() -> None:
    assert 1e8 < forecast._matmul_speed() < 1e14


def test_a_training_is_on_the_cpu_where_it_is_set_or_there_is_no_gpu() -> None:
    config = load_config([], ["prepare.input=x", "train.device=cpu"])
    assert trains_on_cpu(config)
    assert not trains_on_cpu(load_config([], ["prepare.input=x", "train.device=cuda"]))
