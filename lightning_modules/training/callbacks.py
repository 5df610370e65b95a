"""Metrics, held-out evaluation and the progress bar of a running training."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import pytorch_lightning as pl

from lightning_modules.evaluation.held_out import WAYS, perplexity
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.sampled_softmax import SampledSoftmax
from lightning_modules.training.best_checkpoint import BestCheckpoint
from lightning_modules.training.datamodule import StepLoader
from lightning_modules.training.distribution import mean_over_ranks
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.metrics_file import MetricsFile


class ProgressBar(Protocol):
    """A progress bar counted in optimiser steps."""

    def update(self, done: float, note: str = "") -> None:
        """Set the bar to ``done`` steps and show ``note`` beside it."""


class Compute(NamedTuple):
    """Terms of the model FLOPs utilisation (MFU).

    Attributes:
        flops_per_token: FLOPs of the model per token, forward and backward.
        peak_flops: FLOP/s that all devices together can reach.
    """

    flops_per_token: float
    peak_flops: float


class Metrics(pl.Callback):
    """Write metrics to ``metrics.jsonl``, the loggers and the progress bar.

    A line with training metrics is written every ``log_steps`` steps, and one with held-out figures
    every ``evaluate_steps`` steps; both also after the last step. All ranks take part, because losses
    are averaged over them; rank 0 writes. A resumed training keeps the lines up to its first step.

    Args:
        path: path of ``metrics.jsonl``.
        bar: the progress bar.
        loader: the loader of the batches, which measures how long training waits for data.
        compute: terms of the MFU.
        evaluate: returns figures of a network on the held-out split, among them "nats", the mean
            -log p per token. None means no held-out evaluation.
        best: keeps the weights of the best evaluation; None on ranks other than 0.
    """

    def __init__(
        self,
        path: str,
        bar: ProgressBar,
        loader: StepLoader,
        compute: Compute,
        evaluate: Callable[[BiLMNetwork], dict[str, Any]] | None,
        best: BestCheckpoint | None = None,
    ) -> None:
        self._path, self._bar, self._loader = path, bar, loader
        self._compute, self._evaluate_network = compute, evaluate
        self._best = best
        self._file: MetricsFile | None = None
        self._held_out = ""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        if trainer.is_global_zero:
            self._file = MetricsFile(self._path, module.step)
        self._bar.update(module.step)
        self._began = self._logged = time.monotonic()
        self._first_step = self._logged_step = module.step
        self._paused, self._waited = 0.0, self._loader.waited

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any
    ) -> None:
        assert isinstance(module, LitBiLM)
        train = module.train_config
        step, last = module.step, module.step == train.steps
        if step % train.log_steps == 0 or last:
            self._log(trainer, module)
        if self._evaluate_network and (step % train.evaluate_steps == 0 or last):
            began = time.monotonic()
            self._evaluate(trainer, module)
            self._paused += time.monotonic() - began
            self._logged, self._logged_step = time.monotonic(), step
            self._waited = self._loader.waited

    def on_train_end(self, *arguments: Any) -> None:
        self.save()

    def on_exception(self, *arguments: Any) -> None:
        self.save()

    def save(self) -> None:
        """Make all lines durable; must precede a checkpoint, so that no line up to its step is lost."""
        if self._file:
            self._file.save()

    def _log(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        losses = mean_over_ranks(module.losses).tolist()
        now, step, tokens = time.monotonic(), module.step, module.train_config.tokens_a_step
        seconds = max(now - self._logged, 1e-9)
        speed = (step - self._logged_step) * tokens / seconds
        row: dict[str, Any] = {"step": step}
        for name, loss in zip(WAYS, losses, strict=False):
            row |= {f"loss_{name}": loss, f"perplexity_{name}": perplexity(loss)}
        row |= {
            "learning_rate": module.learning_rate,
            "gradient_norm": module.gradient_norm,
            "skipped_steps": module.skipped,
            "tokens_per_second": round(speed, 1),
            "mfu": round(speed * self._compute.flops_per_token / self._compute.peak_flops, 4),
            "data_wait": round((self._loader.waited - self._waited) / seconds, 4),
        }
        self._logged, self._logged_step, self._waited = now, step, self._loader.waited
        self._put(trainer, row)
        mean = (step - self._first_step) * tokens / max(now - self._began - self._paused, 1e-9)
        shown = perplexity(sum(losses) / len(losses))
        # A sampled softmax loss is not comparable with the perplexity over the full vocabulary.
        sampled = "sampled " if isinstance(module.network.head, SampledSoftmax) else ""
        note = f"{mean:,.0f} tokens/s  {sampled}perplexity {shown:,.1f}{self._held_out}"
        self._bar.update(step, note)

    def _evaluate(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        assert self._evaluate_network is not None
        module.swap_average()
        figures = self._evaluate_network(module.network)
        nats = figures.pop("nats")
        if self._best:
            network = module.network
            self._best.offer(module.step, nats, figures, network.head.cutoffs, network.state_dict())
        module.swap_average()
        if module.step % module.train_config.evaluate_steps == 0:
            # The extra evaluation at the last step must not count: a longer training has none there.
            module.record_held_out_loss(nats)
        row = {f"valid_{name}": value for name, value in figures.items()}
        self._put(trainer, {"step": module.step, **row, "averaged": module.is_averaging})
        shown = figures.get("average_perplexity") or figures["forward_perplexity"]
        self._held_out = f" (held-out {shown:,.1f})"

    def _put(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        if self._file is None:
            return
        self._file.put(row)
        metrics = {k: v for k, v in row.items() if k != "step" and v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, row["step"])
