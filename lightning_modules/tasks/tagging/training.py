"""Training of a tagger on sentences, with and without a language model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn.functional import pad

from lightning_modules.tasks.features import Progress
from lightning_modules.tasks.fitting import SCORE, EpochBatches, FitSettings, fit, loader_of
from lightning_modules.tasks.optimizer import optimizers
from lightning_modules.tasks.tagging.config import TagFitConfig
from lightning_modules.tasks.tagging.data import SentenceTexts, Vectors
from lightning_modules.tasks.tagging.evaluation import dev_score
from lightning_modules.tasks.tagging.tagger import TagBatch, Tagger
from lightning_modules.tasks.tagging.trained import (
    EVALUATION_BATCH,
    TaggerParts,
    TrainedTagger,
)
from lightning_modules.tasks.training_config import FitConfig
from lightning_modules.tasks.tuning import TunedModel
from lightning_modules.vectors.worker_device import DeviceName
from preprocess.reading.labelled.examples import TaggedSentence

Found = dict[int, list[int]]
"""Outputs of each piece of the dev sentences, by its index."""


@dataclass(frozen=True)
class Sentences:
    """Tagged sentences with their vectors.

    Attributes:
        examples: the sentences.
        vectors: the vectors of the language model in the same order; if the language model is trained,
            too, the texts that it reads; None without a language model.
    """

    examples: Sequence[TaggedSentence]
    vectors: Vectors | None = None

    @property
    def tokens(self) -> list[Sequence[str]]:
        """The tokens of each sentence."""
        return [sentence.tokens for sentence in self.examples]

    @property
    def tags(self) -> list[Sequence[str]]:
        """The tags of each sentence, as they are in the file."""
        return [sentence.tags for sentence in self.examples]


def train_tagger(
    parts: TaggerParts,
    train: Sentences,
    dev: Sentences,
    settings: TagFitConfig,
    folder: Path,
    seed: int,
    device: DeviceName = "auto",
    identity: str = "",
    progress: Progress | None = None,
    start: TrainedTagger | None = None,
) -> TrainedTagger:
    """Train a tagger, and return it with the weights of its best epoch on the dev sentences.

    Args:
        parts: what it consists of.
        train: the training sentences; with vectors for a tagger with a language model, and with texts
            for one whose language model is trained, too.
        dev: the dev sentences, with the same.
        settings: settings of the training.
        folder: local folder of the checkpoints. A training that was killed is resumed from it.
        seed: seed of the initial weights, of the order of the sentences and of dropout.
        device: where to train; "auto" for a GPU if there is one.
        identity: hash of everything else that decides the result.
        progress: set to the number of finished batches.
        start: the tagger whose weights are the initial ones; None means random weights.

    Raises:
        FitError: the folder is of another training or damaged, or the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vectors = train.vectors
        network = parts.network(vectors.depth, vectors.dim) if vectors else parts.network(0, 0)
    if start is not None:
        network.load_state_dict(start.network.state_dict())
    tuned = TunedModel(vectors.model) if isinstance(vectors, SentenceTexts) else None
    data = parts.data(train.tokens, vectors, [parts.tags.encode(tags) for tags in train.tags])
    held_out = parts.data(dev.tokens, dev.vectors)

    def score(found: Mapping[int, Sequence[int]]) -> float:
        predicted = [parts.tags.decode(one) for one in held_out.whole(found)]
        return dev_score(dev.tags, predicted, parts.tags.scheme is not None)

    batches = EpochBatches(data.lengths, settings.batch, seed)
    module = LitTagger(network, settings, settings.epochs * len(batches), score, tuned)
    result = fit(
        module,
        loader_of(data, batches),
        loader_of(held_out, EpochBatches(held_out.lengths, EVALUATION_BATCH, None)),
        FitSettings(
            settings.epochs,
            settings.patience,
            seed,
            settings.clip_norm,
            identity=identity,
            device=device,
        ),
        folder,
        progress,
    )
    module.load_state_dict(result.state)
    module.cpu().eval()
    return TrainedTagger(parts, network, result, tuned)


class LitTagger(LightningModule):
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
