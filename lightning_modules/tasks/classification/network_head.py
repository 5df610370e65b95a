"""A trained network as the head of a classifier."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_modules.tasks.classification.heads import TextHead, predict
from lightning_modules.tasks.classification.inputs import Inputs, TextInputs, VectorInputs
from lightning_modules.tasks.classification.pooled import ALONE, Source
from lightning_modules.tasks.features import features_of
from lightning_modules.tasks.tuning import PREFIX as TUNED
from lightning_modules.tasks.tuning import TunedModel

PREFIX = "network."
"""Prefix of the names of the weights of the network in a task folder."""


class NetworkHead:
    """A network on the vectors of all units of a text.

    Args:
        head: the network.
        tuned: the language model that was trained with it, or None.
    """

    def __init__(self, head: TextHead, tuned: TunedModel | None = None) -> None:
        self.head, self.tuned = head, tuned

    def outputs(
        self, source: Source, text: str, pair: str | None
    ) -> npt.NDArray[np.float64] | None:
        """Return the outputs for a text, (k,); None if it has no tokens."""
        sides = [[text]] if pair is None else [[text], [pair]]
        inputs = self._inputs(source, sides)
        if not inputs.lengths[0]:
            return None
        found = predict(self.head, inputs, self.tuned, batch_texts=1)[0]
        return np.asarray(found, np.float64)

    def _inputs(self, source: Source, sides: Sequence[Sequence[str]]) -> Inputs:
        most = self.head.config.most_units
        if self.tuned is not None:
            return TextInputs(self.tuned.model, source.unit, sides, most)
        features = [
            features_of(source.model, None, side, source.unit, batch_tokens=ALONE) for side in sides
        ]
        return VectorInputs(features, most)


def network_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a trained network under their names in a task folder."""
    return {
        name if name.startswith(TUNED) else f"{PREFIX}{name}": tensor
        for name, tensor in tensors.items()
    }
