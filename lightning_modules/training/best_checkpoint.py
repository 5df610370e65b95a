"""The weights of the best held-out evaluation, kept beside the checkpoints of an unfinished training."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lightning_modules.models.checkpoint_file import (
    CheckpointError,
    pack_checkpoint,
    read_checkpoint,
)
from preprocess.files import storage
from preprocess.work.folder import best_file, best_steps, checkpoint_steps


class BestCheckpoint:
    """Writes the weights at each held-out evaluation that is better than all before. For rank 0 only.

    A file is kept until no checkpoint is left from which training could resume and need it, so a resumed
    training ends with the same best weights. Files of later steps than the one that training starts from
    are removed.

    Args:
        folder: folder of the checkpoints, a path or URL.
        step: the step that training starts from.
        tell: called with a message for each damaged file, which is removed.

    Attributes:
        step: the step of the best evaluation; None before the first one.
        loss: its mean -log p per token in nats; infinite before the first evaluation.
    """

    def __init__(
        self, folder: str, step: int, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self._folder = folder
        self.step: int | None = None
        self.loss = math.inf
        for written in reversed(best_steps(folder)):
            path = best_file(folder, written)
            if written > step:
                storage.remove(path)
            elif self.step is None:
                try:
                    self.step, self.loss = written, float(read_checkpoint(path)["held_out"]["loss"])
                except CheckpointError as error:
                    damage = str(error).partition("; ")[0]
                    tell(f"{damage}; the best step is now one of the other evaluations")
                    storage.remove(path)

    def offer(
        self,
        step: int,
        loss: float,
        figures: Mapping[str, Any],
        cutoffs: tuple[int, ...],
        weights: Mapping[str, Tensor],
    ) -> None:
        """Keep the weights of an evaluation if it is better than all before.

        Args:
            step: the step.
            loss: mean -log p of the held-out split in nats.
            figures: perplexities and other figures of the evaluation, JSON values.
            cutoffs: cutoffs of an adaptive softmax, else empty.
            weights: state dict of the evaluated network, in which averaged weights take the place of the
                others if training averages them.
        """
        if not loss < self.loss:
            return
        checkpoint = {
            "step": step,
            "cutoffs": list(cutoffs),
            "held_out": {"loss": loss, **figures},
            "state_dict": {f"network.{name}": tensor for name, tensor in weights.items()},
        }
        storage.write_bytes(best_file(self._folder, step), pack_checkpoint(checkpoint))
        self.step, self.loss = step, loss


def remove_unneeded(folder: str) -> None:
    """Remove the best weights that a training resumed from any of the checkpoints in ``folder`` ignores.

    A file was better than all before it, so a checkpoint needs the last file up to its step.
    """
    written, checkpoints = best_steps(folder), checkpoint_steps(folder)
    needed = {max((b for b in written if b <= c), default=None) for c in checkpoints}
    for step in written:
        if step not in needed and step <= max(checkpoints, default=0):
            storage.remove(best_file(folder, step))
