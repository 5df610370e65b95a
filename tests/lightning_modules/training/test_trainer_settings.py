"""Settings of a Trainer that contradict those of a training."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.trainer_settings import (
    check_settings,
    check_trainer,
    clip_norm,
    hyperparameters,
    last_step,
)
from preprocess.errors import UserError


def trainer(**options: Any) -> pl.Trainer:
    return pl.Trainer(
        **{"accelerator": "cpu", "logger": False, "enable_checkpointing": False} | options
    )


@pytest.mark.parametrize(
    ("options", "train", "message"),
    [
        (
            {"precision": "bf16-true"},
            {},
            r"^Trainer\(precision='bf16-true'\) is not supported, because .*; use one of '32-true', ",
        ),
        (
            {},
            {"precision": "bf16"},
            r"^train\.precision is bf16, but the Trainer's is '32-true'; use "
            r"Trainer\(precision='bf16-mixed'\), or leave train\.precision at auto$",
        ),
        (
            {},
            {"precision": "float16"},
            r"^train\.precision is float16, but the Trainer's is '32-true'; use "
            r"Trainer\(precision='16-mixed'\), or leave train\.precision at auto$",
        ),
        (
            {},
            {"precision": "tf32"},
            r"^train\.precision is tf32, but torch computes float32 matrix products exactly; call "
            r"torch\.set_float32_matmul_precision\('high'\) first, or leave",
        ),
        (
            {"accumulate_grad_batches": 3},
            {"accumulate_steps": 2},
            r"^train\.accumulate_steps is 2, but the Trainer accumulates 3; use "
            r"Trainer\(accumulate_grad_batches=2\)$",
        ),
        (
            {},
            {"accumulate_steps": 2},
            r"^train\.accumulate_steps is 2, but the Trainer accumulates 1; use "
            r"Trainer\(accumulate_grad_batches=2\)$",
        ),
        (
            {"gradient_clip_val": 5.0},
            {"clip_norm": 2.0},
            r"^train\.clip_norm is 2, but the Trainer clips at 5; remove gradient_clip_val from",
        ),
        (
            {},
            {"device": "cuda"},
            r"^train\.device is cuda, but the Trainer uses cpu; use Trainer\(accelerator='gpu'\), or",
        ),
        (
            {},
            {"devices": 2},
            r"^train\.devices and train\.num_nodes are 2 and 1, but the Trainer has 1 and 1; use ",
        ),
    ],
)
def test_a_contradiction_names_the_argument_to_use(
    options: dict[str, Any], train: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_trainer(trainer(**options), TrainConfig.model_validate(train))


@pytest.mark.parametrize(
    ("options", "train"),
    [
        ({}, {}),
        ({"precision": "bf16-mixed"}, {}),
        ({"precision": "bf16-mixed"}, {"precision": "bf16"}),
        ({"accumulate_grad_batches": 4}, {}),
        ({"accumulate_grad_batches": 2}, {"accumulate_steps": 2}),
        ({"gradient_clip_val": 5.0}, {}),
        ({"gradient_clip_val": 5.0}, {"clip_norm": None}),
        ({"gradient_clip_val": 5.0, "gradient_clip_algorithm": "value"}, {"clip_norm": 2.0}),
        ({}, {"device": "cpu", "devices": 1}),
    ],
)
def test_settings_that_agree_or_have_their_defaults_are_accepted(
    options: dict[str, Any], train: dict[str, Any]
) -> None:
    check_trainer(trainer(**options), TrainConfig.model_validate(train))


def test_gradients_are_clipped_as_the_trainer_says_if_it_does() -> None:
    train = TrainConfig(clip_norm=2.0)

    assert clip_norm(trainer(), train) == 2.0
    assert clip_norm(trainer(gradient_clip_val=2), train) == 2
    assert clip_norm(trainer(gradient_clip_val=5.0), TrainConfig(clip_norm=None)) == 5.0


def test_the_schedule_ends_where_the_settings_say() -> None:
    assert last_step(trainer(max_steps=7), TrainConfig(steps=50)) == 50


@pytest.mark.parametrize("train", [{"passes": 2}, {"recipe": "auto"}])
def test_settings_that_follow_from_the_corpus_are_refused(train: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"^train\.passes and train\.recipe are settings of `biloom train`; with a"
    ):
        check_settings(TrainConfig.model_validate(train))


def test_tf32_is_accepted_once_torch_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    check_trainer(trainer(), TrainConfig(precision="tf32"))


def test_the_type_that_gradients_are_reduced_in_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"^train\.reduce_gradients=bf16 is a setting of `biloom train`; with a Trainer of your own, "
        r"use Trainer\(strategy=DDPStrategy\(ddp_comm_hook=bf16_compress_hook\)\)$",
    ):
        check_settings(TrainConfig(reduce_gradients="bf16"))


def test_hyperparameters_are_the_settings_that_change_the_result() -> None:
    one = TrainConfig(rows=8, devices=2, log_steps=1, corpus="here", optimizer={"kind": "sgd"})
    other = TrainConfig(rows=8, corpus="there", optimizer={"kind": "sgd"})

    assert hyperparameters(one) == hyperparameters(other)
    assert TrainConfig.model_validate(hyperparameters(one)).optimizer == one.optimizer
