"""Checkpoints of an unfinished training: when they are written, which are kept, which is read."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from lightning_modules.models.checkpoint_file import (
    CheckpointError,
    pack_checkpoint,
    read_checkpoint,
)
from lightning_modules.training.best import is_last_step
from lightning_modules.training.best_checkpoint import remove_unneeded
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.distribution import Agreement
from lightning_modules.training.lit_bilm import LitBiLM
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


class Checkpoints(pl.Callback):
    """Write checkpoints at intervals of steps and minutes, at the last step and when stopped.

    All ranks take part; rank 0 writes. A checkpoint is written atomically, and older ones are deleted
    afterwards, so a full disk leaves the previous checkpoint.

    Args:
        folder: folder of the checkpoints, a path or URL.
        train: settings of the training.
        before: called before each checkpoint is written, to save what must reach at least as far,
            such as the metrics.

    Raises:
        TrainingDiverged: if the gradient was not finite in `max_skipped_steps` steps in a row.
        KeyboardInterrupt: if `stop` was called on any rank, after the step is saved.

    Attributes:
        stopped_by: the signal that was given to `stop`, on any rank; 0 if there was none.
    """

    def __init__(self, folder: str, train: TrainConfig, before: Callable[[], None]) -> None:
        self._folder, self._steps = folder, train.checkpoint_steps
        self._seconds, self._most_skipped = train.checkpoint_minutes * 60, train.max_skipped_steps
        self._before = before
        self.stopped_by = 0
        self._asked = False

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
        step = module.step
        last = is_last_step(module.train_config, step, module.held_out_losses)
        self._stop_if_diverged(module)
        late, stopped = self._agreement.largest(
            self._asked or time.monotonic() - self._saved > self._seconds, self.stopped_by
        )
        # While steps are skipped, the last good checkpoint must stay the newest.
        due = (step % self._steps == 0 or late) and not module.skipped_in_a_row
        if not (due or last or stopped):
            return
        self._save(trainer, module)
        trainer.should_stop |= last
        if stopped and not last:
            # Wait for rank 0 to finish writing; a rank that leaves earlier would count as lost.
            self._agreement.largest(0)
            self.stopped_by = stopped
            raise KeyboardInterrupt

    def _save(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        self._asked = False
        checkpoint = module.checkpoint()
        self._saved = time.monotonic()
        if not trainer.is_global_zero:
            return
        self._before()
        path = checkpoint_file(self._folder, module.step)
        storage.write_bytes(path, pack_checkpoint(checkpoint))
        steps = checkpoint_steps(self._folder)
        # Later checkpoints must be damaged, because training resumed from an earlier one.
        later = [step for step in steps if step > module.step]
        for step in [*steps[: -KEPT - len(later)], *later]:
            storage.remove(checkpoint_file(self._folder, step))
        remove_unneeded(self._folder)

    def _stop_if_diverged(self, module: LitBiLM) -> None:
        if module.skipped_in_a_row < self._most_skipped:
            return
        steps = checkpoint_steps(self._folder)
        good = checkpoint_file(self._folder, steps[-1]) if steps else "not written yet"
        raise TrainingDiverged(
            f"step {module.step:,}: the gradient was not finite {module.skipped_in_a_row} times in "
            f"a row; the last good checkpoint is {good}. The same command resumes from there. To "
            "train again with other settings, add --overwrite; try a lower train.learning_rate, a "
            "lower train.clip_norm or train.precision=float32"
        )
