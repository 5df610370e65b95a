"""What is told of a training while it runs: metrics, held-out perplexity, the progress bar."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import pytorch_lightning as pl

from lightning_modules.evaluation.held_out import WAYS, perplexity
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.sampled_softmax import SampledSoftmax
from lightning_modules.training.datamodule import StepLoader
from lightning_modules.training.distribution import mean_over_ranks
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.metrics_file import MetricsFile


class ProgressBar(Protocol):
    """A running measure of work."""

    def update(self, done: float, note: str = "") -> None:
        """``done`` of the total is done."""


class Compute(NamedTuple):
    """What model FLOPs utilisation is made of: FLOP a token costs, FLOP/s all devices could do."""

    a_token: float
    peak: float


class Metrics(pl.Callback):
    """A line of ``metrics.jsonl`` every ``log_steps`` steps, the same to the loggers.

    Every process takes part, since losses are means over all; the first tells. What an earlier run
    wrote is kept up to the step that training goes on from.

    Args:
        path: of the file.
        bar: the progress bar.
        loader: where batches are waited for.
        compute: for the model FLOPs utilisation.
        look: network -> figures of the held-out text, `nats` (mean -log p) among them; none: no looks.
    """

    def __init__(
        self,
        path: str,
        bar: ProgressBar,
        loader: StepLoader,
        compute: Compute,
        look: Callable[[BiLMNetwork], dict[str, Any]] | None,
    ) -> None:
        self._path, self._bar, self._loader = path, bar, loader
        self._compute, self._look = compute, look
        self._file: MetricsFile | None = None
        self._held_out = ""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        if trainer.is_global_zero:
            self._file = MetricsFile(self._path, module.step)
        self._bar.update(module.step)
        self._began = self._told = time.monotonic()
        self._first = self._told_step = module.step
        self._paused, self._waited = 0.0, self._loader.waited

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any
    ) -> None:
        assert isinstance(module, LitBiLM)
        train = module.train_config
        step, last = module.step, module.step == train.steps
        if step % train.log_steps == 0 or last:
            self._tell(trainer, module)
        if self._look and (step % train.evaluate_steps == 0 or last):
            began = time.monotonic()
            self._evaluate(trainer, module)
            self._paused += time.monotonic() - began
            self._told, self._told_step = time.monotonic(), step
            self._waited = self._loader.waited

    def on_train_end(self, *arguments: Any) -> None:
        self.save()

    def on_exception(self, *arguments: Any) -> None:
        self.save()

    def save(self) -> None:
        """Make lines safe: before a checkpoint is written, none up to its step may be missing."""
        if self._file:
            self._file.save()

    def _tell(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        losses = mean_over_ranks(module.losses).tolist()
        now, step, tokens = time.monotonic(), module.step, module.train_config.tokens_a_step
        seconds = max(now - self._told, 1e-9)
        speed = (step - self._told_step) * tokens / seconds
        row: dict[str, Any] = {"step": step}
        for name, loss in zip(WAYS, losses, strict=False):
            row |= {f"loss_{name}": loss, f"perplexity_{name}": perplexity(loss)}
        row |= {
            "learning_rate": module.learning_rate,
            "gradient_norm": module.gradient_norm,
            "skipped_steps": module.skipped,
            "tokens_per_second": round(speed, 1),
            "mfu": round(speed * self._compute.a_token / self._compute.peak, 4),
            "data_wait": round((self._loader.waited - self._waited) / seconds, 4),
        }
        self._told, self._told_step, self._waited = now, step, self._loader.waited
        self._put(trainer, row)
        mean = (step - self._first) * tokens / max(now - self._began - self._paused, 1e-9)
        shown = perplexity(sum(losses) / len(losses))
        # A loss against some drawn ids is no perplexity over all of them, and is taken for it.
        sampled = "sampled " if isinstance(module.network.head, SampledSoftmax) else ""
        note = f"{mean:,.0f} tokens/s  {sampled}perplexity {shown:,.1f}{self._held_out}"
        self._bar.update(step, note)

    def _evaluate(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        assert self._look is not None
        module.swap_average()
        figures = self._look(module.network)
        module.swap_average()
        nats = figures.pop("nats")
        if module.step % module.train_config.evaluate_steps == 0:
            # Not the last step's own look: a longer training would not have had it.
            module.looked(nats)
        row = {f"valid_{name}": value for name, value in figures.items()}
        self._put(trainer, {"step": module.step, **row, "averaged": module.is_averaging})
        shown = figures.get("average_perplexity") or figures["forward_perplexity"]
        self._held_out = f" (held out {shown:,.1f})"

    def _put(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        if self._file is None:
            return
        self._file.put(row)
        told = {k: v for k, v in row.items() if k != "step" and v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(told, row["step"])
