"""A language model that is trained with a head (ULMFiT, Howard & Ruder 2018)."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lightning_modules.nn.bilm import NoHead
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.tasks.features import Padded
from lightning_modules.tasks.training_config import FinetuneConfig
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.text_batch import TextBatch
from preprocess.errors import UserError

PREFIX = "bilm."
"""Prefix of the names of the weights of a tuned model in a task folder."""


class TunedWeightsError(UserError):
    """Raised if tensors are not the weights of a language model."""


class TunedModel(nn.Module):
    """A copy of a language model whose layers have learning rates of their own.

    The copy has no output layer, because no head reads it. In training, the dropout of the language
    model applies.

    Args:
        model: the language model; it does not change.

    Attributes:
        model: the copy.
    """

    def __init__(self, model: BiLM) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(True)
        network = self.model.network
        # A tied adaptive input is computed from the weights of the output layer.
        if not (isinstance(network.input, AdaptiveInput) and network.input.is_tied):
            network.head = NoHead()
        layers = [list(layer.parameters()) for layer in reversed(network.recurrent.layers)]
        recurrent = {id(weight) for layer in layers for weight in layer}
        others = [weight for weight in network.parameters() if id(weight) not in recurrent]
        # From the top layer down to the input.
        self._layers = [*layers, others]

    def forward(self, batch: TextBatch) -> Padded:
        """Return the vectors of all layers of the units of a batch, with gradients.

        Raises:
            BatchError: if the batch was made by a model with other ids.
        """
        self.model.check_batch(batch)
        tokens = self.model(batch.ids, batch.lengths, batch.spellings)
        directions = self.model.network.directions
        return Padded(batch.pool(tokens, directions=directions), batch.units)

    def parameter_groups(self, config: FinetuneConfig) -> list[dict[str, Any]]:
        """Return the weights of each layer with their peak learning rate, for an optimiser."""
        rate, decay = config.learning_rate, config.layer_decay
        return [
            {"params": layer, "lr": rate / decay**depth} for depth, layer in enumerate(self._layers)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, named with `PREFIX`, for a task folder."""
        state = self.model.network.state_dict()
        return {PREFIX + name: value.detach().cpu() for name, value in state.items()}


def tuned_model(model: BiLM, tensors: Mapping[str, Tensor]) -> TunedModel:
    """Return a model as it was trained with a head, in evaluation mode.

    Args:
        model: the language model before the tuning; it does not change.
        tensors: the weights of a task folder; those without `PREFIX` are ignored.

    Raises:
        TunedWeightsError: if these are not the weights of a tuned copy of this model.
    """
    tuned = TunedModel(model)
    state = {
        name.removeprefix(PREFIX): value
        for name, value in tensors.items()
        if name.startswith(PREFIX)
    }
    try:
        tuned.model.network.load_state_dict(state)
    except RuntimeError as error:
        raise TunedWeightsError(
            f"these are not the weights of a fine-tuned copy of this language model "
            f"({str(error).splitlines()[-1].strip():.200}); use the language model that the task was "
            "trained with, or train the task again"
        ) from error
    return tuned.eval()
