"""The settings of a trained classifier, as ``config.json`` of its task folder has them."""

from typing import Annotated, Literal

from pydantic import Field

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.pooled_units import Pooling
from lightning_modules.vectors.selection import Pooling as TextPooling
from lightning_modules.vectors.selection import Unit
from preprocess.reading.labelled.examples import Target
from preprocess.section import Section


class SavedPool(Section):
    """A linear head; the fields are those of `PooledHead` and of its map."""

    kind: Literal["pool"]
    layers: tuple[int, ...]
    mean: bool
    strength: float
    method: str


class SavedNetwork(Section):
    """A neural head: its network, and whether the language model was trained with it."""

    kind: Literal["lstm", "gru", "cnn"]
    network: NetworkConfig
    finetuned: bool


class SavedClassifier(Section):
    """Everything of a classifier but its labels and its tensors.

    Attributes:
        settings: the settings of the training.
        target, pairs, unit, pooling, text_pooling: as in `Problem`, `Classifier` and `Source`.
        head: the head.
    """

    settings: ClassifyConfig
    target: Target
    pairs: bool
    unit: Unit
    pooling: Pooling
    text_pooling: TextPooling
    head: Annotated[SavedPool | SavedNetwork, Field(discriminator="kind")]
