"""Training of a tagger on sentences, with and without a language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_modules.tasks.features import Features, Progress
from lightning_modules.tasks.fitting import EpochBatches, FitSettings, fit, loader_of
from lightning_modules.tasks.tagging.config import TagFitConfig
from lightning_modules.tasks.tagging.data import TagData
from lightning_modules.tasks.tagging.evaluation import dev_score
from lightning_modules.tasks.tagging.module import LitTagger
from lightning_modules.tasks.tagging.trained import (
    EVALUATION_BATCH,
    TaggerParts,
    TrainedTagger,
)
from lightning_modules.vectors.worker_device import DeviceName
from preprocess.reading.labelled.examples import TaggedSentence


@dataclass(frozen=True)
class Sentences:
    """Tagged sentences with their vectors.

    Attributes:
        examples: the sentences.
        features: the vectors of the language model, in the same order; None without one.
    """

    examples: Sequence[TaggedSentence]
    features: Features | None = None

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
) -> TrainedTagger:
    """Train a tagger, and return it with the weights of its best epoch on the dev sentences.

    Args:
        parts: what it consists of.
        train: the training sentences; with vectors for a tagger with a language model.
        dev: the dev sentences, with vectors if ``train`` has them.
        settings: settings of the training.
        folder: local folder of the checkpoints. A training that was killed is resumed from it.
        seed: seed of the initial weights, of the order of the sentences and of dropout.
        device: where to train; "auto" for a GPU if there is one.
        identity: hash of everything else that decides the result.
        progress: set to the number of finished batches.

    Raises:
        FitError: the folder is of another training or damaged, or the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features = train.features
        network = parts.network(features.depth, features.dim) if features else parts.network(0, 0)
    outputs = [parts.tags.encode(tags) for tags in train.tags]
    data = TagData(train.tokens, parts.lexicon, parts.has_characters, features, outputs)
    held_out = parts.data(dev.tokens, dev.features)

    def score(found: Mapping[int, Sequence[int]]) -> float:
        predicted = [parts.tags.decode(one) for one in held_out.whole(found)]
        return dev_score(dev.tags, predicted, parts.tags.scheme is not None)

    result = fit(
        LitTagger(network, settings.learning_rate, score),
        loader_of(data, EpochBatches(data.lengths, settings.batch, seed)),
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
    prefix = "tagger."
    state = {name.removeprefix(prefix): tensor for name, tensor in result.state.items()}
    network.load_state_dict(state)
    return TrainedTagger(parts, network.cpu().eval(), result)
