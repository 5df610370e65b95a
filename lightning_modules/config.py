"""Config sections of the network. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocess.section import Section


class EmbeddingInputConfig(Section):
    """A vector for each id of the tokenizer."""

    kind: Literal["embedding"] = "embedding"
    dim: int | None = Field(
        None, ge=1, description="dimensions; none: the width a direction of the stack has"
    )
    initial: float = Field(
        1.0, gt=0, description="the vectors are drawn from U(-initial, initial); bilm-tf's is 1"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the input vectors")
    type_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the ids whose vector is left out, drawn each step"
    )


class AdaptiveInputConfig(Section):
    """Vectors whose width falls with frequency, in the output layer's clusters (Baevski & Auli 2019)."""

    kind: Literal["adaptive"] = "adaptive"
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the input vectors")


class CharCNNInputConfig(Section):
    """Words by their spelling: ELMo's convolutions over characters, highway layers, projection."""

    kind: Literal["char_cnn"] = "char_cnn"
    dim: int = Field(16, ge=1, description="dimensions of a character (a byte of UTF-8)")
    max_characters: int = Field(
        50, ge=3, description="bytes of a word, its begin and end marks included; the rest is cut"
    )
    filters: tuple[tuple[int, int], ...] = Field(
        ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024)),
        min_length=1,
        description="[width, number] of each convolution",
    )
    activation: Literal["relu", "tanh"] = Field("relu", description="after the maximum over time")
    highway: int = Field(2, ge=0, description="highway layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the input vectors")

    @model_validator(mode="after")
    def _filters_fit(self) -> "CharCNNInputConfig":
        for width, number in self.filters:
            if not 1 <= width <= self.max_characters or number < 1:
                raise ValueError(
                    f"filters: [{width}, {number}] must have a width of 1 to max_characters "
                    f"({self.max_characters}) and a number of at least 1"
                )
        return self


class LSTMConfig(Section):
    """Stacks of projected LSTM layers, one a direction (Peters et al. 2018, section 3.1)."""

    kind: Literal["lstm"] = "lstm"
    layers: int = Field(2, ge=1, description="layers a direction")
    hidden: int = Field(512, ge=1, description="dimensions of the cell")
    projection: int | None = Field(
        128, ge=1, description="dimensions of the output; none: those of the cell"
    )
    residual: bool = Field(True, description="add a layer's input to its output, from layer two")
    cell_clip: float | None = Field(3.0, gt=0, description="bound of the cell's values")
    projection_clip: float | None = Field(3.0, gt=0, description="bound of the output's values")
    forget_bias: float = Field(
        0.0, description="added to the forget gate's bias at every use; ELMo's archives have 1"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout between layers and at the top")
    output_dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout at the top; none: as between layers"
    )
    variational: bool = Field(
        False, description="one dropout mask for all tokens a row reads in a step"
    )
    weight_drop: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the hidden-to-hidden weights left out, drawn each step",
    )

    @property
    def direction_width(self) -> int:
        return self.projection or self.hidden


class GRUConfig(Section):
    """Stacks of GRU layers, one a direction."""

    kind: Literal["gru"] = "gru"
    layers: int = Field(2, ge=1, description="layers a direction")
    hidden: int = Field(256, ge=1, description="dimensions of the state and the output")
    residual: bool = Field(True, description="add a layer's input to its output, from layer two")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout between layers and at the top")
    output_dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout at the top; none: as between layers"
    )
    variational: bool = Field(
        False, description="one dropout mask for all tokens a row reads in a step"
    )
    weight_drop: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the hidden-to-hidden weights left out, drawn each step",
    )

    @property
    def direction_width(self) -> int:
        return self.hidden


class AdaptiveSoftmaxConfig(Section):
    """Frequent ids in a short head, rare ones in low-rank tails (Grave et al. 2017)."""

    kind: Literal["adaptive_softmax"] = "adaptive_softmax"
    cutoffs: Literal["auto"] | tuple[int, ...] = Field(
        "auto", description="ranks where a cluster begins; auto: from the corpus's counts"
    )
    div: float = Field(4.0, ge=1, description="factor by which each tail is narrower than the last")

    @model_validator(mode="after")
    def _cutoffs_rise(self) -> "AdaptiveSoftmaxConfig":
        cuts = () if self.cutoffs == "auto" else self.cutoffs
        if any(b <= a for a, b in zip((0, *cuts), cuts, strict=False)):
            raise ValueError(f"cutoffs must rise from above 0, not {list(cuts)}")
        return self


class SoftmaxConfig(Section):
    """One matrix over the whole vocabulary."""

    kind: Literal["softmax"] = "softmax"


class SampledSoftmaxConfig(Section):
    """Trained against drawn negatives, evaluated over the whole vocabulary (Jean et al. 2015)."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    samples: int = Field(
        8192, ge=1, description="negatives a step, drawn log-uniformly over the ranks by count"
    )


InputConfig = Annotated[
    EmbeddingInputConfig | AdaptiveInputConfig | CharCNNInputConfig, Field(discriminator="kind")
]
RecurrentConfig = Annotated[LSTMConfig | GRUConfig, Field(discriminator="kind")]
HeadConfig = Annotated[
    AdaptiveSoftmaxConfig | SoftmaxConfig | SampledSoftmaxConfig, Field(discriminator="kind")
]


class ModelConfig(Section):
    """Input encoder, recurrent stack, output layer."""

    directions: Literal["both", "forward"] = Field(
        "both", description="both: ELMo's pair of language models; forward: one language model"
    )
    input: InputConfig = Field(EmbeddingInputConfig(), description="input encoder")
    recurrent: RecurrentConfig = Field(LSTMConfig(), description="recurrent stack")
    head: HeadConfig = Field(AdaptiveSoftmaxConfig(), description="output layer")
    tied: bool = Field(False, description="the output layer's vectors are those of the input")
    output_vocabulary: int | None = Field(
        None,
        ge=2,
        description="ids that can be predicted, the most frequent; others count as <unk>; none: all",
    )

    @property
    def direction_count(self) -> int:
        return 2 if self.directions == "both" else 1

    @model_validator(mode="after")
    def _parts_fit(self) -> "ModelConfig":
        adaptive = isinstance(self.head, AdaptiveSoftmaxConfig)
        if isinstance(self.input, AdaptiveInputConfig) and not adaptive:
            raise ValueError(
                f"input.kind adaptive takes the clusters of an adaptive softmax, and head.kind is "
                f"{self.head.kind}; set head.kind to adaptive_softmax or input.kind to embedding"
            )
        if self.tied:
            self._can_be_tied()
        return self

    def _can_be_tied(self) -> None:
        """Raise ValueError where input and output have no vectors of one shape to share."""
        width = self.recurrent.direction_width
        if isinstance(self.input, CharCNNInputConfig):
            raise ValueError("tied: a char_cnn input has no vector for each id; set tied to false")
        if isinstance(self.input, AdaptiveInputConfig) != isinstance(
            self.head, AdaptiveSoftmaxConfig
        ):
            raise ValueError(
                f"tied: input.kind {self.input.kind} and head.kind {self.head.kind} have vectors of "
                "different shapes; an adaptive_softmax goes with input.kind adaptive, any other "
                "head with embedding"
            )
        if isinstance(self.input, EmbeddingInputConfig) and self.input.dim not in (None, width):
            raise ValueError(
                f"tied: input.dim is {self.input.dim}, but the output layer reads {width} "
                "dimensions (recurrent.projection, or hidden without one); leave input.dim out"
            )
        if self.output_vocabulary is not None:
            raise ValueError("tied: output_vocabulary would cut the shared vectors; leave it out")


class MixConfig(Section):
    """Weighted sum of the layers (Peters et al. 2018, equation 1)."""

    weights: tuple[float, ...] | None = Field(
        None, description="of each layer, before the softmax; none: equal"
    )
    gamma: float = Field(1.0, description="factor of the sum")
    layer_norm: bool = Field(
        False, description="normalise each layer first, by mean and variance over the text"
    )
