"""The model in memory that the ways to make it smaller share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from lightning_modules.models.model_settings import ModelSettings
from preprocess.tokenizers.load import Tokenizer

HEAD = "head."
"""Prefix of the names of the output layer's tensors."""


class Parts(NamedTuple):
    """A model in memory.

    Attributes:
        settings: its settings. If ``head`` is false, the weights may still have the output layer,
            which is then read but not kept.
        weights: state dict of a `BiLMNetwork` in float32, and optionally `TYPE_VECTORS`.
        tokenizer: its tokenizer.
    """

    settings: ModelSettings
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer

    def with_settings(self, **changes: Any) -> "Parts":
        """Return the model with other values of some settings."""
        return self._replace(settings=self.settings.model_copy(update=changes))
