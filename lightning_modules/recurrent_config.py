"""Config sections of the recurrent stack. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocess.section import Section

MAX_WIDTH = 1_000_000
"""Largest width of a layer; a square matrix of it has 4 TB."""
MAX_LAYERS = 256
# Descriptions of settings that several kinds have.
RESIDUAL = "add each layer's input to its output, except in the first layer"
LAYER_DROPOUT = (
    "probability of zeroing an element of a layer's output, training only; see output_dropout"
)
OUTPUT_DROPOUT = "dropout of the top layer's output; null means the value of dropout"
VARIATIONAL = (
    "use one dropout mask for all tokens of a row in a step, instead of one per token "
    "(Gal & Ghahramani 2016); applies to dropout and output_dropout"
)
WEIGHT_DROP = (
    "probability of zeroing each hidden-to-hidden weight, one mask per forward pass, training only "
    "(Merity et al. 2018, section 2)"
)


class LSTMConfig(Section):
    """Projected LSTM layers, a separate stack per direction (Peters et al. 2018, section 3.1)."""

    kind: Literal["lstm"] = "lstm"
    layers: int = Field(2, ge=1, le=MAX_LAYERS, description="layers per direction")
    hidden: int = Field(512, ge=1, le=MAX_WIDTH, description="width of the cell state")
    projection: int | None = Field(
        128,
        ge=1,
        le=MAX_WIDTH,
        description="width of a layer's output, by a linear projection; null means no projection, so "
        "the width is hidden",
    )
    residual: bool = Field(True, description=RESIDUAL)
    cell_clip: float | None = Field(
        3.0,
        gt=0,
        description="clip the cell state to [-cell_clip, cell_clip]; null means no clipping",
    )
    projection_clip: float | None = Field(
        3.0,
        gt=0,
        description="clip a layer's output to [-projection_clip, projection_clip], before the "
        "residual is added; null means no clipping",
    )
    forget_bias: float = Field(
        0.0,
        description="constant added to the learned bias of the forget gate, which starts at "
        "1 - forget_bias; ELMo archives use 1",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description=LAYER_DROPOUT)
    output_dropout: float | None = Field(None, ge=0, lt=1, description=OUTPUT_DROPOUT)
    variational: bool = Field(False, description=VARIATIONAL)
    weight_drop: float = Field(0.0, ge=0, lt=1, description=WEIGHT_DROP)

    @property
    def direction_width(self) -> int:
        """Width of one direction's input and output."""
        return self.projection or self.hidden


class GRUConfig(Section):
    """GRU layers, a separate stack per direction (Cho et al. 2014)."""

    kind: Literal["gru"] = "gru"
    layers: int = Field(2, ge=1, le=MAX_LAYERS, description="layers per direction")
    hidden: int = Field(256, ge=1, le=MAX_WIDTH, description="width of the state and of the output")
    residual: bool = Field(True, description=RESIDUAL)
    dropout: float = Field(0.1, ge=0, lt=1, description=LAYER_DROPOUT)
    output_dropout: float | None = Field(None, ge=0, lt=1, description=OUTPUT_DROPOUT)
    variational: bool = Field(False, description=VARIATIONAL)
    weight_drop: float = Field(0.0, ge=0, lt=1, description=WEIGHT_DROP)

    @property
    def direction_width(self) -> int:
        """Width of one direction's input and output."""
        return self.hidden


class HGRN2Config(Section):
    """Gated linear recurrences with matrix states, a stack per direction (HGRN2, Qin et al. 2024)."""

    kind: Literal["hgrn2"] = "hgrn2"
    layers: int = Field(2, ge=1, le=MAX_LAYERS, description="layers per direction")
    hidden: int = Field(
        256, ge=1, le=MAX_WIDTH, description="number of forget gates, queries and values of a layer"
    )
    projection: int | None = Field(
        None,
        ge=1,
        le=MAX_WIDTH,
        description="width of a layer's output, by a linear projection; null means hidden",
    )
    expansion: int = Field(
        16,
        ge=1,
        le=256,
        description="numbers of the state per value; hidden is divided into heads of this size, each with "
        "a state of expansion x expansion numbers, so it must be a divisor of hidden",
    )
    residual: bool = Field(True, description=RESIDUAL)
    dropout: float = Field(0.1, ge=0, lt=1, description=LAYER_DROPOUT)
    output_dropout: float | None = Field(None, ge=0, lt=1, description=OUTPUT_DROPOUT)
    variational: bool = Field(False, description=VARIATIONAL)

    @property
    def direction_width(self) -> int:
        """Width of one direction's input and output."""
        return self.projection or self.hidden

    @model_validator(mode="after")
    def _heads_are_whole(self) -> "HGRN2Config":
        if self.hidden % self.expansion:
            divisors = [n for n in range(1, 257) if self.hidden % n == 0]
            near = sorted(divisors, key=lambda n: abs(n - self.expansion))[:2]
            raise ValueError(
                f"expansion: {self.expansion} is no divisor of hidden ({self.hidden}); set expansion to "
                f"{' or '.join(map(str, sorted(near)))}, or hidden to a multiple of {self.expansion}"
            )
        return self


class SRUConfig(Section):
    """Simple recurrent units, a separate stack per direction (Lei et al. 2018).

    Each layer has a highway connection from its input to its output in place of a residual one.
    """

    kind: Literal["sru"] = "sru"
    layers: int = Field(2, ge=1, le=MAX_LAYERS, description="layers per direction")
    hidden: int = Field(256, ge=1, le=MAX_WIDTH, description="width of the state and of the output")
    dropout: float = Field(0.1, ge=0, lt=1, description=LAYER_DROPOUT)
    output_dropout: float | None = Field(None, ge=0, lt=1, description=OUTPUT_DROPOUT)
    variational: bool = Field(False, description=VARIATIONAL)

    @property
    def residual(self) -> bool:
        """False, because of the highway connections."""
        return False

    @property
    def direction_width(self) -> int:
        """Width of one direction's input and output."""
        return self.hidden


class NoRecurrenceConfig(Section):
    """No recurrent layers: a token has its input vector in every text.

    Only static models have it (`biloom distill`). They cannot be trained as a language model, because
    nothing would carry a text from one token to the next.
    """

    kind: Literal["none"] = "none"
    hidden: int = Field(256, ge=1, le=MAX_WIDTH, description="width of the vectors")

    @property
    def layers(self) -> int:
        """0."""
        return 0

    @property
    def residual(self) -> bool:
        """False."""
        return False

    @property
    def direction_width(self) -> int:
        """Width of the vectors."""
        return self.hidden


TrainableRecurrentConfig = Annotated[
    LSTMConfig | GRUConfig | HGRN2Config | SRUConfig, Field(discriminator="kind")
]
RecurrentConfig = Annotated[
    LSTMConfig | GRUConfig | HGRN2Config | SRUConfig | NoRecurrenceConfig,
    Field(discriminator="kind"),
]
