"""A trained tagger in use. Imports nothing that is needed for training only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_modules.tasks.epoch_batches import EpochBatches
from lightning_modules.tasks.features import Features, Progress
from lightning_modules.tasks.tagging.config import TaggerConfig
from lightning_modules.tasks.tagging.data import TagData, Vectors
from lightning_modules.tasks.tagging.lexicon import Lexicon
from lightning_modules.tasks.tagging.tagger import Tagger, TaggerSizes
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.tasks.tuning import TunedModel

if TYPE_CHECKING:
    from lightning_modules.tasks.fitting import FitResult

EVALUATION_BATCH = 64
"""Sentences that are tagged together."""


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

    def data(
        self,
        sentences: Sequence[Sequence[str]],
        vectors: Vectors | None,
        outputs: Sequence[Sequence[int]] | None = None,
    ) -> TagData:
        """Return sentences as the data of a network."""
        return TagData(sentences, self.lexicon, self.has_characters, vectors, outputs)


@dataclass(frozen=True)
class TrainedTagger:
    """A tagger with the weights of its best epoch.

    Attributes:
        parts: what it consists of.
        network: the network, in evaluation mode.
        result: how the training went; None if the tagger was read from a folder.
        tuned: the language model that was trained with it, in evaluation mode; None if it was frozen.
    """

    parts: TaggerParts
    network: Tagger
    result: "FitResult | None" = None
    tuned: TunedModel | None = None

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
        """Return the weights by name, on the CPU, with those of a tuned language model."""
        own = {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}
        return own | (self.tuned.tensors() if self.tuned else {})
