"""Settings of a neural head on the vectors of a text. Imports no torch."""

from typing import Literal

from pydantic import Field

from preprocess.section import Section


class FinetuneConfig(Section):
    """How the language model is trained together with the head (ULMFiT, Howard & Ruder 2018)."""

    learning_rate: float = Field(
        1e-2, gt=0, description="peak learning rate of the top layer of the language model"
    )
    layer_decay: float = Field(
        2.6,
        ge=1,
        description="each layer's learning rate is that of the layer above divided by this "
        "(discriminative fine-tuning, Howard & Ruder 2018, section 3.2)",
    )


class NetworkConfig(Section):
    """A neural head: an encoder over the vectors of a text, and a linear output layer."""

    kind: Literal["lstm", "gru", "cnn"] = Field(
        "lstm",
        description="lstm and gru: one bidirectional layer, and the mean and the maximum of its outputs; "
        "cnn: convolutions over units, and the maximum of their outputs (Kim 2014)",
    )
    hidden: int = Field(
        128, ge=1, le=65536, description="lstm and gru: width of the state of each direction"
    )
    filters: int = Field(100, ge=1, le=65536, description="cnn: number of filters of each width")
    widths: tuple[int, ...] = Field(
        (3, 4, 5), min_length=1, description="cnn: widths of the filters, in units"
    )
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="probability of zeroing an element of the mixed vectors and of the encoded text, "
        "training only",
    )
    layer_norm: bool = Field(
        False, description="normalise each layer of a text before the layers are mixed"
    )
    most_units: int = Field(
        1000, ge=1, description="units of a text that are read; longer texts are cut"
    )
    batch_texts: int = Field(32, ge=1, description="texts of a batch")
    epochs: int = Field(20, ge=1, description="largest number of passes over the training texts")
    patience: int = Field(
        4, ge=1, description="training ends after this many epochs without a better dev score"
    )
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of the head, AdamW")
    weight_decay: float = Field(
        0.01, ge=0, description="each step also subtracts learning rate x weight_decay x weight"
    )
    warmup: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="fraction of all steps in which the learning rate rises from 0; it then falls to "
        "0 at the last step",
    )
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    finetune: FinetuneConfig | None = Field(
        None, description="train the language model, too; null means that it is frozen"
    )
