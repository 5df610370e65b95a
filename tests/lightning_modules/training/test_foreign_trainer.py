"""The module in any Trainer: former checkpoints, the learning rate finder, figures of each step."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BaseFinetuning, EarlyStopping

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.trainer_settings import check_settings, check_trainer
from preprocess.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
]

Tiny = Any  # of conftest.py
FORMER = Path(__file__).parents[2] / "fixtures/version-0.1"
FORMER /= "killed-train/train/_work/step-000000010.ckpt"
MODEL = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}
SETTINGS: dict[str, Any] = {"rows": 4, "unroll": 5, "compile": "off", "warmup_steps": 0}


def made(tiny: Tiny, **train: Any) -> tuple[LitBiLM, TokenShardDataModule]:
    corpus = str(tiny.root / "prepare")
    return (
        LitBiLM.for_corpus(corpus, MODEL, SETTINGS | train),
        TokenShardDataModule(corpus, SETTINGS | train),
    )


def trainer(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, callbacks=list(callbacks), **options,
    )  # fmt: skip


def test_a_training_metric_is_that_of_the_logged_step(tiny: Tiny) -> None:
    class Seen(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *arguments: Any) -> None:
            losses.append(float(trainer.callback_metrics["train_loss"]))
            assert losses[-1] == pytest.approx(float(module.figures.losses.mean()), rel=1e-5)

    losses: list[float] = []
    fitted = trainer(Seen(), max_steps=6, limit_train_batches=3, log_every_n_steps=1)
    fitted.fit(*made(tiny))

    assert len(losses) == len(set(losses)) == fitted.global_step == 6


def test_a_training_metric_is_known_at_the_end_of_a_short_epoch(tiny: Tiny) -> None:
    stop = EarlyStopping("train_loss", min_delta=10, patience=1, check_on_train_epoch_end=True)
    fitted = trainer(stop, max_epochs=9, limit_train_batches=3)
    fitted.fit(*made(tiny))

    assert fitted.global_step == 6


@pytest.mark.filterwarnings("ignore:You are trying to .self.log:UserWarning")
def test_a_trainer_without_any_extras_trains(tiny: Tiny) -> None:
    module, data = made(tiny)
    pl.Trainer(accelerator="cpu", barebones=True, max_steps=3).fit(module, data)
    assert module.step == 3


def test_a_callback_may_freeze_the_input_and_add_it_later(tiny: Tiny) -> None:
    class Freeze(BaseFinetuning):
        def freeze_before_training(self, module: Any) -> None:
            self.freeze(module.network.input)

        def finetune_function(self, module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(module.network.input, optimizer)

    module, data = made(tiny, schedule={"kind": "constant"})
    fitted = trainer(Freeze(), max_epochs=2, limit_train_batches=2)
    fitted.fit(module, data)

    rates = [group["lr"] for group in fitted.optimizers[0].param_groups]
    assert rates == pytest.approx([1e-3, 1e-4])


def test_a_subclass_may_have_other_weights(tiny: Tiny, tmp_path: Path) -> None:
    class More(LitBiLM):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.more = torch.nn.Linear(2, 2)

    module, data = made(tiny)
    more = More(module.model_config, module.train_config, module.hparams["vocabulary"],
                module.hparams["cutoffs"])  # fmt: skip
    fitted = trainer(max_steps=2)
    fitted.fit(more, data)
    fitted.save_checkpoint(tmp_path / "more.ckpt")
    assert More.load_from_checkpoint(tmp_path / "more.ckpt").step == 2


def test_the_learning_rate_is_a_property_that_the_finder_can_set(tiny: Tiny) -> None:
    module, _ = made(tiny)
    module.learning_rate = 0.25
    assert module.train_config.learning_rate == module.learning_rate == 0.25
    assert module.hparams["train"]["learning_rate"] == 0.25


def test_a_checkpoint_of_version_01_is_not_loaded_without_its_settings() -> None:
    with pytest.raises(UserError, match=r"ckpt was written by biloom 0\.1 and has no hyperparam"):
        LitBiLM.load_from_checkpoint(FORMER)


def test_a_trainer_resumes_from_a_checkpoint_of_version_01(tiny: Tiny) -> None:
    module = LitBiLM(MODEL, SETTINGS, 320)
    fitted = trainer(max_steps=10)  # has been reached
    fitted.fit(module, TokenShardDataModule(str(tiny.root / "prepare"), SETTINGS), ckpt_path=FORMER)
    assert module.step == module.windows == fitted.global_step == 10


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"patience": 3}, r"use the callback EarlyStopping\('valid_loss', patience=3\)"),
        ({"init_from": "a"}, r"use LitBiLM\.load_from_checkpoint"),
    ],
)
def test_a_setting_of_biloom_train_is_refused_with_what_to_use(
    setting: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        check_settings(TrainConfig.model_validate(setting))


def test_batches_of_another_source_are_refused(tiny: Tiny) -> None:
    module, _ = made(tiny)
    with pytest.raises(
        UserError, match=r"^the batch has the type int; .* TokenShardDataModule, so pass one"
    ):
        trainer(max_steps=1).fit(module, [1, 2, 3])


def test_a_schedule_by_held_out_loss_needs_validations() -> None:
    train = TrainConfig.model_validate({"schedule": {"kind": "plateau"}})
    with pytest.raises(UserError, match=r"^train\.schedule\.kind=plateau needs validations, but"):
        check_trainer(trainer(limit_val_batches=0), train)


def test_a_data_module_is_pickled_without_its_trainer(tiny: Tiny) -> None:
    module, data = made(tiny)
    trainer(max_steps=1).fit(module, data)
    state = data.__getstate__()
    assert state["trainer"] is state["loader"] is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
def test_a_compiled_module_trains_like_the_module_itself(tiny: Tiny) -> None:
    module, data = made(tiny)
    with pytest.warns(UserWarning, match=r"torch\.compile\(LitBiLM\) has no effect"):
        trainer(max_steps=2).fit(torch.compile(module), data)  # type: ignore[arg-type]
    assert module.step == 2
