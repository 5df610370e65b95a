"""Config sections of the network and of the mixture of its layers. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lightning_modules.recurrent_config import (
    MAX_LAYERS,
    MAX_WIDTH,
    LSTMConfig,
    NoRecurrenceConfig,
    RecurrentConfig,
    TrainableRecurrentConfig,
)
from preprocess.section import Section

INPUT_DROPOUT = "probability of zeroing an element of the input vectors, training only"


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
HeadConfig = Annotated[
    AdaptiveSoftmaxConfig | SoftmaxConfig | SampledSoftmaxConfig, Field(discriminator="kind")
]


INPUT = "input encoder: ids or spellings to vectors, shared by both directions"
RECURRENT = "recurrent stack, one per direction"


class ModelConfig(Section):
    """The network: input encoder, recurrent stack, output layer."""

    directions: Literal["both", "forward"] = Field(
        "both",
        description="both: a forward and a backward language model, as in ELMo; forward: a forward "
        "language model only",
    )
    input: InputConfig = Field(EmbeddingInputConfig(), description=INPUT)
    recurrent: RecurrentConfig = Field(LSTMConfig(), description=RECURRENT)
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
        if isinstance(self.recurrent, NoRecurrenceConfig) and self.directions != "forward":
            raise ValueError(
                "recurrent.kind none has no directions; set directions to forward, so that a vector is not "
                "stored twice"
            )
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

    All networks but those that are only imported or distilled.
    """

    input: TrainableInputConfig = Field(EmbeddingInputConfig(), description=INPUT)
    recurrent: TrainableRecurrentConfig = Field(LSTMConfig(), description=RECURRENT)


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
