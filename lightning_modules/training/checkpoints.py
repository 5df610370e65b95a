"""Checkpoints of an unfinished training: when they are written, which are kept, which is read."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor

from lightning_modules.models.checkpoint_file import CheckpointError, read_checkpoint
from lightning_modules.models.checkpoint_writer import CheckpointWriter, write_checkpoint
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.ranks.distribution import Agreement
from lightning_modules.training.weights.best import remove_unneeded
from preprocess.errors import JobError
from preprocess.files import storage
from preprocess.work.folder import checkpoint_file, checkpoint_steps

KEPT = 2
"""Checkpoints kept: the newest one, and the one before in case the newest is damaged."""
PATIENCE_SECONDS = 0.1
"""How old a write may become while training waits for it, because the next checkpoint is due. Files of
small models take less, so that they are written at the steps that were asked for."""
SLOW_SECONDS = 1.0
"""How long a checkpoint takes at least when the user is told that the next one is put off."""


class TrainingDiverged(JobError):  # noqa: N818
    """Raised if gradients stay infinite or NaN."""


def newest_checkpoint(
    folder: str, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any] | None:
    """Return the contents of the newest readable checkpoint of a folder; None if it has no checkpoint.

    Its tensors are mapped from the file, see `read_checkpoint`.

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
            checkpoint = read_checkpoint(path, mapped=True)
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
        write: writes a checkpoint to a path or URL, or begins to.
    """

    def __init__(
        self,
        loaded: dict[str, Any] | None = None,
        write: Callable[[str, Mapping[str, Any]], None] = write_checkpoint,
    ) -> None:
        self._loaded, self._write = loaded, write

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        self._write(os.fspath(path), checkpoint)

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
    """Write checkpoints at intervals of minutes and of steps, at the last step and when stopped.

    If a step is followed by a validation, the checkpoint is written after it, so that a resumed
    training does not lack it. All ranks take part; rank 0 takes a snapshot, which a thread writes while
    training continues. If a checkpoint is due while the one before is being written, it is put off
    until that is complete. Older checkpoints are deleted afterwards, so a full disk leaves the previous
    checkpoint.

    The times of checkpoints have no effect on the result of the training.

    Args:
        folder: folder of the checkpoints, a path or URL.
        train: settings of the training.
        validates: whether there is held-out text.
        writer: writes the files.
        before: called before each checkpoint is written, in the thread that writes it, to save what must
            reach at least as far, such as the metrics.
        tell: called with a message if a checkpoint is put off, once, and with the error of a write that
            fails while another exception ends the training.

    Raises:
        TrainingDiverged: if the gradient was not finite in `max_skipped_steps` steps in a row.
        KeyboardInterrupt: if `stop` was called on any rank, after the step is saved.
        StorageError: if the checkpoint before could not be written.

    Attributes:
        stopped_by: the signal that was given to `stop`, on any rank; 0 if there was none.
    """

    def __init__(
        self,
        folder: str,
        train: TrainConfig,
        validates: bool,
        writer: CheckpointWriter,
        before: Callable[[], None],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder, self._steps = folder, train.checkpoint_steps
        self._seconds, self._most_skipped = train.checkpoint_minutes * 60, train.max_skipped_steps
        self._evaluate_steps = train.evaluate_steps if validates else 0
        self._writer, self._before, self._tell = writer, before, tell
        self.stopped_by = 0
        self._is_asked = self._is_due = self._has_told = False

    def stop(self, number: int) -> None:
        """Finish and save the current step, then raise KeyboardInterrupt.

        With several ranks, that may be one of the next steps: see `Agreement`.

        Args:
            number: the signal that asks for it.
        """
        self.stopped_by = number

    def save_soon(self) -> None:
        """Save a checkpoint after the current step, and continue."""
        self._is_asked = True

    def write(self, path: str, checkpoint: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint, after which older ones are deleted. For `CheckpointFiles`."""
        step = checkpoint["step"]
        self._writer.write(path, checkpoint, self._before, lambda: self._remove_older(step))

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        own_state(trainer.optimizers)
        self._agreement = Agreement()
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any
    ) -> None:
        assert isinstance(module, LitBiLM)
        if not module.figures.is_between_steps:
            return
        self._writer.check()
        self._stop_if_diverged(module)
        step, last = module.step, module.step == trainer.max_steps
        is_due = bool(self._steps and step % self._steps == 0)
        # While steps are skipped, the last good checkpoint must stay the newest.
        self._is_due |= is_due and not module.figures.skipped_in_a_row
        is_validated = self._evaluate_steps and (step % self._evaluate_steps == 0 or last)
        if not is_validated and (is_due or last or self._agreement.is_due(step)):
            self._save_if_due(trainer, module, last)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        # A callback may have ended the training because of the validation.
        last = module.step == trainer.max_steps or trainer.should_stop
        self._save_if_due(trainer, module, last)

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt):
            # The step is saved, or the user does not want to wait for it.
            self._writer.abandon()
            return
        try:
            self._writer.wait()
        except Exception as error:
            self._tell(str(error))

    def _save_if_due(self, trainer: pl.Trainer, module: LitBiLM, last: bool) -> None:
        """Save a checkpoint if all ranks agree on it. Collective."""
        step, is_late = module.step, time.monotonic() - self._saved > self._seconds
        is_wanted = self._is_asked or is_late
        patience = max(0.0, PATIENCE_SECONDS - self._writer.seconds)
        is_busy = (is_wanted or self._is_due) and self._writer.is_busy(patience)
        wanted, stopped, busy = self._agreement.largest(step, is_wanted, self.stopped_by, is_busy)
        self._is_due |= bool(wanted)
        if not (last or stopped):
            if not self._is_due or module.figures.skipped_in_a_row:
                return
            if busy:
                self._tell_if_slow()
                return
        self._is_due = self._is_asked = False
        trainer.save_checkpoint(checkpoint_file(self._folder, step), weights_only=False)
        self._saved = time.monotonic()
        if last or stopped:
            # No rank ends before the file is complete.
            self._writer.wait()
            self._agreement.largest(step)
        if stopped and step != trainer.max_steps:
            self.stopped_by = stopped
            raise KeyboardInterrupt

    def _tell_if_slow(self) -> None:
        seconds = self._writer.seconds
        if self._has_told or seconds < SLOW_SECONDS or not self._writer.is_busy():
            return
        self._has_told = True
        settings = "train.checkpoint_minutes"
        if self._steps:
            settings += " and train.checkpoint_steps"
        self._tell(
            f"{self._writer.path}: writing this checkpoint of {self._writer.nbytes / 1e6:,.1f} MB has taken "
            f"{seconds:,.0f} s so far, and the next one is due. It is put off until this one is complete; "
            f"training continues. Raise {settings}, or choose a faster disk or store for run.output"
        )

    def _remove_older(self, saved: int) -> None:
        steps = checkpoint_steps(self._folder)
        # Later checkpoints must be damaged, because training resumed from an earlier one.
        later = [step for step in steps if step > saved]
        for step in [*steps[: -KEPT - len(later)], *later]:
            storage.remove(checkpoint_file(self._folder, step))
        remove_unneeded(self._folder)

    def _stop_if_diverged(self, module: LitBiLM) -> None:
        skipped = module.figures.known_skipped_in_a_row
        if skipped < self._most_skipped:
            return
        self._writer.wait()
        self._agreement.largest(module.step)
        steps = checkpoint_steps(self._folder)
        good = checkpoint_file(self._folder, steps[-1]) if steps else "not written yet"
        raise TrainingDiverged(
            f"step {module.step:,}: the gradient was not finite {skipped} times in "
            f"a row; the last good checkpoint is {good}. The same command resumes from there. To "
            "train again with other settings, add --overwrite; try a lower train.learning_rate, a "
            "lower train.clip_norm or train.precision=float32"
        )


def own_state(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Replace the tensors in the states of optimisers on the CPU by copies, one after another.

    Those of a restored state are mapped from the checkpoint, which would keep its space on the disk.
    """
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.device.type == "cpu":
                    state[name] = value.clone()
