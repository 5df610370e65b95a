"""Checkpoints: when one is written, which are kept, and the newest that can be read."""

import io
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from lightning_modules.models.model_folder import CheckpointError, read_checkpoint
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.distribution import Agreement
from lightning_modules.training.lit_bilm import LitBiLM
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.work.folder import checkpoint_file, checkpoint_steps

KEPT = 2
"""Checkpoints kept: the newest, and the one before should its disk have failed."""


class TrainingDiverged(UserError):  # noqa: N818
    """Gradients are no longer finite."""


def newest_checkpoint(folder: str) -> dict[str, Any] | None:
    """The newest checkpoint of ``folder`` that can be read; none where there is none.

    Raises:
        CheckpointError: there are some, and each is damaged.
    """
    steps = checkpoint_steps(folder)
    for step in reversed(steps):
        try:
            return read_checkpoint(checkpoint_file(folder, step))
        except CheckpointError as error:
            damaged = error  # Its disk failed: the one before is kept for that.
    if steps:
        raise CheckpointError(
            f"{folder}: no checkpoint can be read ({damaged}); put one back from a copy, or begin "
            "anew with `biloom train --overwrite`"
        ) from damaged
    return None


class Checkpoints(pl.Callback):
    """Saves every so many steps and minutes, at the last step and at a stop.

    Every process takes part, the first writes. A checkpoint appears whole or not at all, and older
    ones go only then, so a full disk leaves the one before.

    Args:
        folder: where they lie.
        train: the training's config.
        before: what has to be safe on disk before a checkpoint says that its step is done.

    Raises:
        TrainingDiverged: `max_skipped_steps` steps in a row had a gradient that was not finite.
        KeyboardInterrupt: `stop` was called in any process, after the step was saved.
    """

    def __init__(self, folder: str, train: TrainConfig, before: Callable[[], None]) -> None:
        self._folder, self._steps = folder, train.checkpoint_steps
        self._seconds, self._most_skipped = train.checkpoint_minutes * 60, train.max_skipped_steps
        self._before = before
        self._stopped = False

    def stop(self) -> None:
        """Let the running step end and be saved, then raise KeyboardInterrupt."""
        self._stopped = True

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._agreement = Agreement()
        self._saved = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *arguments: Any
    ) -> None:
        assert isinstance(module, LitBiLM)
        step, last = module.step, module.step == module.train_config.steps
        self._stop_if_diverged(module)
        late, stopped = self._agreement.largest(
            time.monotonic() - self._saved > self._seconds, self._stopped
        )
        # While steps are left out, the last good checkpoint stays the newest.
        due = (step % self._steps == 0 or late) and not module.skipped_in_a_row
        if not (due or last or stopped):
            return
        self._save(trainer, module)
        if stopped and not last:
            # No process leaves while the first is still writing: it would be taken for lost.
            self._agreement.largest(0)
            raise KeyboardInterrupt

    def _save(self, trainer: pl.Trainer, module: LitBiLM) -> None:
        checkpoint = module.checkpoint()
        self._saved = time.monotonic()
        if not trainer.is_global_zero:
            return
        self._before()
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        storage.write_bytes(checkpoint_file(self._folder, module.step), buffer.getvalue())
        steps = checkpoint_steps(self._folder)
        # Later checkpoints are damaged, because training resumed from an earlier one.
        later = [step for step in steps if step > module.step]
        for step in [*steps[: -KEPT - len(later)], *later]:
            storage.remove(checkpoint_file(self._folder, step))

    def _stop_if_diverged(self, module: LitBiLM) -> None:
        if module.skipped_in_a_row < self._most_skipped:
            return
        steps = checkpoint_steps(self._folder)
        good = checkpoint_file(self._folder, steps[-1]) if steps else "none yet"
        raise TrainingDiverged(
            f"step {module.step:,}: the gradient was not finite {module.skipped_in_a_row} times in "
            f"a row; the last good checkpoint is {good}. The same command goes on from there; "
            "another training (--overwrite) with a lower train.learning_rate, a lower "
            "train.clip_norm or train.precision=float32 may not diverge"
        )
