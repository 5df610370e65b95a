"""The evaluation of the whole held-out split at the end of a training that reads a sample of it."""

from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.validation.final import FinalEvaluation
from lightning_modules.training.validation.sample import HeldOutSample

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"
)

Tiny = Any  # of conftest.py


class Stop(pl.Callback):
    """Ends a training at its last step, as `Metrics` does."""

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        trainer.should_stop = trainer.global_step == 4


class Logged(CSVLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.rows: list[tuple[int | None, dict[str, Any]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def save(self) -> None: ...


def fit(
    tiny: Tiny, sample: HeldOutSample | None, **train: Any
) -> tuple[LitBiLM, list[dict[str, Any]], Logged]:
    settings = TrainConfig.model_validate(
        {"rows": 4, "unroll": 5, "compile": "off", "warmup_steps": 0} | train
    )
    data = TokenShardDataModule(str(tiny.root / "prepare"), settings, sample=sample)
    model = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}
    made = LitBiLM.for_corpus(data.corpus, model, settings)
    put: list[dict[str, Any]] = []
    logged = Logged()
    trainer = pl.Trainer(
        accelerator="cpu", logger=logged, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, max_steps=4, val_check_interval=2,
        check_val_every_n_epoch=None, callbacks=[Stop(), FinalEvaluation(put.append)],
    )  # fmt: skip
    trainer.fit(made, data)
    return made, put, logged


@pytest.mark.parametrize("reset_state", [0, 1])
def test_the_whole_split_is_evaluated_once_at_the_end(
    tiny: Tiny, reset_state: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = HeldOutSample(rows=3, tokens=300)
    settings: dict[str, Any] = {"reset_state": reset_state}
    if reset_state:
        # From the first validation on, the weights are averaged, and their average is validated.
        monkeypatch.setattr("lightning_modules.training.evaluated_bilm.averages", lambda *_: True)
        settings |= {"optimizer": {"kind": "sgd", "average_after": 1}, "learning_rate": 1.0}
    made, put, logged = fit(tiny, sample, **settings)

    data = TokenShardDataModule(str(tiny.root / "prepare"), made.train_config)
    assert made.is_averaging is bool(reset_state)
    [row] = put
    assert row["step"] == 4
    assert row["whole_tokens"] == data.held_out.tokens
    assert 0 < made.held_out["tokens"] <= 300, "the sample chooses the best step"
    assert row["whole_bits_per_byte"] > 0
    assert (3, {k: v for k, v in row.items() if k != "step"}) in logged.rows
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.validate(made, data, verbose=False)
    assert row["whole_loss"] == made.held_out["loss"]


def test_nothing_is_added_if_validations_read_the_whole_split(tiny: Tiny) -> None:
    made, put, _ = fit(tiny, None)
    assert put == []
    assert (
        made.held_out["tokens"]
        == TokenShardDataModule(str(tiny.root / "prepare"), made.train_config).held_out.tokens
    )


def test_the_sample_is_the_same_at_each_validation(tiny: Tiny) -> None:
    """A network that does not learn has the same loss to the bit."""
    losses: list[float] = []
    record = LitBiLM.record_held_out_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            LitBiLM,
            "record_held_out_loss",
            lambda made, loss: (losses.append(loss), record(made, loss)),
        )
        fit(tiny, HeldOutSample(rows=3, tokens=300), learning_rate=1e-30)
    assert len(losses) == 2
    assert losses[0] == losses[1]
