"""The example of a Trainer of one's own, and Lightning's everyday callbacks."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from pytorch_lightning.loggers import CSVLogger

from biloom import LitBiLM, TokenShardDataModule, TrainConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
]

Tiny = Any  # of conftest.py
ROOT = Path(__file__).parents[2]
MODEL = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}


def settings(**train: Any) -> TrainConfig:
    small = {"rows": 4, "unroll": 5, "compile": "off", "warmup_steps": 0}
    return TrainConfig.model_validate(small | train)


def made(tiny: Tiny, train: TrainConfig) -> tuple[LitBiLM, TokenShardDataModule]:
    corpus = str(tiny.root / "prepare")
    return LitBiLM.for_corpus(corpus, MODEL, train), TokenShardDataModule(corpus, train)


def test_the_example_runs(tiny: Tiny, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/own_trainer.py", tiny.root / "prepare", "8"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line.split(":")[0] for line in printed if line.startswith("step")] == [
        "step 0", "step 2", "step 4", "step 6", "step 8",
    ]  # fmt: skip
    best = tmp_path / printed[-1].removeprefix("best: ")
    assert LitBiLM.load_from_checkpoint(best).step in (2, 4, 6, 8)
    assert (tmp_path / "checkpoints/last.ckpt").exists()
    assert list(tmp_path.glob("logs/*/*/metrics.csv"))


def test_everyday_callbacks_and_ours_work_together(tiny: Tiny, tmp_path: Path) -> None:
    class Ours(callbacks.Callback):
        def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
            seen.append(trainer.global_step)

    seen: list[int] = []
    by_metric = callbacks.ModelCheckpoint(
        tmp_path / "best", monitor="valid_average_perplexity", save_top_k=1
    )
    by_step = callbacks.ModelCheckpoint(tmp_path / "steps", every_n_train_steps=3, save_top_k=-1)
    logger = CSVLogger(tmp_path)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=8, val_check_interval=4, check_val_every_n_epoch=None,
        log_every_n_steps=2, logger=logger, enable_progress_bar=True, profiler="simple",
        callbacks=[
            by_metric, by_step, callbacks.EarlyStopping("valid_loss", patience=9),
            callbacks.LearningRateMonitor("step"), callbacks.Timer("00:01:00:00"),
            callbacks.RichProgressBar(), Ours(),
        ],
    )  # fmt: skip
    module, data = made(tiny, settings(steps=8))
    trainer.fit(module, data)

    assert seen == list(range(1, 9))
    assert trainer.global_step == module.step == 8
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == [
        "epoch=0-step=3.ckpt",
        "epoch=0-step=6.ckpt",
    ]
    assert Path(by_metric.best_model_path).name == "epoch=0-step=8.ckpt"
    logger.save()
    [path] = tmp_path.glob("lightning_logs/*/metrics.csv")
    heads = path.read_text().splitlines()[0].split(",")
    assert {"train_loss", "loss_forward", "gradient_norm", "valid_loss", "lr-Adam"} <= set(heads)


def test_a_metric_that_nothing_logs_is_refused_by_lightning(tiny: Tiny) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=2, val_check_interval=1, check_val_every_n_epoch=None,
        logger=False, enable_progress_bar=False, enable_checkpointing=False,
        callbacks=[callbacks.EarlyStopping("valid_los")],
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"valid_los` which is not available.*`valid_loss`"):
        trainer.fit(*made(tiny, settings()))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks:UserWarning")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trainer_resumes_to_the_same_bits(tiny: Tiny, tmp_path: Path, accumulate: int) -> None:
    def fit(steps: int, resume: Path | None, *others: Any) -> LitBiLM:
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=steps, limit_train_batches=20, max_epochs=-1,
            logger=False, enable_progress_bar=False, enable_checkpointing=bool(others),
            callbacks=list(others), accumulate_grad_batches=accumulate,
        )  # fmt: skip
        module, data = made(tiny, settings(reset_state=0.5))
        trainer.fit(module, data, ckpt_path=resume)
        return module

    saved = callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=13, save_top_k=-1)
    whole = fit(26, None, saved)
    resumed = fit(26, next(tmp_path.glob("*step=13.ckpt")))

    assert resumed.windows == whole.windows == 26 * accumulate
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    ours, theirs = resumed.carried_state, whole.carried_state
    assert torch.equal(ours.of_all_rows(), theirs.of_all_rows())


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch:UserWarning")
def test_the_weights_are_averaged_by_a_callback_of_lightning(tiny: Tiny) -> None:
    average = callbacks.StochasticWeightAveraging(1e-3, swa_epoch_start=1, annealing_epochs=1)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, limit_train_batches=4, limit_val_batches=0, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, callbacks=[average],
    )  # fmt: skip
    module, data = made(tiny, settings())
    trainer.fit(module, data)

    assert module.step == 12
    assert all(weight.isfinite().all() for weight in module.network.parameters())
