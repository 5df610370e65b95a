"""Tagged sentences as batches of a tagger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_modules.tasks.features import Features
from lightning_modules.tasks.tagging.lexicon import LONGEST, Lexicon
from lightning_modules.tasks.tagging.tagger import TagBatch
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.text_batch import TextBatch
from preprocess.errors import UserError
from preprocess.tokenizers.segmentation.joined_words import JoinedWords

PIECE = 1000
"""Tokens of a longer sentence that are tagged together."""


class TagDataError(UserError):
    """Raised if the vectors of a sentence do not fit its tokens."""


@dataclass(frozen=True)
class SentenceTexts:
    """The texts of sentences, for a language model that is trained with the tagger.

    Attributes:
        model: the language model before its training.
        texts: the words of each sentence.
    """

    model: BiLM
    texts: Sequence[list[str] | JoinedWords]

    @property
    def depth(self) -> int:
        """Number of layers of a vector."""
        return self.model.depth

    @property
    def dim(self) -> int:
        """Size of a vector in one layer."""
        return self.model.dim

    def batch(self, pieces: Sequence[tuple[int, int, int]]) -> TextBatch:
        """Return pieces of texts, given by number, first word and end, as tensors."""
        return self.model.batch([_piece(self.texts[n], start, end) for n, start, end in pieces])


def _piece(text: list[str] | JoinedWords, start: int, end: int) -> list[str] | JoinedWords:
    if isinstance(text, JoinedWords):
        return JoinedWords(text[start:end], text.separators[start : end - 1])
    return text[start:end]


Vectors = Features | SentenceTexts
"""Vectors of sentences, or what they are computed from in training."""


class TagData(Dataset[TagBatch]):
    """Sentences, whose batches are made when they are requested.

    A sentence of more than `PIECE` tokens is cut into pieces. Vectors are those of the whole sentence; a
    language model that is trained reads each piece by itself, so that memory is bounded.

    Args:
        sentences: the tokens of each sentence; none is empty.
        lexicon: ids of words and characters.
        has_characters: whether the batches have characters.
        vectors: the vectors of the sentences or their texts, or None.
        outputs: the outputs for the tags of each sentence, or None.

    Attributes:
        lengths: number of tokens of each piece, int64 (pieces,).
        long_sentences: number of sentences that are cut.
    """

    def __init__(
        self,
        sentences: Sequence[Sequence[str]],
        lexicon: Lexicon,
        has_characters: bool,
        vectors: Vectors | None = None,
        outputs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._sentences, self._lexicon = sentences, lexicon
        self._has_characters, self._vectors, self._outputs = has_characters, vectors, outputs
        self._pieces = [
            (number, start, min(start + PIECE, len(tokens)))
            for number, tokens in enumerate(sentences)
            for start in range(0, len(tokens), PIECE)
        ]
        self.lengths = np.array([end - start for _, start, end in self._pieces], np.int64)
        self.long_sentences = sum(len(tokens) > PIECE for tokens in sentences)

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, indices: list[int]) -> TagBatch:
        """Return a batch of pieces, padded to the longest one."""
        lengths = torch.from_numpy(self.lengths[indices])
        units = int(lengths.max())
        words = torch.zeros(len(indices), units, dtype=torch.long)
        tags = None if self._outputs is None else torch.zeros_like(words)
        characters = words.new_zeros(*words.shape, LONGEST) if self._has_characters else None
        for row, index in enumerate(indices):
            number, start, end = self._pieces[index]
            tokens = self._sentences[number][start:end]
            words[row, : len(tokens)] = torch.from_numpy(self._lexicon.word_ids(tokens))
            if characters is not None:
                ids = self._lexicon.character_ids(tokens)
                characters[row, : len(tokens)] = torch.from_numpy(ids)
            if tags is not None and self._outputs is not None:
                tags[row, : len(tokens)] = torch.tensor(self._outputs[number][start:end])
        layers = text = None
        if isinstance(self._vectors, SentenceTexts):
            text = self._vectors.batch([self._pieces[index] for index in indices])
        elif self._vectors is not None:
            layers = self._layers(self._vectors, indices, units)
        return TagBatch(lengths, words, characters, layers, tags, tuple(indices), text)

    def _layers(self, features: Features, indices: Sequence[int], units: int) -> Tensor:
        """Return the vectors of the pieces, (depth, batch, units, dim), 0 in the padding."""
        layers = np.zeros((features.depth, len(indices), units, features.dim), np.float32)
        for row, index in enumerate(indices):
            number, start, end = self._pieces[index]
            vectors = features[number]
            if vectors.shape[1]:  # a sentence of whitespace has no vectors
                self._check(number, vectors)
                layers[:, row, : end - start] = vectors[:, start:end]
        return torch.from_numpy(layers)

    def _check(self, number: int, vectors: npt.NDArray[np.float32]) -> None:
        tokens = self._sentences[number]
        if vectors.shape[1] != len(tokens):
            raise TagDataError(
                f"the sentence {' '.join(tokens)!r:.60} has {len(tokens):,} tokens, but "
                f"{vectors.shape[1]:,} vectors; make the vector cache again with `biloom embed "
                "embed.words=true embed.unit=word`, or pass the model folder"
            )

    def whole(self, found: Mapping[int, Sequence[int]]) -> list[list[int]]:
        """Return the outputs of each sentence, given those of each piece by its index."""
        outputs: list[list[int]] = [[] for _ in self._sentences]
        for index, (number, _, _) in enumerate(self._pieces):
            outputs[number] += found[index]
        return outputs
