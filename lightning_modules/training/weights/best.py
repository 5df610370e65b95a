"""The best held-out evaluation: its weights, when patience has run out, and when a model overfits."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.__version__ import version

from lightning_modules.models.checkpoint_file import CheckpointError, read_checkpoint
from lightning_modules.models.checkpoint_writer import write_checkpoint
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from preprocess.files import storage
from preprocess.work.folder import best_file, best_steps, checkpoint_steps

RISES = 3
"""Held-out evaluations in a row, each worse than the one before, after which overfitting is reported."""

LENGTHS = {"steps", "passes", "patience"}
"""Settings that may be raised after a training."""

Loss = tuple[int, float]
"""A step and a mean loss per token in nats."""


def evaluations_since_best(losses: Sequence[float]) -> int:
    """Return how many evaluations in a row, up to the last one, have not improved on the best loss.

    Args:
        losses: held-out losses in the order of steps. NaN is never an improvement.
    """
    best, waited = math.inf, 0
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = loss if loss < best else best
    return waited


def patience_ran_out(losses: Sequence[float], patience: int | None) -> bool:
    """Return True if training stops, because ``patience`` evaluations in a row have not improved.

    Args:
        losses: held-out losses in the order of steps.
        patience: `train.patience`; None means that training never stops early.
    """
    return patience is not None and evaluations_since_best(losses) >= patience


def is_last_step(train: TrainConfig, step: int, losses: Sequence[float]) -> bool:
    """Return True if training ends after a step: all steps are taken, or patience has run out.

    Args:
        train: settings of the training.
        step: number of steps taken.
        losses: held-out losses at multiples of `evaluate_steps`, in the order of steps.
    """
    return step >= train.steps or patience_ran_out(losses, train.patience)


def overfits(held_out: Sequence[Loss], training: Sequence[Loss]) -> bool:
    """Return True if held-out loss has risen `RISES` times in a row while training loss fell.

    Training loss is averaged over the steps between two evaluations. It fell if its mean over the last
    interval is below its mean over the interval that ends where the rise begins.

    Args:
        held_out: losses of the held-out evaluations.
        training: losses of the training batches.
    """
    last = [*held_out[-RISES - 1 :]]
    if len(last) <= RISES or not all(one[1] < other[1] for one, other in pairwise(last)):
        return False
    before = held_out[-RISES - 2][0] if len(held_out) > RISES + 1 else 0
    first = _mean(training, before, last[0][0])
    return _mean(training, last[-2][0], last[-1][0]) < first


def _mean(losses: Sequence[Loss], after: int, to: int) -> float:
    """Return the mean of the losses in the interval (after, to]; NaN if there is none."""
    found = [loss for step, loss in losses if after < step <= to]
    return sum(found) / len(found) if found else math.nan


class Patience(pl.Callback):
    """Stops training when as many validations in a row as `TrainConfig.patience` have not improved.

    Only validations that count (`LitBiLM.validation_counts`) are considered. This callback has no state,
    because the losses are part of the checkpoint.
    """

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        if patience_ran_out(module.held_out_losses, module.train_config.patience):
            trainer.should_stop = True


class BestCheckpoint(pl.Callback):
    """Writes the weights at each validation that is better than all before. Rank 0 writes.

    A file is kept until no checkpoint is left from which training could resume and need it, so a resumed
    training ends with the same best weights. Files of later steps than the one that training starts from
    are removed. `LitBiLM.load_from_checkpoint` reads the files. Unlike the checkpoints, they have no
    optimiser state. If training averages the weights, they have the average, which is what was
    validated.

    Args:
        folder: folder of the checkpoints, a path or URL.
        tell: called with a message for each damaged file, which is removed.
        write: writes a checkpoint to a path or URL, or begins to. A file must be complete before a
            checkpoint that is written later.

    Attributes:
        step: the step of the best validation; None before the first one.
        loss: its mean -log p per token in nats; infinite before the first validation.
    """

    def __init__(
        self,
        folder: str,
        tell: Callable[[str], None] = lambda _: None,
        write: Callable[[str, Mapping[str, Any]], None] = write_checkpoint,
    ) -> None:
        self._folder, self._tell, self._write = folder, tell, write
        self.step: int | None = None
        self.loss = math.inf

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        if not trainer.is_global_zero:
            return
        for step in reversed(best_steps(self._folder)):
            path = best_file(self._folder, step)
            if step > module.step:
                storage.remove(path)
            elif self.step is None:
                try:
                    self.loss = read_checkpoint(path, mapped=True)["held_out"]["loss"]
                    self.step = step
                except CheckpointError as error:
                    damage = str(error).partition("; ")[0]
                    self._tell(f"{damage}; the best step is now one of the other evaluations")
                    storage.remove(path)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        loss = module.held_out["loss"]
        if not trainer.is_global_zero or loss is None or not loss < self.loss:
            return
        network = module.network
        weights = module.averaged_weights() or network.state_dict()
        # A longer training that continues this one has the same best weights.
        train = {k: v for k, v in module.hparams["train"].items() if k not in LENGTHS}
        checkpoint: dict[str, Any] = {
            "pytorch-lightning_version": version,  # which `load_from_checkpoint` needs
            "hyper_parameters": {**module.hparams, "train": train},
            "step": module.step,
            "cutoffs": list(network.head.cutoffs),
            "held_out": dict(module.held_out),
            "state_dict": {f"network.{name}": tensor for name, tensor in weights.items()},
        }
        self._write(best_file(self._folder, module.step), checkpoint)
        self.step, self.loss = module.step, loss


def remove_unneeded(folder: str) -> None:
    """Remove the best weights that a training resumed from any of the checkpoints in ``folder`` ignores.

    A file was better than all before it, so a checkpoint needs the last file up to its step.
    """
    written, checkpoints = best_steps(folder), checkpoint_steps(folder)
    needed = {max((b for b in written if b <= c), default=None) for c in checkpoints}
    for step in written:
        if step not in needed and step <= max(checkpoints, default=0):
            storage.remove(best_file(folder, step))
