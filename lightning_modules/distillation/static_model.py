"""A table of static vectors as the files of a model folder."""

from typing import Any

import torch
from torch import Tensor

from lightning_modules.config import EmbeddingInputConfig, ModelConfig
from lightning_modules.distillation.type_sums import Floats
from lightning_modules.models.model_settings import ModelSettings
from lightning_modules.recurrent_config import NoRecurrenceConfig

TABLE = "input.embedding.weight"
"""Name of the table in the state dict of a `BiLMNetwork`."""


def static_settings(teacher: ModelSettings, width: int, weights: str) -> dict[str, Any]:
    """Return the contents of config.json of a static model.

    Args:
        teacher: the settings of the model that it is made from.
        width: size of a vector.
        weights: type of the stored vectors, one of `model_settings.STORED`.
    """
    model = ModelConfig(
        directions="forward",
        input=EmbeddingInputConfig(dropout=0.0),
        recurrent=NoRecurrenceConfig(hidden=width),
    )
    return {
        "model": model.model_dump(mode="json"),
        "vocabulary": teacher.vocabulary,
        "cutoffs": [],
        "boundary": teacher.boundary,
        "cleaning": teacher.cleaning.model_dump(mode="json"),
        "tokenizer": teacher.tokenizer,
        "head": False,
        "weights": weights,
        "type_vectors": False,
        "warm_up": None,
    }


def static_weights(vectors: Floats) -> dict[str, Tensor]:
    """Return the state dict of a static model's network."""
    return {TABLE: torch.from_numpy(vectors)}
