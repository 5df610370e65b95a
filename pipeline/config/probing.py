"""Settings of the commands that look into vectors: `probe`, `neighbours` and `map`."""

from typing import Literal

from pydantic import Field

from preprocess.reading.labelled.options import ColumnOptions
from preprocess.section import Section

LAYER = "layer of the cache, counted from 0; -1 is the last"


class NeighboursConfig(Section):
    """Settings of `biloom neighbours`."""

    layer: int = Field(-1, description=LAYER)
    neighbours: int = Field(8, ge=1, le=1000, description="maximum number of results in each list")


class MapConfig(Section):
    """Settings of `biloom map`."""

    layer: int = Field(-1, description=LAYER)
    method: Literal["pca", "tsne"] = Field(
        "pca",
        description="pca: the two directions of the largest variance; tsne: t-SNE, which shows groups "
        "(needs openTSNE)",
    )
    perplexity: float = Field(
        30.0, gt=1, description="t-SNE: about the number of near points that each point considers"
    )
    points: int = Field(
        2000, ge=2, le=20_000, description="maximum number of points; more are sampled by the seed"
    )
    labels: str | None = Field(
        None,
        description="file of labelled texts; each text gets the colour of its label; null: the colours "
        "show the words",
    )
    seed: int = Field(1, ge=0, description="seed of the sample and of t-SNE")


class ProbeConfig(ColumnOptions):
    """Settings of `biloom probe`."""

    task: Literal["tags", "senses", "wic"] = Field(
        "tags",
        description="tags: a label for each token; senses: the sense of a word in its context; wic: "
        "whether a word has the same sense in two texts",
    )
    dev: str | None = Field(
        None, description="tags: file to test on; null: a share of the sentences (dev_share)"
    )
    dev_share: float = Field(
        0.1, gt=0, lt=1, description="tags: share of the sentences to test on, if dev is null"
    )
    max_tokens: int = Field(
        300_000,
        ge=1,
        description="tags: maximum number of training tokens; of a larger file, sentences are drawn by "
        "the seed",
    )
    control: bool = Field(
        True,
        description="tags: also learn the control task, in which each word has a random label, and show "
        "the selectivity",
    )
    gold: str | None = Field(
        None, description="wic: file of the answers; null: the file with the suffix .gold"
    )
    lower: bool = Field(False, description="lower-case the texts, for a model of lower-cased text")
    seed: int = Field(1, ge=0, description="seed of the dev sentences, control labels and training")
