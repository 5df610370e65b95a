"""A trained classifier in use: texts to labels with probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.linear.regression import (
    Linear,
    layer_features,
    probabilities,
)
from lightning_modules.tasks.classification.pooled import ALONE, Source, pooled_sides, pooled_texts
from lightning_modules.tasks.classification.saved import SavedPool

Doubles = npt.NDArray[np.float64]

WEIGHT, BIAS, PRIOR, MIX = "weight", "bias", "prior", "mix"
"""Names of tensors: those of a linear head, the prediction for a text without tokens, and the weights of
the layers."""


class Head(Protocol):
    """The part of a classifier that reads vectors."""

    def outputs(self, source: Source, text: str, pair: str | None) -> Doubles | None:
        """Return the outputs for a text, (k,); None if it has no tokens."""


@dataclass(frozen=True)
class PooledHead:
    """A linear map from the pooled vectors of some layers.

    Attributes:
        linear: the map.
        layers: the layers that it reads, in a row.
        mean: whether it reads their mean instead.
    """

    linear: Linear
    layers: tuple[int, ...]
    mean: bool

    def features(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return features (n, f) from pooled vectors (n, depth, width)."""
        if self.mean:
            mean: npt.NDArray[np.float32] = vectors.mean(1)
            return mean
        return layer_features(vectors, self.layers)

    def outputs(self, source: Source, text: str, pair: str | None) -> Doubles | None:
        """Return the outputs for a text, (k,); None if it has no tokens."""
        texts = [text] if pair is None else [text, pair]
        found = pooled_sides(source, [pooled_texts(source, [one], ALONE) for one in texts])
        if not found.lengths[0]:
            return None
        outputs: Doubles = self.linear.outputs(self.features(found.vectors))[0]
        return outputs

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store."""
        found = {
            WEIGHT: torch.from_numpy(self.linear.weight),
            BIAS: torch.from_numpy(self.linear.bias),
        }
        if self.linear.mix is not None:
            found[MIX] = torch.from_numpy(self.linear.mix)
        return found

    def config(self) -> dict[str, Any]:
        """Return what `of` needs beside the tensors."""
        linear = self.linear
        return {
            "layers": [*self.layers],
            "mean": self.mean,
            "strength": linear.strength,
            "method": linear.method,
        }

    @classmethod
    def of(cls, saved: SavedPool, tensors: Mapping[str, Tensor]) -> "PooledHead":
        """Return the head with these settings and tensors."""
        weight, bias = (tensors[name].numpy() for name in (WEIGHT, BIAS))
        mix = tensors[MIX].numpy() if MIX in tensors else None
        return cls(
            Linear(weight, bias, saved.strength, saved.method, mix), saved.layers, saved.mean
        )


@dataclass(frozen=True)
class Prediction:
    """The prediction for a text.

    Attributes:
        labels: the predicted labels: one, or with several labels any number of them.
        probabilities: the probability of each label, in the order of the task's labels; the predicted
            number if the task is a regression.
        note: empty, or why the prediction does not depend on the text.
    """

    labels: tuple[str, ...]
    probabilities: Doubles
    note: str = ""

    @property
    def probability(self) -> float:
        """The probability of the predicted label, the least one of several; 1 if none is predicted."""
        return float(self.probabilities.max(initial=0))


class Classifier:
    """A trained classifier of texts.

    The prediction for a text depends on the text alone, to the bit: each text is read by itself.

    Args:
        problem: what is predicted.
        head: reads the vectors.
        source: where vectors come from.
        prior: the prediction for a text without tokens, (k,).
        has_pairs: whether it classifies pairs of texts.

    Attributes:
        problem, head, source, prior, has_pairs: the arguments.
    """

    def __init__(
        self, problem: Problem, head: Head, source: Source, prior: Doubles, has_pairs: bool
    ) -> None:
        self.problem, self.has_pairs, self.prior = problem, has_pairs, prior
        self.head, self.source = head, source

    def predict(self, text: str, pair: str | None = None, problem: str = "") -> Prediction:
        """Return the prediction for a text, or for a pair of texts.

        Args:
            text: the text.
            pair: the second text of a pair.
            problem: why there is no text, such as ``empty text``; empty if there is one.
        """
        outputs = None if problem else self.head.outputs(self.source, text, pair)
        if outputs is None:
            note = f"{problem or 'no tokens'}: predicted from the training labels alone"
            return Prediction(self._decide(self.prior), self.prior, note)
        found = probabilities(outputs[None], self.problem)[0]
        return Prediction(self._decide(found), found)

    def _decide(self, found: Doubles) -> tuple[str, ...]:
        labels = self.problem.labels
        if self.problem.target == "number":
            return ()
        if self.problem.target == "several":
            return tuple(label for label, p in zip(labels, found, strict=True) if p >= 0.5)
        return (labels[int(found.argmax())],)
