"""Metrics and the progress bar of a running training."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import pytorch_lightning as pl

from lightning_modules.evaluation.held_out import perplexity
from lightning_modules.nn.heads.sampled_softmax import SampledSoftmax
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.metrics_file import MetricsFile, Row


class ProgressBar(Protocol):
    """A progress bar counted in optimiser steps."""

    def update(self, done: float, note: str = "", figures: Row | None = None) -> None:
        """Set the bar to ``done`` steps and show ``note`` beside it; ``figures`` are for logs."""


class Compute(NamedTuple):
    """Terms of the model FLOPs utilisation (MFU).

    Attributes:
        flops_per_token: FLOPs of the model per token, forward and backward.
        peak_flops: FLOP/s that all devices together can reach.
    """

    flops_per_token: float
    peak_flops: float


class Metrics(pl.Callback):
    """Write metrics to ``metrics.jsonl`` and the progress bar, and log the speed.

    A line with training metrics is written every ``log_every_n_steps`` steps of the Trainer, and one
    with held-out figures after each validation; both also after the last step. All ranks take part,
    because losses are averaged over them; rank 0 writes. A resumed training keeps the lines up to its
    first step.

    Args:
        path: path of ``metrics.jsonl``.
        bar: the progress bar.
        compute: terms of the MFU.
        watch: called on rank 0 with each row of ``metrics.jsonl``.
    """

    def __init__(
        self,
        path: str,
        bar: ProgressBar,
        compute: Compute,
        watch: Callable[[Row], None] = lambda _: None,
    ) -> None:
        self._path, self._bar, self._compute, self._watch = path, bar, compute, watch
        self._file: MetricsFile | None = None
        self._held_out, self._latest = "", dict[str, Any]()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        if trainer.is_global_zero:
            self._file = MetricsFile(self._path, module.step)
        self._bar.update(module.step)
        self._began = self._logged = time.monotonic()
        self._first_step = self._logged_step = module.step
        self._paused, self._waited = 0.0, _waited(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any
    ) -> None:
        assert isinstance(module, LitBiLM)
        if not module.figures.is_between_steps:
            return
        last = module.step == trainer.max_steps
        if module.step % trainer.log_every_n_steps == 0 or last:  # type: ignore[attr-defined]
            self._log(trainer, module)
        if last:
            # Then Lightning validates once more. A longer training has no validation at this step,
            # unless it is due.
            trainer.should_stop = True
            due = module.step % module.train_config.evaluate_steps == 0
            module.validation_counts = due

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._validation_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        figures = module.held_out
        row = {f"valid_{name}": value for name, value in figures.items()}
        self.put({"step": module.step, **row, "averaged": module.is_averaging})
        shown = figures["average_perplexity"] or figures["forward_perplexity"]
        self._held_out = f" (held-out {shown:,.1f})"
        now = time.monotonic()
        self._paused += now - self._validation_began
        self._logged, self._logged_step, self._waited = now, module.step, _waited(trainer)

    def on_train_end(self, *arguments: Any) -> None:
        self.save()

    def on_exception(self, *arguments: Any) -> None:
        self.save()

    def save(self) -> None:
        """Make all lines durable; must precede a checkpoint, so that no line up to its step is lost."""
        if self._file:
            self._file.save()

    def _log(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        now, step, tokens = time.monotonic(), module.step, module.train_config.tokens_a_step
        seconds = max(now - self._logged, 1e-9)
        speed = (step - self._logged_step) * tokens / seconds
        waited = _waited(trainer)
        speeds = {
            "tokens_per_second": round(speed, 1),
            "mfu": round(speed * self._compute.flops_per_token / self._compute.peak_flops, 4),
            "data_wait": round((waited - self._waited) / seconds, 4),
        }
        module.log_dict(speeds)
        figures = module.figures.to_log()
        loss = figures["train_loss"]
        self.put({"step": step, **figures, **speeds})
        self._logged, self._logged_step, self._waited = now, step, waited
        mean = (step - self._first_step) * tokens / max(now - self._began - self._paused, 1e-9)
        # A sampled softmax loss is not comparable with the perplexity over the full vocabulary.
        sampled = "sampled " if isinstance(module.network.head, SampledSoftmax) else ""
        note = f"{mean:,.0f} tokens/s  {sampled}perplexity {perplexity(loss):,.1f}{self._held_out}"
        self._bar.update(step, note, {**self._latest, "tokens": step * tokens})

    def put(self, row: dict[str, Any]) -> None:
        """Write a row with the step under "step"; does nothing on other ranks than 0."""
        if self._file is not None:
            self._file.put(row)
            self._watch(row)
            self._latest |= row


def _waited(trainer: pl.Trainer) -> float:
    """Return how long training has waited for batches, in seconds."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, TokenShardDataModule)
    return data.loader.waited if data.loader else 0.0
