"""What the ways to make a model smaller share: the model in memory, the request and the error class."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from lightning_modules.models.model_settings import ModelSettings
from preprocess.errors import UserError
from preprocess.tokenizers.load import Tokenizer

HEAD = "head."
"""Prefix of the names of the output layer's tensors."""


class SmallerError(UserError):
    """A model cannot be made smaller in the requested way; the message says what is possible."""


class Names(NamedTuple):
    """What the user calls each setting, for messages.

    Attributes:
        layers, input_rank, vocabulary: the settings of `Reduction`.
        no_head: what leaves the output layer out.
    """

    layers: str
    input_rank: str
    vocabulary: str
    no_head: str


OF_EXPORT = Names(
    "export.layers", "export.input_rank", "export.vocabulary", "set export.head to false"
)
OF_COMMAND = Names("--layers", "--input-rank", "--vocabulary", "add --no-head")


class Reduction(NamedTuple):
    """How a model is made smaller; None leaves a part as it is.

    Attributes:
        layers: number of recurrent layers to keep, the lowest ones.
        input_rank: rank of the input matrix.
        vocabulary: number of ids to keep, the first ones, control tokens included.
        names: names of the settings, for messages.
    """

    layers: int | None = None
    input_rank: int | None = None
    vocabulary: int | None = None
    names: Names = OF_EXPORT

    @property
    def is_empty(self) -> bool:
        """Whether nothing is made smaller."""
        return self.layers is self.input_rank is self.vocabulary is None


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
