"""Settings of a classifier and of its training. Imports no torch."""

from typing import Literal

from pydantic import Field, model_validator

from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.training_config import FitConfig, TaskOptions
from preprocess.reading.labelled.options import LabelledTextOptions

HeadKind = Literal["pool", "lstm", "gru", "cnn"]


class ClassifyConfig(TaskOptions, LabelledTextOptions):
    """`biloom classify train`: a classifier of texts, or a regression."""

    head: HeadKind = Field(
        "pool",
        description="pool: logistic regression on pooled vectors (for numbers, ridge regression); lstm, "
        "gru or cnn: a network on the vectors of all units",
    )
    network: NetworkConfig = Field(
        default_factory=NetworkConfig, description="the network, if head is lstm, gru or cnn"
    )
    train: FitConfig = Field(
        default_factory=FitConfig, description="the training of lstm, gru or cnn"
    )
    layers: Literal["concat", "mean", "mix"] | int = Field(
        "concat",
        description="layers that head=pool reads; concat: all, in one vector; mean: their mean; mix: "
        "their sum with learned weights; a number: one layer, 0 is the input",
    )
    pooling: Literal["mean", "max", "mean_max"] = Field(
        "mean",
        description="how head=pool and the rows of the layers make one vector of a text's vectors; "
        "mean_max: both, in one vector",
    )
    unit: Literal["token", "word"] | None = Field(
        None,
        description="what has a vector; null: token, or the unit of the vector cache",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="weight of a text in training; balanced: inverse to how often its label occurs",
    )

    @model_validator(mode="after")
    def _fitting_head(self) -> "ClassifyConfig":
        if "kind" in self.network.model_fields_set and self.network.kind != self.head:
            raise ValueError(
                f"network.kind is {self.network.kind}, but head is {self.head}; set head only"
            )
        if self.finetune and self.head == "pool":
            raise ValueError("finetune trains a network: set head to lstm, gru or cnn")
        return self

    @property
    def reading(self) -> LabelledTextOptions:
        """How files are read."""
        names = LabelledTextOptions.model_fields
        return LabelledTextOptions(**{name: getattr(self, name) for name in names})

    @property
    def kept_training(self) -> str:
        """Which of several trainings a folder has; empty if there is one, as for head=pool."""
        return "" if self.head == "pool" else super().kept_training

    @property
    def trained_network(self) -> NetworkConfig:
        """The network with its kind."""
        return self.network.model_copy(update={"kind": self.head})


class ClassifyUseConfig(LabelledTextOptions):
    """`biloom classify test` and `biloom classify predict`; how to read is as in training, if not set."""

    output: Literal["tsv", "jsonl"] = Field(
        "tsv", description="format of the predictions; jsonl: an object for each text"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to compute; auto: a GPU if there is one, otherwise the CPU"
    )
