"""A language model that is trained with a head (ULMFiT, Howard & Ruder 2018)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lightning_modules.tasks.classification.network_config import FinetuneConfig
from lightning_modules.tasks.features import Padded
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Text, Unit
from lightning_modules.vectors.text_batch import TextBatch
from preprocess.errors import UserError

PREFIX = "bilm."
"""Prefix of the names of the weights of a tuned model in a task folder."""


class TunedWeightsError(UserError):
    """Raised if tensors are not the weights of a language model."""


class TunedModel(nn.Module):
    """A copy of a language model whose layers have learning rates of their own.

    The output layer of the language model is not trained, because no head reads it. In training, the
    dropout of the language model applies.

    Args:
        model: the language model; it does not change.
        unit: what has a vector.
        config: learning rates and unfreezing.
    """

    def __init__(self, model: BiLM, unit: Unit, config: FinetuneConfig) -> None:
        super().__init__()
        self.model, self._unit, self._config = copy.deepcopy(model), unit, config
        self.model.network.head.requires_grad_(False)
        network = self.model.network
        # From the top layer down to the input.
        self._groups = [
            list(layer.parameters())
            for layer in (*reversed(network.recurrent.layers), network.input)
        ]
        for weight in (weight for group in self._groups for weight in group):
            weight.requires_grad_(True)

    def forward(self, batch: TextBatch) -> Padded:
        """Return the vectors of all layers of the units of a batch, with gradients."""
        tokens = self.model(batch.ids, batch.lengths, batch.spellings)
        directions = self.model.network.directions
        return Padded(batch.pool(tokens, directions=directions), batch.units)

    def unfreeze(self, epoch: int) -> None:
        """Select the layers that are trained in an epoch, counted from 0."""
        for depth, group in enumerate(self._groups):
            for weight in group:
                weight.requires_grad_(not self._config.unfreeze or depth < epoch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weights of each layer with their learning rate, for an optimiser."""
        rate, decay = self._config.learning_rate, self._config.layer_decay
        return [
            {"params": group, "lr": rate / decay**depth} for depth, group in enumerate(self._groups)
        ]


class TextData(Dataset[Any]):
    """Labelled texts as token ids; an index is a list of texts."""


def tuned_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the language model that a head reads, with `PREFIX`."""
    return {}


def tuned_model(model: BiLM, tensors: Mapping[str, Tensor]) -> BiLM:
    """Return a copy of a model with the weights that were tuned with a head."""
    return model
