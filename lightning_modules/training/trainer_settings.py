"""Settings that a Trainer and a training both have: which of them apply, and contradictions."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.ranks.distribution import Share
from preprocess.errors import UserError
from preprocess.section import changes_result
from preprocess.shards.format import Corpus

PRECISIONS = {
    "float32": "32-true",
    "tf32": "32-true",
    "bf16": "bf16-mixed",
    "float16": "16-mixed",
}
"""Lightning's precision for each value of ``train.precision`` except auto."""


NO_TEACHER = "train.teacher is not set; name the model folder of a teacher in train.teacher.model, or use LitBiLM"


def arguments_of(
    corpus: str | Corpus,
    model: ModelConfig | Mapping[str, Any],
    train: TrainConfig | Mapping[str, Any],
    student: bool = False,
) -> tuple[Corpus, ModelConfig, TrainConfig]:
    """Return the arguments of `LitBiLM.for_corpus` or `LitStudent.for_corpus`, checked and opened.

    Raises:
        UserError: as `check_settings`; or a student has no teacher, or the corpus cannot be opened.
    """
    model, train = ModelConfig.model_validate(model), TrainConfig.model_validate(train)
    check_settings(train)
    if student:
        if train.teacher is None:
            raise UserError(NO_TEACHER)
    else:
        check_no_teacher(train)
    if isinstance(corpus, str):
        corpus = Corpus.open(corpus, train.cache_bytes)
    return corpus, model, train


def check_no_teacher(train: TrainConfig) -> None:
    """Raise UserError if `LitBiLM` would ignore a teacher."""
    if train.teacher is not None:
        raise UserError(
            "train.teacher has no effect in LitBiLM; make the module with LitStudent.for_corpus(...)"
        )


def check_settings(train: TrainConfig) -> None:
    """Refuse settings that only `biloom train` can apply.

    Raises:
        UserError: if the length or the size of the model is to follow from the corpus, the training is to
            start from other weights or to end early, or gradients are to be reduced in 16 bits.
    """
    if train.patience is not None:
        raise UserError(
            "train.patience is a setting of `biloom train`; with a Trainer of your own, use the callback "
            f"EarlyStopping('valid_loss', patience={train.patience})"
        )
    if train.init_from is not None:
        raise UserError(
            "train.init_from is a setting of `biloom train`; with a Trainer of your own, use "
            "LitBiLM.load_from_checkpoint(...) in place of LitBiLM.for_corpus(...)"
        )
    if train.reduce_gradients != "float32":
        raise UserError(
            f"train.reduce_gradients={train.reduce_gradients} is a setting of `biloom train`; with a Trainer of "
            "your own, use Trainer(strategy=DDPStrategy(ddp_comm_hook=bf16_compress_hook))"
        )
    if train.passes is not None or train.recipe is not None:
        raise UserError(
            "train.passes and train.recipe are settings of `biloom train`; with a Trainer of your own, use "
            "Trainer(max_epochs=...) and set the sizes of the model"
        )


def hyperparameters(train: TrainConfig) -> dict[str, Any]:
    """Return the settings that change the result, as JSON values.

    Paths, devices and intervals are left out, so that a checkpoint is the same on any machine.
    """
    values = train.model_dump(mode="json", exclude={"teacher": {"model"}})
    return {name: values[name] for name in values if changes_result(TrainConfig, name)}


def check_trainer(trainer: pl.Trainer, train: TrainConfig) -> None:
    """Compare the settings of a Trainer with those of the training.

    A setting of the training that has its default value yields to that of the Trainer.

    Raises:
        UserError: if they contradict one another. The message names the argument to use.
    """
    default = TrainConfig.model_construct()
    precision, accumulated = trainer.precision, trainer.accumulate_grad_batches
    if precision not in PRECISIONS.values():
        raise UserError(
            f"Trainer(precision='{precision}') is not supported, because the weights and the recurrent "
            f"state must be float32; use one of {', '.join(map(repr, dict.fromkeys(PRECISIONS.values())))}"
        )
    wanted = PRECISIONS.get(train.precision, precision)
    if precision != wanted:
        raise UserError(
            f"train.precision is {train.precision}, but the Trainer's is '{precision}'; use "
            f"Trainer(precision='{wanted}'), or leave train.precision at auto"
        )
    if train.precision == "tf32" and torch.get_float32_matmul_precision() == "highest":
        raise UserError(
            "train.precision is tf32, but torch computes float32 matrix products exactly; call "
            "torch.set_float32_matmul_precision('high') first, or leave train.precision at auto"
        )
    if train.accumulate_steps not in (default.accumulate_steps, accumulated):
        raise UserError(
            f"train.accumulate_steps is {train.accumulate_steps}, but the Trainer accumulates "
            f"{accumulated}; use Trainer(accumulate_grad_batches={train.accumulate_steps})"
        )
    value, is_norm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm != "value"
    if value is not None and is_norm and train.clip_norm not in (None, default.clip_norm, value):
        raise UserError(
            f"train.clip_norm is {train.clip_norm:g}, but the Trainer clips at {value:g}; remove "
            "gradient_clip_val from the Trainer, or set it to the same value"
        )
    if train.depends_on_held_out_loss and not trainer.limit_val_batches:
        raise UserError(
            f"{' and '.join(train.held_out_settings)} needs validations, but the Trainer has "
            "limit_val_batches=0; remove it, or do not set this"
        )
    on_gpu = trainer.strategy.root_device.type == "cuda"
    if train.device != "auto" and on_gpu != (train.device == "cuda"):
        accelerator = "gpu" if train.device == "cuda" else "cpu"
        raise UserError(
            f"train.device is {train.device}, but the Trainer uses {trainer.strategy.root_device.type}; "
            f"use Trainer(accelerator='{accelerator}'), or leave train.device at auto"
        )
    started = trainer.world_size // trainer.num_nodes
    if train.devices not in (None, started) or train.num_nodes not in (1, trainer.num_nodes):
        raise UserError(
            f"train.devices and train.num_nodes are {train.devices} and {train.num_nodes}, but the "
            f"Trainer has {started} and {trainer.num_nodes}; use Trainer(devices={train.devices}, "
            f"num_nodes={train.num_nodes}), or leave both at their defaults"
        )


def share_of(trainer: pl.Trainer, train: TrainConfig) -> Share:
    """Return the rows of a batch that the rank of a Trainer trains on.

    Raises:
        UserError: if the rows cannot be divided evenly.
    """
    return Share(train.rows, trainer.global_rank, trainer.world_size, train.row_passes)


def clip_norm(trainer: pl.Trainer, train: TrainConfig) -> float | None:
    """Return the norm that gradients are clipped to; None means no clipping."""
    return train.clip_norm if trainer.gradient_clip_val is None else trainer.gradient_clip_val


def last_step(trainer: pl.Trainer, train: TrainConfig) -> int:
    """Return the number of steps at which the learning rate schedule ends.

    This is `TrainConfig.steps`; if it has its default value, the number of steps of the Trainer.
    """
    if train.steps != TrainConfig.model_construct().steps:
        return train.steps
    steps = trainer.estimated_stepping_batches
    return train.steps if math.isinf(steps) else int(steps)
