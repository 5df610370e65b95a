"""Settings of a neural head on the vectors of a text. Imports no torch."""

from typing import Literal

from pydantic import Field

from preprocess.section import Section


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
