"""The settings of a model folder (config.json), which may come from an untrusted source."""

import json
import math
from typing import Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from lightning_modules.config import CharCNNInputConfig, ModelConfig
from lightning_modules.sizes import parameter_count
from preprocess.files.details import first_problem
from preprocess.section import Section
from preprocess.text.config import CleaningConfig

STORED = ("float32", "float16", "int8")
"""Types in which weights can be stored."""


class ModelSettings(Section):
    """The contents of config.json.

    Attributes:
        model: the network.
        vocabulary: number of ids.
        cutoffs: first rank of each tail of an adaptive softmax.
        boundary: the boundary tokens of training, as in ``train.boundary``.
        cleaning: the cleaning of the training corpus.
        tokenizer: content hash of the tokenizer; empty for an ELMo archive.
        head: whether the output layer is stored.
        weights: type of the stored weights.
        type_vectors: whether the vector of every word is stored.
        warm_up: text that can be read before each text.
    """

    model: ModelConfig
    vocabulary: StrictInt = Field(ge=3)
    cutoffs: tuple[StrictInt, ...]
    boundary: Literal["eos", "bos_eos"]
    cleaning: CleaningConfig
    tokenizer: StrictStr = ""
    head: StrictBool = True
    weights: Literal["float32", "float16", "int8"] = "float32"
    type_vectors: StrictBool = False
    warm_up: StrictStr | None = None

    @model_validator(mode="after")
    def _output_is_stored(self) -> "ModelSettings":
        if self.model.tied and self.model.input.kind == "adaptive" and not self.head:
            raise ValueError("model.tied needs the output layer, but head is false")
        return self

    @property
    def parameters(self) -> int:
        """Number of trainable parameters in the folder. Nothing is allocated to count them."""
        return parameter_count(self.model, self.vocabulary, self.cutoffs, self.head)

    @property
    def words_are_spelled(self) -> bool:
        """Whether the network reads words by their spelling."""
        return isinstance(self.model.input, CharCNNInputConfig)


def parse_settings(data: bytes) -> tuple[dict[str, Any], ModelSettings]:
    """Return the contents of config.json: as parsed, and as validated settings.

    Raises:
        ValueError: they are not JSON, or not the settings of a model; the message is one line.
    """
    try:
        saved = json.loads(data, parse_constant=_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("its lists or objects are nested too deeply") from error
    if not isinstance(saved, dict):
        raise ValueError(f"it holds a {type(saved).__name__}, not an object")
    kind = saved.get("weights", "float32")
    if kind not in STORED:
        raise ValueError(f"weights are stored as '{kind}', which needs a newer biloom; upgrade it")
    try:
        return saved, ModelSettings.model_validate(saved)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value
