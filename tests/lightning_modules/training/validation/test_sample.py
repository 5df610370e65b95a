"""What validations read, and what it costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.config import ModelConfig
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.validation.sample import (
    LEAST_TOKENS,
    HeldOutSample,
    evaluation_cost,
    training_sample,
    whole_split,
)

MODEL = ModelConfig()


def train(**settings: object) -> TrainConfig:
    return TrainConfig.model_validate({"rows": 32, "unroll": 20} | settings)


def test_validations_take_a_twentieth_of_the_time_by_default() -> None:
    sample = training_sample(MODEL, train(), 8000, 10**7)
    # 5 % of 1,000 steps of 640 tokens. A token of a step costs as much as evaluating three.
    assert sample.tokens == 96_000
    assert sample.rows == 256
    assert training_sample(MODEL, train(), 8000, 96_000).tokens is None, "a split as small as that"


@given(
    share=st.floats(0.01, 1),
    interval=st.integers(1, 10_000),
    accumulate=st.integers(1, 4),
    size=st.integers(1, 10**7),
)
def test_a_sample_costs_at_most_its_share_or_is_small(
    share: float, interval: int, accumulate: int, size: int
) -> None:
    settings = train(
        evaluate_share=share, evaluate_steps=interval, accumulate_steps=accumulate, rows=4, unroll=5
    )
    read = training_sample(MODEL, settings, 8000, size).tokens or size
    assert read <= size
    assert read <= LEAST_TOKENS or read <= share * 3 * interval * accumulate * 4 * 5 * (1 + 1e-9)


def test_the_sample_does_not_depend_on_the_number_of_steps() -> None:
    samples = {training_sample(MODEL, train(steps=n), 8000, 10**7) for n in (10, 100_000)}
    assert len(samples) == 1


def test_without_a_share_the_whole_split_is_read() -> None:
    settings = train(evaluate_share=None, evaluate_steps=1)
    assert training_sample(MODEL, settings, 8000, 10**9) == whole_split(settings, 10**9)


@pytest.mark.parametrize(
    ("tokens", "reset_state", "rows"),
    [(10, 1, 1), (640, 1, 10), (10**6, 1, 256), (10, 0, 1), (10_240, 0, 10), (10**6, 0, 256)],
)
def test_rows_are_not_chopped_into_a_few_tokens(tokens: int, reset_state: int, rows: int) -> None:
    assert whole_split(train(reset_state=reset_state), tokens).rows == rows
    assert whole_split(train(reset_state=reset_state, evaluate_rows=3), tokens).rows == min(rows, 3)


def test_a_sampled_softmax_is_cheap_to_train_but_not_to_evaluate() -> None:
    kinds = ("adaptive_softmax", "softmax", "sampled_softmax")
    costs = {
        kind: evaluation_cost(ModelConfig.model_validate({"head": {"kind": kind}}), 500_000)
        for kind in kinds
    }
    assert costs["adaptive_softmax"] == costs["softmax"] == 1 / 3
    assert costs["sampled_softmax"] > 3
    # ELMo: 90 million products a token in training, 894 million of the forward pass in evaluation.
    elmo = ModelConfig.model_validate(
        {
            "input": {"kind": "char_cnn"},
            "recurrent": {"kind": "lstm", "hidden": 4096, "projection": 512},
            "head": {"kind": "sampled_softmax", "samples": 8192},
        }
    )
    assert evaluation_cost(elmo, 793_471) == pytest.approx(894 / 90 / 3, rel=0.1)
    few = ModelConfig.model_validate({"head": {"kind": "sampled_softmax", "samples": 100}})
    assert evaluation_cost(few, 101) == pytest.approx(1 / 3)


def test_a_sample_survives_a_checkpoint() -> None:
    sample = HeldOutSample(5, 1000, 7)
    assert HeldOutSample.of_checkpoint(sample.state()) == sample
