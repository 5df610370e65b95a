"""Texts, or pairs of texts, as batches that a head reads: vectors, or ids for a tuned model."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from lightning_modules.tasks.features import Features, Padded
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Text, Unit
from lightning_modules.vectors.text_batch import TextBatch
from preprocess.vectors.shard import text_key


class Inputs(Protocol):
    """Texts, or pairs of texts, in batches.

    Attributes:
        lengths: number of units of each text, of both texts of a pair together, int64 (n,).
        cut: number of texts that are longer than a head reads; a pair counts if one of its texts is.
        content: a hash of the texts and of what their vectors depend on.
    """

    lengths: npt.NDArray[np.int64]
    cut: int

    @property
    def content(self) -> str: ...

    def batch(self, indices: Sequence[int]) -> tuple[Any, ...]:
        """Return a batch of the texts, and one of the second texts of pairs."""


class VectorInputs:
    """Texts whose vectors are known.

    Args:
        features: vectors of the texts, and of the second texts if these are pairs.
        most_units: units of a text that are read.
    """

    def __init__(self, features: Sequence[Features], most_units: int) -> None:
        self._features, self._most = features, most_units
        self.lengths = _total([np.minimum(one.lengths, most_units) for one in features])
        self.cut = _count([one.lengths > most_units for one in features])

    @property
    def content(self) -> str:
        """A hash of the texts and of the model."""
        return _hash([one.content for one in self._features])

    def batch(self, indices: Sequence[int]) -> tuple[Padded, ...]:
        """Return the vectors of texts."""
        return tuple(one.batch(indices, self._most) for one in self._features)


class TextInputs:
    """Texts for a language model that is tuned.

    The language model reads the first ``most_units`` tokens of a longer text only, so that memory is
    bounded.

    Args:
        model: the language model, whose tokenizer is used.
        unit: what has a vector.
        texts: the texts, and the second texts if these are pairs.
        most_units: tokens of a text that are read.
    """

    def __init__(
        self, model: BiLM, unit: Unit, texts: Sequence[Sequence[Text]], most_units: int
    ) -> None:
        self._model, self._unit = model, unit
        cut = [_cut(model, side, most_units) for side in texts]
        self._texts = [side for side, _, _ in cut]
        self.lengths = _total([lengths for _, lengths, _ in cut])
        self.cut = _count([was_cut for _, _, was_cut in cut])

    @property
    def content(self) -> str:
        """A hash of the texts and of the model."""
        keys = [text_key(text).hex() for side in self._texts for text in side]
        return _hash([self._model.content, self._unit, *keys])

    def batch(self, indices: Sequence[int]) -> tuple[TextBatch, ...]:
        """Return the ids of texts."""
        return tuple(
            self._model.batch([side[index] for index in indices], self._unit)
            for side in self._texts
        )


class Batch(NamedTuple):
    """A batch of labelled texts.

    Attributes:
        texts: as `Inputs.batch` returns them.
        truth: the labels, as `Objective.tensor` returns them.
    """

    texts: tuple[Any, ...]
    truth: Tensor


class LabelledInputs(Dataset[Batch]):
    """Texts with labels; an index is a list of texts.

    Args:
        inputs: the texts.
        truth: the labels, as `Objective.tensor` returns them.
    """

    def __init__(self, inputs: Inputs, truth: Tensor) -> None:
        self._inputs, self._truth = inputs, truth

    def __getitem__(self, indices: list[int]) -> Batch:
        return Batch(self._inputs.batch(indices), self._truth[indices])


def _cut(
    model: BiLM, texts: Sequence[Text], most: int
) -> tuple[list[Text], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return texts of at most ``most`` tokens, their numbers of tokens, and which of them were cut."""
    found: list[Text] = []
    lengths = np.zeros(len(texts), np.int64)
    was_cut = np.zeros(len(texts), np.bool_)
    for index, text in enumerate(texts):
        [read] = model.reader.read([text])
        lengths[index], was_cut[index] = len(read.tokens), len(read.tokens) > most
        if was_cut[index]:
            end = read.tokens[most].start
            if isinstance(text, str):
                text = read.text[:end]
            else:
                # At least one word, which may have more tokens.
                text = [*text[: max(1, sum(word.end <= end for word in read.words))]]
        found.append(text)
    return found, np.minimum(lengths, most), was_cut


def _total(lengths: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    total: npt.NDArray[np.int64] = np.sum(lengths, axis=0)
    return total


def _count(cut: Sequence[npt.NDArray[np.bool_]]) -> int:
    return int(np.any(cut, axis=0).sum())


def _hash(parts: Sequence[str]) -> str:
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
