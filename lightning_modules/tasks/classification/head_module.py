"""A neural head, and a language model that is fine-tuned with it, as a LightningModule."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.tasks.classification.heads import TextHead
from lightning_modules.tasks.classification.inputs import Batch
from lightning_modules.tasks.classification.objectives import Objective
from lightning_modules.tasks.fitting import SCORE
from lightning_modules.tasks.optimizer import optimizers
from lightning_modules.tasks.training_config import FitConfig
from lightning_modules.tasks.tuning import TunedModel


class HeadModule(pl.LightningModule):
    """Trains a head, and with it a language model if there is one.

    Args:
        head: the head.
        objective: loss and score.
        config: settings of the training.
        steps: number of steps of the learning rate schedule.
        tuned: the language model that is trained, too; None means that batches hold vectors.
    """

    def __init__(
        self,
        head: TextHead,
        objective: Objective,
        config: FitConfig,
        steps: int,
        tuned: TunedModel | None = None,
    ) -> None:
        super().__init__()
        self.head, self.tuned = head, tuned
        self._objective, self._config, self._steps = objective, config, steps
        self._read: list[tuple[Tensor, Tensor]] = []

    def forward(self, texts: Sequence[Any]) -> Tensor:
        """Return the outputs of the texts of a `Batch`, (batch, k)."""
        vectors = [self.tuned(one) for one in texts] if self.tuned is not None else texts
        outputs: Tensor = self.head(vectors)
        return outputs

    def transfer_batch_to_device(self, batch: Any, device: torch.device, number: int) -> Any:
        return Batch(tuple(one.to(device) for one in batch.texts), batch.truth.to(device))

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = self._objective.loss(self(batch.texts), batch.truth)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.truth))
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self._read.append((self(batch.texts).float().cpu(), batch.truth.cpu()))

    def on_validation_epoch_end(self) -> None:
        outputs, truth = (torch.cat(parts) for parts in zip(*self._read, strict=True))
        self._read = []
        self.log("dev_loss", self._objective.loss(outputs, truth))
        self.log(SCORE, self._objective.score(outputs, truth))

    def configure_optimizers(self) -> Any:
        return optimizers(self.head.parameters(), self._config, self._steps, self.tuned)
