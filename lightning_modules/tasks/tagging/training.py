"""Training of a tagger on sentences, with and without a language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules.tasks.features import Features, Progress
from lightning_modules.tasks.fitting import EpochBatches, FitResult, FitSettings, fit, loader_of
from lightning_modules.tasks.tagging.config import TagFitConfig, TaggerConfig
from lightning_modules.tasks.tagging.data import TagData
from lightning_modules.tasks.tagging.evaluation import dev_score
from lightning_modules.tasks.tagging.lexicon import Lexicon
from lightning_modules.tasks.tagging.module import LitTagger
from lightning_modules.tasks.tagging.tagger import Tagger, TaggerSizes
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.vectors.worker_device import DeviceName
from preprocess.reading.labelled.examples import TaggedSentence

EVALUATION_BATCH = 64
"""Sentences that are tagged together."""


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


@dataclass(frozen=True)
class TaggerParts:
    """What a tagger consists of besides its weights.

    Attributes:
        config: the settings of the network.
        lexicon: the words and characters that it knows by itself.
        tags: the tags that it predicts.
        has_characters: whether it reads the characters of words.
    """

    config: TaggerConfig
    lexicon: Lexicon
    tags: TagSet
    has_characters: bool

    @property
    def has_own_features(self) -> bool:
        """Whether the tagger has features of words without a language model."""
        return self.config.word_size > 0 or (self.config.filters > 0 and self.has_characters)

    def network(self, depth: int, dim: int) -> Tagger:
        """Return a new network for vectors of ``depth`` layers of ``dim``; 0 without vectors."""
        lexicon = self.lexicon
        characters = len(lexicon.characters) if self.has_characters else 0
        sizes = TaggerSizes(len(lexicon.words), lexicon.repeated, characters, depth, dim)
        return Tagger(self.config, sizes, self.tags)

    def data(self, sentences: Sequence[Sequence[str]], features: Features | None) -> TagData:
        """Return sentences as the data of a network."""
        return TagData(sentences, self.lexicon, self.has_characters, features)


@dataclass(frozen=True)
class TrainedTagger:
    """A tagger with the weights of its best epoch.

    Attributes:
        parts: what it consists of.
        network: the network, in evaluation mode.
        result: how the training went; None if the tagger was read from a folder.
    """

    parts: TaggerParts
    network: Tagger
    result: FitResult | None = None

    @torch.inference_mode()
    def predict(
        self,
        sentences: Sequence[Sequence[str]],
        features: Features | None,
        progress: Progress | None = None,
    ) -> list[tuple[str, ...]]:
        """Return the tags of each sentence, as the training file writes them.

        Args:
            sentences: the tokens of each sentence; none is empty.
            features: their vectors; None for a tagger without a language model.
            progress: set to the number of tokens that are done.
        """
        data = self.parts.data(sentences, features)
        device = next(self.network.parameters()).device
        found: dict[int, list[int]] = {}
        done = 0
        for indices in EpochBatches(data.lengths, EVALUATION_BATCH, None):
            batch = data[indices]
            found.update(zip(indices, self.network.predict(batch.to(device)), strict=True))
            done += int(batch.lengths.sum())
            if progress:
                progress.update(done)
        return [self.parts.tags.decode(outputs) for outputs in data.whole(found)]

    @property
    def layer_shares(self) -> list[float]:
        """The learned share of each layer of the language model in the mix; empty without one."""
        mix = self.network.mix
        return [] if mix is None else mix.weights.detach().softmax(0).tolist()

    @property
    def story(self) -> str:
        """How the training went, for a user."""
        assert self.result is not None
        epochs = len(self.result.history)
        why = "the dev score had not become better" if self.result.stopped_early else "the limit"
        return f"{epochs} epochs ({why}), the best is epoch {self.result.best_epoch}"

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the weights by name, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}


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

    batches = EpochBatches(data.lengths, settings.batch, seed)
    result = fit(
        LitTagger(network, settings, settings.epochs * len(batches), score),
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
    prefix = "tagger."
    state = {name.removeprefix(prefix): tensor for name, tensor in result.state.items()}
    network.load_state_dict(state)
    return TrainedTagger(parts, network.cpu().eval(), result)
