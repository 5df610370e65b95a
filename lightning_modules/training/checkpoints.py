"""Checkpoints of an unfinished training: when they are written, which are kept, which is read."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from lightning_modules.models.checkpoint_file import (
    CheckpointError,
    pack_checkpoint,
    read_checkpoint,
)
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.ranks.distribution import Agreement
from lightning_modules.training.weights.best import remove_unneeded
from preprocess.errors import JobError
from preprocess.files import storage
from preprocess.work.folder import checkpoint_file, checkpoint_steps

KEPT = 2
"""Checkpoints kept: the newest one, and the one before in case the newest is damaged."""


class TrainingDiverged(JobError):  # noqa: N818
    """Raised if gradients stay infinite or NaN."""


def newest_checkpoint(
    folder: str, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any] | None:
    """Return the contents of the newest readable checkpoint of a folder; None if it has no checkpoint.

    Args:
        folder: folder of the checkpoints, a path or URL.
        tell: called with a message for each damaged checkpoint that is skipped.

    Raises:
        CheckpointError: if all checkpoints are damaged.
    """
    damaged: list[str] = []
    for step in reversed(checkpoint_steps(folder)):
        path = checkpoint_file(folder, step)
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as error:
            damaged.append(str(error).partition("; ")[0])
            continue
        for problem in damaged:
            tell(f"{problem}; training resumes from the checkpoint of step {step:,}")
        return checkpoint
    if damaged:
        raise CheckpointError(
            f"all checkpoints are damaged: {', '.join(damaged)}; restore one from a backup, or train "
            "again from the start with `biloom train --overwrite`"
        )
    return None


class CheckpointFiles(CheckpointIO):
    """Reads and writes the files of checkpoints for Lightning, on disks and in stores.

    A file is complete or absent, and has a checksum.

    Args:
        loaded: the contents of the checkpoint that is resumed from, if they have been read. They are
            released when Lightning takes them.
    """

    def __init__(self, loaded: dict[str, Any] | None = None) -> None:
        self._loaded = loaded

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        storage.write_bytes(os.fspath(path), pack_checkpoint(checkpoint))

    def load_checkpoint(self, path: str | os.PathLike[str], *_: Any, **__: Any) -> dict[str, Any]:
        """Return the contents of a checkpoint on the CPU.

        Raises:
            CheckpointError: if the file is missing or damaged.
        """
        checkpoint = self._loaded or read_checkpoint(os.fspath(path))
        self._loaded = None
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint."""
        storage.remove(os.fspath(path))


class Checkpoints(pl.Callback):
    """Write checkpoints at intervals of steps and minutes, at the last step and when stopped.

    If a step is followed by a validation, the checkpoint is written after it, so that a resumed
    training does not lack it. All ranks take part; rank 0 writes. Older checkpoints are deleted
    afterwards, so a full disk leaves the previous checkpoint.

    Args:
        folder: folder of the checkpoints, a path or URL.
        train: settings of the training.
        validates: whether there is held-out text.
        before: called before each checkpoint is written, to save what must reach at least as far,
            such as the metrics.

    Raises:
        TrainingDiverged: if the gradient was not finite in `max_skipped_steps` steps in a row.
        KeyboardInterrupt: if `stop` was called on any rank, after the step is saved.

    Attributes:
        stopped_by: the signal that was given to `stop`, on any rank; 0 if there was none.
    """

    def __init__(
        self, folder: str, train: TrainConfig, validates: bool, before: Callable[[], None]
    ) -> None:
        self._folder, self._steps = folder, train.checkpoint_steps
        self._seconds, self._most_skipped = train.checkpoint_minutes * 60, train.max_skipped_steps
        self._evaluate_steps = train.evaluate_steps if validates else 0
        self._before = before
        self.stopped_by = 0
        self._asked = False
        self._is_due = False

    def stop(self, number: int) -> None:
        """Finish and save the current step, then raise KeyboardInterrupt.

        Args:
            number: the signal that asks for it.
        """
        self.stopped_by = number

    def save_soon(self) -> None:
        """Save a checkpoint after the current step, and continue."""
        self._asked = True

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._agreement = Agreement()
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any
    ) -> None:
        assert isinstance(module, LitBiLM)
        if not module.figures.is_between_steps:
            return
        step, last = module.step, module.step == trainer.max_steps
        self._stop_if_diverged(module)
        late, self._stopped = self._agreement.largest(
            self._asked or time.monotonic() - self._saved > self._seconds, self.stopped_by
        )
        # While steps are skipped, the last good checkpoint must stay the newest.
        due = (step % self._steps == 0 or late) and not module.figures.skipped_in_a_row
        self._is_due = bool(due or last or self._stopped)
        if not (self._evaluate_steps and (step % self._evaluate_steps == 0 or last)):
            self._save_if_due(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        # A callback may have ended the training because of the validation.
        self._is_due |= trainer.should_stop
        self._save_if_due(trainer, module)

    def _save_if_due(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        if not self._is_due:
            return
        self._is_due = self._asked = False
        if trainer.is_global_zero:
            self._before()
        trainer.save_checkpoint(checkpoint_file(self._folder, module.step), weights_only=False)
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            self._remove_older(module.step)
        if self._stopped and module.step != trainer.max_steps:
            self.stopped_by = self._stopped
            raise KeyboardInterrupt

    def _remove_older(self, saved: int) -> None:
        steps = checkpoint_steps(self._folder)
        # Later checkpoints must be damaged, because training resumed from an earlier one.
        later = [step for step in steps if step > saved]
        for step in [*steps[: -KEPT - len(later)], *later]:
            storage.remove(checkpoint_file(self._folder, step))
        remove_unneeded(self._folder)

    def _stop_if_diverged(self, module: LitBiLM) -> None:
        if module.figures.known_skipped_in_a_row < self._most_skipped:
            return
        steps = checkpoint_steps(self._folder)
        good = checkpoint_file(self._folder, steps[-1]) if steps else "not written yet"
        raise TrainingDiverged(
            f"step {module.step:,}: the gradient was not finite {module.figures.skipped_in_a_row} times in "
            f"a row; the last good checkpoint is {good}. The same command resumes from there. To "
            "train again with other settings, add --overwrite; try a lower train.learning_rate, a "
            "lower train.clip_norm or train.precision=float32"
        )
