"""Settings of a classifier and of its training. Imports no torch."""

from typing import Literal

from pydantic import Field

from preprocess.reading.labelled.options import LabelledTextOptions
from preprocess.section import runtime

HeadKind = Literal["pool", "lstm", "gru", "cnn"]


class ClassifyConfig(LabelledTextOptions):
    """`biloom classify train`: a classifier of texts, or a regression."""

    dev: str | None = runtime(
        None,
        "file of texts that are scored in the table and that choose the best epoch; null: dev_share of "
        "the training file",
    )
    dev_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training texts that is held out, if dev is null"
    )
    head: HeadKind = Field(
        "pool",
        description="pool: logistic regression on pooled vectors (for numbers, ridge regression); lstm, "
        "gru or cnn: a network on the vectors of all units",
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
    baselines: bool = Field(
        True,
        description="also score the most frequent label, TF-IDF, each layer and the mix of the layers",
    )
    cache: str | None = runtime(
        None,
        "vector cache from which the vectors of its texts are read, beside --model; made with "
        "embed.layers=all",
    )
    seed: int = Field(
        1, ge=0, lt=1 << 32, description="seed of the held-out share and of the first training"
    )
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="trainings of lstm, gru or cnn with consecutive seeds, whose scores are pooled; the "
        "folder has the first one",
    )
    bundle: bool = Field(False, description="copy the language model into the folder")
    device: Literal["auto", "cpu", "cuda"] = runtime(
        "auto", "where to compute; auto: a GPU if there is one, otherwise the CPU"
    )

    @property
    def reading(self) -> LabelledTextOptions:
        """How files are read."""
        names = LabelledTextOptions.model_fields
        return LabelledTextOptions(**{name: getattr(self, name) for name in names})


class ClassifyUseConfig(LabelledTextOptions):
    """`biloom classify test` and `biloom classify predict`; how to read is as in training, if not set."""

    output: Literal["tsv", "jsonl"] = Field(
        "tsv", description="format of the predictions; jsonl: an object for each text"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to compute; auto: a GPU if there is one, otherwise the CPU"
    )
