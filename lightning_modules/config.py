"""Config sections of the model, its training and its evaluation. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocess.config import Section, Split, runtime


class EmbeddingInputConfig(Section):
    """A vector for each id of the tokenizer."""

    kind: Literal["embedding"] = "embedding"
    dim: int | None = Field(
        None, ge=1, description="dimensions; none: the width a direction of the stack has"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the input vectors")


class LSTMConfig(Section):
    """Two independent stacks, forward and backward (Peters et al. 2018, section 3.1)."""

    kind: Literal["lstm"] = "lstm"
    layers: int = Field(2, ge=1, description="layers a direction")
    hidden: int = Field(512, ge=1, description="dimensions of the cell")
    projection: int | None = Field(
        128, ge=1, description="dimensions of the output; none: those of the cell"
    )
    residual: bool = Field(True, description="add a layer's input to its output, from layer two")
    cell_clip: float | None = Field(3.0, gt=0, description="bound of the cell's values")
    projection_clip: float | None = Field(3.0, gt=0, description="bound of the output's values")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout between layers and at the top")

    @property
    def direction_width(self) -> int:
        return self.projection or self.hidden


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


InputConfig = EmbeddingInputConfig
RecurrentConfig = LSTMConfig
HeadConfig = Annotated[AdaptiveSoftmaxConfig | SoftmaxConfig, Field(discriminator="kind")]


class ModelConfig(Section):
    """Input encoder, recurrent stack, output layer."""

    input: InputConfig = Field(EmbeddingInputConfig(), description="input encoder")
    recurrent: RecurrentConfig = Field(LSTMConfig(), description="recurrent stack")
    head: HeadConfig = Field(AdaptiveSoftmaxConfig(), description="output layer")


class TrainConfig(Section):
    """Truncated backpropagation through time on two independent streams a row."""

    corpus: str | None = runtime(None, "corpus folder; none: this run's own prepare")
    rows: int = Field(32, ge=1, description="rows of a batch, over all devices")
    unroll: int = Field(20, ge=1, description="tokens a row reads a step (truncated BPTT)")
    steps: int = Field(10_000, ge=1, description="optimiser steps")
    boundary: Literal["eos", "bos_eos"] = Field(
        "eos", description="between documents: one <eos>, or ELMo's <bos> and <eos>"
    )
    order: Literal["shuffled", "as-given"] = Field(
        "shuffled", description="order of shards and documents in a pass over the corpus"
    )
    seed: int = Field(
        1, ge=0, lt=1 << 32, description="seed of the weights, the order and the dropout"
    )
    learning_rate: float = Field(1e-3, gt=0, description="Adam's peak learning rate")
    warmup_steps: int = Field(100, ge=0, description="steps in which the rate rises from 0")
    final_rate: float = Field(
        0.1, ge=0, le=1, description="rate at the last step (cosine decay), as a share of the peak"
    )
    clip_norm: float = Field(1.0, gt=0, description="bound of the gradient's norm")
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="compile the LSTM cell; auto: where a compiler is found"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    checkpoint_steps: int = runtime(500, "steps between checkpoints", ge=1)
    checkpoint_minutes: float = runtime(10.0, "minutes between checkpoints, at most", gt=0)
    evaluate_steps: int = runtime(1000, "steps between looks at the held-out text", ge=1)
    log_steps: int = runtime(10, "steps between lines of metrics.jsonl", ge=1)


class EvaluateConfig(Section):
    """Perplexity of held-out text over the full vocabulary."""

    corpus: str | None = runtime(None, "corpus folder; none: the one that is trained on")
    checkpoint: str | None = runtime(None, "train folder; none: this run's own")
    split: Split = Field("valid", description="the split to read")
    rows: int = Field(
        16, ge=1, description="rows the text is dealt to; each starts from zero state"
    )
