"""The data module of a token corpus in a Trainer of its own."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision, Precision

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.datamodule import TokenShardDataModule, training_stream
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.validation.sample import HeldOutSample
from lightning_modules.training.window_loader import Batch
from preprocess.errors import UserError
from preprocess.shards.format import Corpus

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
]

Tiny = Any  # of conftest.py
ROWS = 4
MODEL = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}


def settings(**train: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"rows": ROWS, "unroll": 5, "compile": "off", "warmup_steps": 0} | train
    )


class Seen(pl.Callback):
    """Keeps the number of each batch."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def on_train_batch_start(self, trainer: Any, made: Any, batch: Batch, number: int) -> None:
        self.numbers.append(batch.step)


def fit(tiny: Tiny, train: TrainConfig, **options: Any) -> tuple[LitBiLM, list[int], pl.Trainer]:
    resume = options.pop("resume", None)
    data = TokenShardDataModule(str(tiny.root / "prepare"), train)
    made = LitBiLM.for_corpus(data.corpus, MODEL, train)
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[seen], **options,
    )  # fmt: skip
    trainer.fit(made, data, ckpt_path=resume)
    return made, seen.numbers, trainer


def test_an_epoch_is_a_pass_and_the_next_one_goes_on_with_the_text(tiny: Tiny) -> None:
    made, numbers, trainer = fit(tiny, settings(unroll=50), max_epochs=2, limit_val_batches=0)
    corpus = Corpus.open(str(tiny.root / "prepare"))
    positions = corpus.totals("train")["tokens"] + corpus.totals("train")["documents"]

    assert numbers == list(range(2 * (positions // ROWS // 50)))
    assert trainer.current_epoch == 2
    assert trainer.global_step == made.step == made.windows == len(numbers)


def test_a_limited_epoch_goes_on_where_the_last_one_ended(tiny: Tiny) -> None:
    _, numbers, _ = fit(tiny, settings(), max_epochs=2, limit_train_batches=3, limit_val_batches=0)

    assert numbers == list(range(6))


def test_overfit_batches_are_the_same_in_each_epoch(tiny: Tiny) -> None:
    _, numbers, _ = fit(tiny, settings(), max_epochs=2, overfit_batches=3)

    assert numbers == [0, 1, 2] * 2


def test_an_epoch_has_whole_steps(tiny: Tiny) -> None:
    made, numbers, _ = fit(
        tiny, settings(unroll=50), max_epochs=1, accumulate_grad_batches=4, limit_val_batches=0
    )

    assert len(numbers) % 4 == 0
    assert made.step == len(numbers) // 4


def test_a_corpus_smaller_than_a_window_is_repeated(tiny: Tiny) -> None:
    made, numbers, _ = fit(tiny, settings(unroll=5000), max_epochs=2, limit_val_batches=0)

    assert numbers == [0, 1]
    assert made.figures.losses.isfinite().all()


@pytest.mark.parametrize("reset_state", [0, 1])
def test_the_held_out_split_is_evaluated_as_texts_are_read(tiny: Tiny, reset_state: int) -> None:
    train = settings(reset_state=reset_state)
    made, _, trainer = fit(
        tiny, train, max_steps=4, val_check_interval=4, check_val_every_n_epoch=None
    )
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert figures["valid_average_perplexity"] == pytest.approx(
        figures["valid_loss"] and torch.tensor(figures["valid_loss"]).exp().item(), rel=1e-4
    )
    assert figures["valid_bits_per_byte"] > 0

    data = TokenShardDataModule(str(tiny.root / "prepare"), train)
    data.trainer = trainer
    loader = data.val_dataloader()
    assert not isinstance(loader, list)
    assert (next(iter(loader)).window.resets is not None) is bool(reset_state)
    assert made.held_out["loss"] == pytest.approx(figures["valid_loss"], rel=1e-6)


def test_a_validation_reads_the_whole_split_or_the_batches_that_a_trainer_allows(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.training.validation.loader.UNROLL", 2)
    found = {}
    for limit in (1.0, 0.5, 3):
        options = {"val_check_interval": 2, "check_val_every_n_epoch": None}
        # An interval as short as this has a sample in `biloom train`.
        _, _, trainer = fit(
            tiny, settings(evaluate_steps=1), max_steps=2, limit_val_batches=limit, **options
        )
        found[limit] = float(trainer.callback_metrics["valid_tokens"])
        assert trainer.callback_metrics["valid_bits_per_byte"] > 0
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert data.sample.tokens is None
    rows = data.sample.rows
    assert found[1.0] == data.held_out.tokens
    assert 0.4 < found[0.5] / found[1.0] < 0.7
    assert found[3] == 3 * 2 * min(rows, 32)


PRECISIONS = {
    "32-true": Precision(),
    "bf16-mixed": MixedPrecision("bf16-mixed", "cpu"),
    "16-mixed": MixedPrecision("16-mixed", "cpu"),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_validation_has_the_precision_of_training(tiny: Tiny, precision: str) -> None:
    """The products of a validation have the type of those of training; the loss is in float32."""
    dtypes: list[tuple[torch.dtype, torch.dtype]] = []

    class Watched(LitBiLM):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            super().validation_step(batch, batch_idx)
            assert self._tally is not None
            dtypes.append((product.dtype, self._held_out_state.dtype))

    train = settings()
    data = TokenShardDataModule(str(tiny.root / "prepare"), train)
    made = Watched.for_corpus(data.corpus, MODEL, train)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, plugins=[PRECISIONS[precision]], max_steps=1,
        val_check_interval=1, check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.fit(made, data)
    matmul = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    assert set(dtypes) == {(matmul[precision], torch.float32)}
    exact = LitBiLM.for_corpus(data.corpus, MODEL, train)
    exact.load_state_dict(made.state_dict())
    loss = made.held_out["loss"]
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.validate(exact, data, verbose=False)
    assert loss == pytest.approx(exact.held_out["loss"], rel=0.01)
    assert (loss == exact.held_out["loss"]) is (precision == "32-true")


def test_a_resumed_training_reads_the_sample_of_its_checkpoint(tiny: Tiny) -> None:
    corpus, train = str(tiny.root / "prepare"), settings()
    sample = HeldOutSample(rows=3, tokens=90)
    saved = TokenShardDataModule(corpus, train, sample=sample).state_dict()
    other = TokenShardDataModule(corpus, train)
    assert other.sample != sample
    other.load_state_dict(saved)
    assert other.sample == sample
    del saved["sample"]
    other.load_state_dict(saved)
    assert other.sample == HeldOutSample(rows=16, warm_up=0), "as in earlier versions"


def test_a_checkpoint_of_another_corpus_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    train = settings()
    _, _, trainer = fit(tiny, train, max_steps=1, limit_val_batches=0)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    saved["TokenShardDataModule"]["corpus"] = "another"
    torch.save(saved, tmp_path / "other.ckpt")

    with pytest.raises(
        UserError, match=r"^the checkpoint was trained on another corpus than .*/prepare; to train"
    ):
        fit(tiny, train, max_steps=2, limit_val_batches=0, resume=tmp_path / "other.ckpt")


def test_a_module_without_a_network_is_refused(tiny: Tiny) -> None:
    class Other(pl.LightningModule):
        def training_step(self, batch: Any, number: int) -> None: ...

        def validation_step(self, batch: Any, number: int) -> None: ...

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)

    data = TokenShardDataModule(str(tiny.root / "prepare"), settings())
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        max_steps=1,
        limit_val_batches=0,
        enable_checkpointing=False,
    )
    with pytest.raises(UserError, match=r"^TokenShardDataModule makes batches for a LitBiLM, or"):
        trainer.fit(Other(), data)


def test_a_character_model_needs_the_tokenizer_of_the_corpus(tiny: Tiny, tmp_path: Path) -> None:
    model = {**MODEL, "input": {"kind": "char_cnn", "filters": [[1, 4], [2, 4]]}}
    train = settings()
    data = TokenShardDataModule(str(tiny.root / "prepare"), train)
    made = LitBiLM.for_corpus(data.corpus, model, train)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, max_steps=1, enable_checkpointing=False,
        enable_progress_bar=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(made, data)
    assert made.step == 1

    lost = TokenShardDataModule(str(tiny.root / "prepare"), train, str(tmp_path))
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        trainer.fit(LitBiLM.for_corpus(data.corpus, model, train), lost)


def test_the_stream_repeats_each_source_according_to_its_share(tiny: Tiny) -> None:
    train = TrainConfig(rows=3, unroll=5, steps=8, order="shuffled")
    corpus = Corpus.open(str(tiny.root / "prepare"))
    once = corpus.totals("train")["tokens"] + corpus.totals("train")["documents"]
    [name] = {shard.source for shard in corpus.shards("train")}

    def with_rows(*rows: dict[str, Any]) -> Corpus:
        details = {**corpus.manifest.details, "sources": rows}
        return replace(corpus, manifest=replace(corpus.manifest, details=details))

    stream = training_stream(with_rows({"name": name}), train)
    assert stream.lengths(0, 3).tolist() == [once] * 3, "a manifest of a version without shares"
    for others in ([], [{"name": "held out", "share": 0.0}]):
        stream = training_stream(with_rows({"name": name, "share": 1.0}, *others), train)
        assert stream.lengths(0, 3).tolist() == [once] * 3
    other = with_rows({"name": name, "share": 0.5}, {"name": "lost", "share": 0.5})
    assert len(training_stream(other, train)) == round(once / 2)
