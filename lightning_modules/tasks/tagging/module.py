"""The Lightning module that trains a tagger."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.tasks.fitting import SCORE
from lightning_modules.tasks.optimizer import optimizers
from lightning_modules.tasks.tagging.tagger import TagBatch, Tagger
from lightning_modules.tasks.training_config import FitConfig

Found = dict[int, list[int]]
"""Outputs of each piece of the dev sentences, by its index."""


class LitTagger(pl.LightningModule):
    """Trains a tagger by the likelihood of its CRF; the dev score is that of the decoded tags.

    Args:
        tagger: the network.
        config: settings of the training.
        steps: number of steps of all epochs.
        score: returns the dev score of the outputs of all pieces; higher is better.
    """

    def __init__(
        self,
        tagger: Tagger,
        config: FitConfig,
        steps: int,
        score: Callable[[Mapping[int, Sequence[int]]], float],
    ) -> None:
        super().__init__()
        self.tagger = tagger
        self._config, self._steps, self._score = config, steps, score
        self._found: Found = {}

    def configure_optimizers(self) -> Any:
        """Return the optimiser of all parameters and its schedule."""
        return optimizers(self.parameters(), self._config, self._steps)

    def transfer_batch_to_device(
        self, batch: TagBatch, device: torch.device, dataloader_idx: int
    ) -> TagBatch:
        """Return the batch on a device."""
        return batch.to(device)

    def training_step(self, batch: TagBatch, index: int) -> Tensor:
        """Return the loss of a batch, in nats per sentence."""
        loss = self.tagger.loss(batch)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.indices))
        return loss

    def validation_step(self, batch: TagBatch, index: int) -> None:
        """Decode a batch of dev sentences."""
        self._found.update(zip(batch.indices, self.tagger.predict(batch), strict=True))

    def on_validation_epoch_end(self) -> None:
        """Log the dev score."""
        self.log(SCORE, self._score(self._found))
        self._found = {}
