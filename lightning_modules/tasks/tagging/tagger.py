"""The network of a tagger: features of words, a bidirectional LSTM and a CRF.

The shape is that of Lample et al. (2016) and Ma and Hovy (2016). The mixed layers of a language model are
further features of a word (Peters et al. 2018).

Legend of shapes: batch is the number of sentences, units the number of words of the longest one, depth
the number of layers of the language model, dim the size of a vector in one layer.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_modules.nn.scalar_mix import ScalarMix
from lightning_modules.tasks.tagging.config import TaggerConfig
from lightning_modules.tasks.tagging.crf import LinearChainCRF
from lightning_modules.tasks.tagging.lexicon import FIRST, PADDING, UNKNOWN
from lightning_modules.tasks.tagging.tagset import TagSet
from lightning_modules.vectors.text_batch import TextBatch

WIDTH = 3
"""Characters under a filter."""
WORD_SCALE = 0.1
"""Standard deviation of the initial vectors of words. Most words of a training file are rare, so that
their vectors stay near the initial ones, which must not drown the other features of a word."""
RARE_DROPOUT = 0.5
"""In training, a word that occurs once is read as an unknown word with this probability, so that the
vector of unknown words is learned (Lample et al. 2016, section 4.3)."""


class TagBatch(NamedTuple):
    """The words of several sentences.

    Attributes:
        lengths: number of words of each sentence, int64 (batch,), at least 1.
        words: their ids in the lexicon, int64 (batch, units); `PADDING` past the end.
        characters: ids of their characters, int64 (batch, units, characters), or None.
        layers: vectors of the language model, float32 (depth, batch, units, dim), or None.
        text: what a language model that is trained, too, makes ``layers`` of, or None.
        tags: outputs of the training tags, int64 (batch, units), any value past the end; or None.
        indices: which sentences of the data set these are.
    """

    lengths: Tensor
    words: Tensor
    characters: Tensor | None
    layers: Tensor | None
    tags: Tensor | None
    indices: tuple[int, ...]
    text: TextBatch | None = None

    def to(self, device: torch.device) -> "TagBatch":
        """Return the batch on a device."""
        characters, layers, tags = (
            None if tensor is None else tensor.to(device)
            for tensor in (self.characters, self.layers, self.tags)
        )
        lengths, words = self.lengths.to(device), self.words.to(device)
        text = None if self.text is None else self.text.to(device)
        return TagBatch(lengths, words, characters, layers, tags, self.indices, text)


@dataclass(frozen=True)
class TaggerSizes:
    """Sizes of a tagger that follow from its data.

    Attributes:
        words: number of words of the lexicon.
        repeated: number of those that occur more than once in the training file.
        characters: number of characters of the lexicon; 0 means that none are read.
        depth: layers of the language model; 0 without one.
        dim: size of its vectors in one layer.
    """

    words: int
    repeated: int
    characters: int
    depth: int = 0
    dim: int = 0


class Tagger(nn.Module):
    """A network that predicts a tag for each word.

    Args:
        config: its settings.
        sizes: its sizes.
        tags: the tags that it predicts.

    Attributes:
        mix: the mix of the language model's layers, or None.
    """

    def __init__(self, config: TaggerConfig, sizes: TaggerSizes, tags: TagSet) -> None:
        super().__init__()
        self.first_rare = FIRST + sizes.repeated
        self.mix: ScalarMix | None = None
        self.words: nn.Embedding | None = None
        self.characters: CharacterFeatures | None = None
        size = 0
        if sizes.depth:
            self.mix = ScalarMix(sizes.depth, "text" if config.layer_norm else None)
            size += sizes.dim
        if config.word_size:
            self.words = nn.Embedding(FIRST + sizes.words, config.word_size, PADDING)
            with torch.no_grad():
                self.words.weight.mul_(WORD_SCALE)
            size += config.word_size
        if config.filters and sizes.characters:
            self.characters = CharacterFeatures(
                sizes.characters, config.character_size, config.filters
            )
            size += config.filters
        assert size, "a tagger needs features"
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(
            size,
            config.hidden,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
            bidirectional=True,
        )
        self.output = nn.Linear(2 * config.hidden, len(tags.tags))
        self.crf = LinearChainCRF(len(tags.tags), *tags.constraints())

    def forward(self, batch: TagBatch) -> Tensor:
        """Return the emissions, (batch, units, tags); undefined past the end of a sentence."""
        features = self.dropout(torch.cat(self._features(batch), 2))
        packed = pack_padded_sequence(
            features, batch.lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=features.shape[1]
        )
        emissions: Tensor = self.output(self.dropout(states))
        return emissions

    def _features(self, batch: TagBatch) -> list[Tensor]:
        """Return the features of the words, each (batch, units, size)."""
        found: list[Tensor] = []
        if self.mix is not None:
            assert batch.layers is not None
            found.append(self.mix(batch.layers, batch.lengths))
        if self.words is not None:
            words = batch.words
            if self.training:
                hidden = torch.rand(words.shape, device=words.device) < RARE_DROPOUT
                words = torch.where(hidden & (words >= self.first_rare), UNKNOWN, words)
            found.append(self.words(words))
        if self.characters is not None:
            assert batch.characters is not None
            found.append(self.characters(batch.characters))
        return found

    def loss(self, batch: TagBatch) -> Tensor:
        """Return the mean negative log-likelihood of the sentences' tags, in nats, ()."""
        assert batch.tags is not None
        return -self.crf.log_likelihood(self(batch), batch.tags, batch.lengths).mean()

    def predict(self, batch: TagBatch) -> list[list[int]]:
        """Return the outputs of the most probable allowed tags of each sentence."""
        return self.crf.decode(self(batch), batch.lengths)


class CharacterFeatures(nn.Module):
    """Features of a word from its characters: a convolution, and the maximum over positions.

    Args:
        characters: number of characters of the lexicon.
        size: size of a character's vector.
        filters: number of features.
    """

    def __init__(self, characters: int, size: int, filters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(FIRST + characters, size, PADDING)
        self.convolution = nn.Conv1d(size, filters, WIDTH, padding=WIDTH // 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the features, (batch, units, filters), of character ids (batch, units, characters)."""
        batch, units, width = ids.shape
        # Words that occur several times in a batch are computed once.
        types, places = ids.reshape(-1, width).unique(dim=0, return_inverse=True)
        vectors = self.convolution(self.embedding(types).transpose(1, 2))
        # The padding of a word must not win: its features are at most those of the rest.
        vectors = vectors.masked_fill((types == PADDING)[:, None, :], float("-inf"))
        found: Tensor = relu(vectors.amax(2))  # 0 for the empty words of padding
        return found[places].reshape(batch, units, -1)
