"""What happens beside training: checkpoints, metrics, held-out perplexity, the progress bar."""

import io
import json
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from lightning_modules.evaluation import Evaluation, evaluate
from lightning_modules.lit_bilm import LitBiLM
from lightning_modules.pretrained import CheckpointError, read_checkpoint
from preprocess import storage
from preprocess.token_stream import Ids

KEPT = 2
"""Checkpoints kept: the newest, and the one before should its disk have failed."""


class Bar(Protocol):
    """A running measure of work."""

    def update(self, done: float, note: str = "") -> None:
        """``done`` of the total is done."""


class StorageCheckpointIO(CheckpointIO):
    """Checkpoints by path or URL, whole or not at all; read without unpickling code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        storage.write_bytes(str(path), buffer.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(str(path))

    def remove_checkpoint(self, path: Any) -> None:
        storage.remove(str(path))


def checkpoint_path(folder: str, step: int) -> str:
    return storage.join(folder, f"step-{step:09d}.ckpt")


def newest_checkpoint(folder: str) -> tuple[str, int] | None:
    """The newest checkpoint of ``folder`` that can be read, and its step."""
    for name in reversed(_checkpoint_names(folder)):
        path = storage.join(folder, name)
        try:
            return path, int(read_checkpoint(path)["global_step"])
        except CheckpointError:
            continue  # Its disk failed: the one before is kept for that.
    return None


def _checkpoint_names(folder: str) -> list[str]:
    return [name for name in storage.list_names(folder) if name.endswith(".ckpt")]


class Checkpoints(pl.Callback):
    """Saves every ``steps`` steps, every ``minutes`` minutes, at the last step and at a stop."""

    def __init__(self, folder: str, steps: int, minutes: float) -> None:
        self._folder, self._steps, self._seconds = folder, steps, minutes * 60
        self._saved = time.monotonic()
        self._stopped = False

    def stop(self) -> None:
        """Let the running step end and be saved, then raise KeyboardInterrupt."""
        self._stopped = True

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        step, last = trainer.global_step, trainer.global_step == trainer.max_steps
        late = time.monotonic() - self._saved > self._seconds
        if step % self._steps and not late and not last and not self._stopped:
            return
        trainer.save_checkpoint(checkpoint_path(self._folder, step))
        self._saved = time.monotonic()
        for name in _checkpoint_names(self._folder)[:-KEPT]:
            storage.remove(storage.join(self._folder, name))
        if self._stopped and not last:
            raise KeyboardInterrupt


class Metrics(pl.Callback):
    """A line of ``metrics.jsonl`` every ``log_steps`` steps, the same to the loggers.

    What an earlier run wrote is kept up to the step that training goes on from.
    """

    def __init__(
        self,
        path: str,
        log_steps: int,
        tokens_a_step: int,
        bar: Bar,
        look: Callable[[], tuple[Iterable[tuple[Ids, Ids]], dict[str, int]]] | None,
        look_steps: int,
    ) -> None:
        self._path, self._log_steps, self._tokens = path, log_steps, tokens_a_step
        self._bar, self._look, self._look_steps = bar, look, look_steps
        self._lines: list[str] = []
        self._held_out = ""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._lines = [
            line
            for line in read_lines(self._path)
            if json.loads(line)["step"] <= trainer.global_step
        ]
        self._began = self._told = time.monotonic()
        self._first = self._told_step = trainer.global_step
        self._paused = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any
    ) -> None:
        assert isinstance(module, LitBiLM)
        step = trainer.global_step
        if step % self._log_steps == 0 or step == trainer.max_steps:
            self._tell(trainer, module, step)
        if self._look and (step % self._look_steps == 0 or step == trainer.max_steps):
            began = time.monotonic()
            self._evaluate(trainer, module, step)
            self._paused += time.monotonic() - began
            self._told, self._told_step = time.monotonic(), step

    def on_save_checkpoint(self, *arguments: Any) -> None:
        self._write()

    def on_train_end(self, *arguments: Any) -> None:
        self._write()

    def _tell(self, trainer: pl.Trainer, module: LitBiLM, step: int) -> None:
        forward, backward = module.losses.tolist()
        now = time.monotonic()
        speed = (step - self._told_step) * self._tokens / max(now - self._told, 1e-9)
        self._told, self._told_step = now, step
        row = {
            "step": step,
            "loss_forward": forward,
            "loss_backward": backward,
            "learning_rate": module.learning_rate,
            "gradient_norm": float(module.gradient_norm),
            "tokens_per_second": round(speed, 1),
        }
        self._put(trainer, row)
        mean = (step - self._first) * self._tokens / max(now - self._began - self._paused, 1e-9)
        perplexity = Evaluation(forward, backward, 1, 1, 1).figures()["average_perplexity"]
        self._bar.update(
            step, f"{mean:,.0f} tokens/s  perplexity {perplexity:,.1f}{self._held_out}"
        )

    def _evaluate(self, trainer: pl.Trainer, module: LitBiLM, step: int) -> None:
        assert self._look is not None
        figures = evaluate(module.network, *self._look()).figures()
        names = ("forward_perplexity", "backward_perplexity", "average_perplexity", "bits_per_byte")
        self._put(trainer, {"step": step, **{f"valid_{name}": figures[name] for name in names}})
        self._held_out = f" (held out {figures['average_perplexity']:,.1f})"

    def _put(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        self._lines.append(json.dumps(row))
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, row["step"])

    def _write(self) -> None:
        storage.write_bytes(self._path, "".join(f"{line}\n" for line in self._lines).encode())


def read_lines(path: str) -> list[str]:
    """The lines of a text file; none where it does not exist."""
    return storage.read_bytes(path).decode().splitlines() if storage.exists(path) else []
