"""Config sections of the network and of the mixture of its layers. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocess.section import Section

MAX_WIDTH = 1_000_000
"""Largest width of a layer; a square matrix of it has 4 TB."""
MAX_LAYERS = 256
# Descriptions of settings that several kinds have.
INPUT_DROPOUT = "probability of zeroing an element of the input vectors, training only"
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


class EmbeddingInputConfig(Section):
    """A learned vector for each id of the tokenizer."""

    kind: Literal["embedding"] = "embedding"
    dim: int | None = Field(
        None,
        ge=1,
        le=MAX_WIDTH,
        description="width of the vectors; null means the width of the recurrent stack, any other "
        "width adds a linear map to it; leave null if tied",
    )
    initial: float = Field(
        1.0,
        gt=0,
        description="bound of the uniform distribution U(-initial, initial) that the vectors are "
        "initialised from; bilm-tf uses 1; ignored if tied, which uses 0.1",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description=INPUT_DROPOUT)
    type_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability of zeroing the vector of an id at all its positions in a step, "
        "training only (Merity et al. 2018, section 4.3)",
    )


class AdaptiveInputConfig(Section):
    """Narrower vectors for rarer ids, with the clusters of the adaptive softmax (Baevski & Auli 2019)."""

    kind: Literal["adaptive"] = "adaptive"
    dropout: float = Field(0.1, ge=0, lt=1, description=INPUT_DROPOUT)


class CharCNNInputConfig(Section):
    """Word vectors from a convolution over the bytes of the word, as in ELMo (Kim et al. 2016)."""

    kind: Literal["char_cnn"] = "char_cnn"
    dim: int = Field(
        16,
        ge=1,
        le=MAX_WIDTH,
        description="width of a character's vector; a character is a UTF-8 byte",
    )
    max_characters: int = Field(
        50,
        ge=3,
        le=10_000,
        description="maximum length of a word in UTF-8 bytes, including a begin and an end mark; "
        "longer words are truncated",
    )
    filters: tuple[tuple[int, int], ...] = Field(
        ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024)),
        min_length=1,
        description="convolutions as pairs [width in characters, number of filters]",
    )
    activation: Literal["relu", "tanh"] = Field(
        "relu", description="nonlinearity after max-pooling"
    )
    highway: int = Field(
        2, ge=0, le=MAX_LAYERS, description="number of highway layers (Srivastava et al. 2015)"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description=INPUT_DROPOUT)

    @model_validator(mode="after")
    def _filters_fit(self) -> "CharCNNInputConfig":
        for width, number in self.filters:
            if not (1 <= width <= self.max_characters and 1 <= number <= MAX_WIDTH):
                raise ValueError(
                    f"filters: [{width}, {number}] must have a width of 1 to max_characters "
                    f"({self.max_characters}) and 1 to {MAX_WIDTH} filters"
                )
        return self


class WordCharCNNInputConfig(CharCNNInputConfig):
    """The input of ELMoForManyLangs: a convolution over Unicode characters, and a vector per word.

    Only imported models have it; they cannot be trained as a language model.
    """

    kind: Literal["word_char_cnn"] = "word_char_cnn"  # type: ignore[assignment]
    characters: int = Field(
        ge=7,
        description="number of character ids: six special ones and the characters of the dictionary",
    )
    word_dim: int = Field(
        ge=0,
        le=MAX_WIDTH,
        description="width of the vector of a word, beside the convolution; 0 means that there is none",
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
        8,
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


class AdaptiveSoftmaxConfig(Section):
    """Exact softmax with frequent ids in a full-rank head, rare ids in low-rank tails (Grave et al. 2017)."""

    kind: Literal["adaptive_softmax"] = "adaptive_softmax"
    cutoffs: Literal["auto"] | tuple[int, ...] = Field(
        "auto",
        description="first frequency rank of each tail, as 2000, 20000; rank 0 is the most frequent "
        "id; auto chooses them from the corpus's token counts; an empty list means no tails",
    )
    div: float = Field(
        4.0,
        ge=1,
        description="vectors of tail k = 1, 2, ... are div ** k times narrower than the stack's width; "
        "also used by input.kind adaptive",
    )

    @model_validator(mode="after")
    def _cutoffs_rise(self) -> "AdaptiveSoftmaxConfig":
        cuts = () if self.cutoffs == "auto" else self.cutoffs
        if any(b <= a for a, b in zip((0, *cuts), cuts, strict=False)):
            raise ValueError(f"cutoffs must be positive and strictly increasing, not {list(cuts)}")
        return self


class SoftmaxConfig(Section):
    """Exact softmax with one vector per id of the vocabulary."""

    kind: Literal["softmax"] = "softmax"


class SampledSoftmaxConfig(Section):
    """Softmax trained against sampled negatives, exact in evaluation (Jean et al. 2015)."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    samples: int = Field(
        8192,
        ge=1,
        description="distinct negatives per step, drawn log-uniformly over the frequency ranks and "
        "shared by all positions; if at least the vocabulary's size, training uses the full softmax",
    )


TrainableInputConfig = Annotated[
    EmbeddingInputConfig | AdaptiveInputConfig | CharCNNInputConfig, Field(discriminator="kind")
]
InputConfig = Annotated[
    EmbeddingInputConfig | AdaptiveInputConfig | CharCNNInputConfig | WordCharCNNInputConfig,
    Field(discriminator="kind"),
]
RecurrentConfig = Annotated[
    LSTMConfig | GRUConfig | HGRN2Config | SRUConfig, Field(discriminator="kind")
]
HeadConfig = Annotated[
    AdaptiveSoftmaxConfig | SoftmaxConfig | SampledSoftmaxConfig, Field(discriminator="kind")
]


INPUT = "input encoder: ids or spellings to vectors, shared by both directions"


class ModelConfig(Section):
    """The network: input encoder, recurrent stack, output layer."""

    directions: Literal["both", "forward"] = Field(
        "both",
        description="both: a forward and a backward language model, as in ELMo; forward: a forward "
        "language model only",
    )
    input: InputConfig = Field(EmbeddingInputConfig(), description=INPUT)
    recurrent: RecurrentConfig = Field(
        LSTMConfig(), description="recurrent stack, one per direction"
    )
    head: HeadConfig = Field(
        AdaptiveSoftmaxConfig(), description="output layer, shared by both directions"
    )
    tied: bool = Field(
        False,
        description="share the input vectors with the output layer; needs input.kind embedding with "
        "head.kind softmax or sampled_softmax, or input.kind adaptive with head.kind adaptive_softmax",
    )
    output_vocabulary: int | None = Field(
        None,
        ge=2,
        description="number of ids that can be predicted: the first, most frequent ones; other ids "
        "count as <unk> if they are the target; null means all ids",
    )

    @property
    def direction_count(self) -> int:
        """2, or 1 for a forward language model only."""
        return 2 if self.directions == "both" else 1

    def predictable_ids(self, vocabulary: int) -> int:
        """Return n, the number of ids that can be predicted: the ids 0 to n - 1 of ``vocabulary`` ids."""
        return min(self.output_vocabulary or vocabulary, vocabulary)

    @model_validator(mode="after")
    def _parts_fit(self) -> "ModelConfig":
        adaptive = isinstance(self.head, AdaptiveSoftmaxConfig)
        if isinstance(self.input, AdaptiveInputConfig) and not adaptive:
            raise ValueError(
                f"input.kind adaptive uses the clusters of head.kind adaptive_softmax, but head.kind is "
                f"{self.head.kind}; set head.kind to adaptive_softmax or input.kind to embedding"
            )
        if self.tied:
            self._check_tied()
        return self

    def _check_tied(self) -> None:
        """Raise ValueError if input and output have no vectors of the same shape to share."""
        width = self.recurrent.direction_width
        if isinstance(self.input, CharCNNInputConfig):
            raise ValueError(
                "tied: a char_cnn input has no vector per id to share; set tied to false"
            )
        if isinstance(self.input, AdaptiveInputConfig) != isinstance(
            self.head, AdaptiveSoftmaxConfig
        ):
            raise ValueError(
                f"tied: input.kind {self.input.kind} and head.kind {self.head.kind} have vectors of "
                "different shapes; use adaptive_softmax with input.kind adaptive, and softmax or "
                "sampled_softmax with input.kind embedding"
            )
        if isinstance(self.input, EmbeddingInputConfig) and self.input.dim not in (None, width):
            raise ValueError(
                f"tied: input.dim is {self.input.dim}, but the output layer needs {width} "
                "(recurrent.projection, or hidden if there is none); set input.dim to null"
            )
        if self.output_vocabulary is not None:
            raise ValueError(
                "tied: output_vocabulary needs output vectors of its own; set it to null"
            )


class TrainableModelConfig(ModelConfig):
    """The network: input encoder, recurrent stack, output layer.

    All networks but those that are only imported.
    """

    input: TrainableInputConfig = Field(EmbeddingInputConfig(), description=INPUT)


Unit = Literal["token", "word", "sentence"]
"""What has a vector."""
Pooling = Literal["direction", "mean", "first", "last"]
"""How the vectors of several tokens become the vector of a word or a text."""
DEFAULT_POOLING: dict[Unit, Pooling] = {
    "token": "direction",
    "word": "direction",
    "sentence": "mean",
}
"""The pooling of each unit if none is named: the best on average in ``benchmarks/pooling.py``."""


class MixConfig(Section):
    """The weighted sum of the layers that gives a text's vectors (Peters et al. 2018, equation 1)."""

    weights: tuple[float, ...] | None = Field(
        None,
        description="one number per layer, input vectors first; a softmax of them gives the weights; "
        "null means equal weights",
    )
    gamma: float = Field(1.0, description="factor by which the weighted sum is multiplied")
    layer_norm: bool = Field(
        False,
        description="first normalise each layer by its mean and variance over the text's tokens and "
        "dimensions",
    )
