"""The Lightning module that trains a tagger."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_modules.tasks.fitting import SCORE
from lightning_modules.tasks.optimizer import optimizers
from lightning_modules.tasks.tagging.tagger import TagBatch, Tagger
from lightning_modules.tasks.training_config import FitConfig
from lightning_modules.tasks.tuning import TunedModel

Found = dict[int, list[int]]
"""Outputs of each piece of the dev sentences, by its index."""


class LitTagger(pl.LightningModule):
    """Trains a tagger by the likelihood of its CRF; the dev score is that of the decoded tags.

    Args:
        tagger: the network.
        config: settings of the training.
        steps: number of steps of all epochs.
        score: returns the dev score of the outputs of all pieces; higher is better.
        tuned: the language model that is trained, too; None means that batches hold vectors.
    """

    def __init__(
        self,
        tagger: Tagger,
        config: FitConfig,
        steps: int,
        score: Callable[[Mapping[int, Sequence[int]]], float],
        tuned: TunedModel | None = None,
    ) -> None:
        super().__init__()
        self.tagger, self.tuned = tagger, tuned
        self._config, self._steps, self._score = config, steps, score
        self._found: Found = {}

    def configure_optimizers(self) -> Any:
        """Return the optimiser of all parameters and its schedule."""
        return optimizers(self.tagger.parameters(), self._config, self._steps, self.tuned)

    def transfer_batch_to_device(
        self, batch: TagBatch, device: torch.device, dataloader_idx: int
    ) -> TagBatch:
        """Return the batch on a device."""
        return batch.to(device)

    def training_step(self, batch: TagBatch, index: int) -> Tensor:
        """Return the loss of a batch, in nats per sentence."""
        loss = self.tagger.loss(self._read(batch))
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.indices))
        return loss

    def validation_step(self, batch: TagBatch, index: int) -> None:
        """Decode a batch of dev sentences."""
        found = self.tagger.predict(self._read(batch))
        self._found.update(zip(batch.indices, found, strict=True))

    def _read(self, batch: TagBatch) -> TagBatch:
        """Return a batch with the vectors of the language model that is trained, if there is one."""
        if self.tuned is None:
            return batch
        assert batch.text is not None
        layers = self.tuned(batch.text).layers
        # A sentence of whitespace has no units.
        missing = batch.words.shape[1] - layers.shape[2]
        return batch._replace(layers=pad(layers, (0, 0, 0, missing)))

    def on_validation_epoch_end(self) -> None:
        """Log the dev score."""
        self.log(SCORE, self._score(self._found))
        self._found = {}
