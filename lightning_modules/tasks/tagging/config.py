"""Settings of a tagger and of its training. Imports no torch."""

from functools import partial
from typing import Literal

from pydantic import Field

from lightning_modules.tasks.training_config import (
    Batch,
    ClipNorm,
    Epochs,
    FinetuneConfig,
    FitConfig,
    Patience,
    Rate,
    Schedule,
    TaskOptions,
    Warmup,
    WeightDecay,
)
from preprocess.reading.labelled.options import ColumnOptions
from preprocess.section import Section
from preprocess.tokenizers.segmentation.segmenters import SegmenterName

Join = Literal["auto", "text", "space", "script", "none"]
InnerScheme = Literal["auto", "file", "IOB1", "IOB2", "IOBES", "BILOU"]


class TaggerConfig(Section):
    """The network: features of words, a bidirectional LSTM and a CRF."""

    hidden: int = Field(128, ge=1, description="size of the LSTM's state in each direction")
    layers: int = Field(1, ge=1, le=8, description="layers of the LSTM")
    word_size: int = Field(
        64,
        ge=0,
        description="size of the tagger's own vectors of words, which are learned from the training "
        "file; 0: none",
    )
    filters: int = Field(
        32,
        ge=0,
        description="filters of the convolution over a word's characters, of width 3; 0: none. A "
        "tagger of single characters has none",
    )
    character_size: int = Field(24, ge=1, description="size of a character's vector")
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="dropout of the features of words and of the LSTM's output",
    )
    layer_norm: bool = Field(
        True,
        description="normalise each layer of the language model over a sentence before the layers are "
        "mixed",
    )


class TagFitConfig(FitConfig):
    """The training of a tagger."""

    epochs: Epochs = 50
    patience: Patience = 6
    batch: Batch = 16
    learning_rate: Rate = 2e-3
    weight_decay: WeightDecay = 0.0
    schedule: Schedule = "constant"
    warmup: Warmup = 0.0
    clip_norm: ClipNorm = 5.0
    finetune: FinetuneConfig = Field(
        default_factory=partial(FinetuneConfig, learning_rate=1e-3),
        description="the training of the language model, if finetune is true",
    )


DEVICE = "where to compute; auto: a GPU if there is one, otherwise the CPU"


class _Reading(ColumnOptions):
    segmenter: SegmenterName | None = Field(
        None,
        description="finds the words of plain text in a script without spaces, if the tokens of the "
        "training file are such words: jieba (Chinese), fugashi (Japanese) or pythainlp (Thai); predict "
        "uses that of train, if it is not set",
    )


class TagConfig(TaskOptions, _Reading):
    """`biloom tag train`: a tagger of words."""

    join: Join = Field(
        "auto",
        description="how tokens are joined to the text that the language model reads. text: as in the "
        "sentence's text; space: by spaces; none: without spaces; script: by spaces, except beside "
        "characters of scripts without spaces; auto: text if all sentences have one, none if the "
        "tokens are single characters, otherwise script",
    )
    scheme: InnerScheme = Field(
        "auto",
        description="tag scheme of the CRF; predictions are in the scheme of the file. file: that "
        "scheme; auto: IOBES",
    )
    network: TaggerConfig = Field(default_factory=TaggerConfig, description="the network")
    train: TagFitConfig = Field(default_factory=TagFitConfig, description="the training")


class TagUseConfig(_Reading):
    """`biloom tag test` and `biloom tag predict`; how to read is as in training, if not set."""

    cache: str | None = Field(None, description="vector cache, beside the model")
    output: Literal["jsonl", "conll"] = Field(
        "jsonl",
        description="format of the predictions; jsonl: an object per sentence with its tokens, tags "
        "and spans; conll: a token and its tag per line, separated by a tab",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description=DEVICE)
