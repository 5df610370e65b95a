"""A language model that is trained with a head (ULMFiT, Howard & Ruder 2018)."""

import copy
from typing import Any

from torch import Tensor, nn

from lightning_modules.nn.bilm import NoHead
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.tasks.features import Padded
from lightning_modules.tasks.stored_task import Task
from lightning_modules.tasks.training_config import FinetuneConfig
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.text_batch import TextBatch

PREFIX = "bilm."
"""Prefix of the names of the weights of a tuned model in a task folder."""


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
        directions = self.model.network.reading_directions
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


def tuned_model(task: Task[Any], model: BiLM) -> TunedModel:
    """Return the language model of a task as it was trained with the head, in evaluation mode.

    Args:
        task: the task, whose tensors hold the weights.
        model: the language model before the tuning; it does not change.

    Raises:
        DamagedResult: the tensors are not the weights of a tuned copy of this model.
    """
    tuned = TunedModel(model)
    found = {name: one for name, one in task.tensors.items() if name.startswith(PREFIX)}
    # Not `tensors`, which would copy the weights from a GPU.
    expected = {PREFIX + name: one for name, one in tuned.model.network.state_dict().items()}
    task.check_tensors(found, expected)
    state = {name.removeprefix(PREFIX): one for name, one in found.items()}
    tuned.model.network.load_state_dict(state)
    return tuned.eval()
