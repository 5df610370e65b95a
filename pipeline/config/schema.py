"""The whole config: a section for each stage, and the settings that the stages share."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from lightning_modules.config import DEFAULT_POOLING, MixConfig, Pooling, TrainableModelConfig, Unit
from lightning_modules.training.config import EvaluateConfig, TrainConfig
from pipeline.config.runners import DirectRunner, RunnerConfig
from preprocess.config import (
    Input,
    PrepareConfig,
    SentencePieceConfig,
    Source,
    TokenizerConfig,
    check_names,
    sources_of,
)
from preprocess.files.paths import split_chain
from preprocess.section import Section, runtime
from preprocess.tokenizers.segmentation.segmenters import SegmenterName


class RunConfig(Section):
    """The run folder."""

    output: str = runtime(
        "biloom-run", "run folder, as a path or fsspec URL; each stage has a folder in it"
    )

    @field_validator("output")
    @classmethod
    def _can_be_written(cls, output: str) -> str:
        if output.startswith(("http://", "https://")):
            raise ValueError(
                "a web address cannot be written to; use a folder or the URL of a store"
            )
        if split_chain(output):
            raise ValueError(
                "a chained URL cannot be written to; use a folder or the URL of a store"
            )
        return output


class ExportConfig(Section):
    """Settings of the export stage: trained checkpoint to model folder."""

    checkpoint: str | None = runtime(
        None,
        "best or last: the step of this run's training with the lowest held-out perplexity, or its last "
        "step; or a train folder, for its best step; or a checkpoint in one; null: best, or last without "
        "held-out text",
    )
    weights: Literal["float32", "float16", "int8"] = Field(
        "float32", description="type of the stored weights; int8 has one scale per row"
    )
    head: bool = Field(
        True, description="include the output layer, which scoring and further training need"
    )
    type_vectors: bool = Field(
        False,
        description="for a char_cnn input, also store the input vector of every word in the vocabulary",
    )
    layers: int | None = Field(
        None,
        ge=1,
        description="number of recurrent layers to keep, the lowest ones, whose vectors stay the same; "
        "needs export.head=false; null: all layers",
    )
    input_rank: int | None = Field(
        None,
        ge=1,
        description="rank of the input matrix of an embedding, which is replaced by a product of two smaller "
        "matrices; null: unchanged",
    )
    vocabulary: int | None = Field(
        None,
        ge=4,
        description="number of ids of a word tokenizer to keep, the most frequent ones and the control tokens; "
        "other words become the unknown token; null: all ids",
    )
    warm_up: str | None = Field(
        None,
        description="warm-up text that embedding can read before each text; null: no warm-up text",
    )


class EmbedConfig(Section):
    """Settings of the embed stage: text to vector cache."""

    model: str | None = runtime(None, "model folder; null: the export of this run")
    input: Input | None = Field(
        None,
        description="texts to embed, in the form of prepare.input; null: a sample of the corpus",
    )
    sample: int = Field(2000, ge=1, description="number of documents in the sample")
    seed: int = Field(1, description="seed of the sample")
    words: bool = Field(False, description="treat each text as words separated by whitespace")
    unit: Unit = Field("token", description="unit that each vector represents")
    pooling: Pooling | None = Field(
        None,
        description="pooling of the token vectors of a word or sentence; direction: the forward half at "
        "the last token and the backward half at the first; null: direction for words, mean for sentences",
    )
    segmenter: SegmenterName | None = Field(
        None,
        description="for unit word: finds the words of text without spaces between them (jieba: Chinese, "
        "fugashi: Japanese, pythainlp: Thai); null: words are separated by whitespace",
    )
    layers: Literal["all", "top", "mean", "mix", "concat"] | tuple[int, ...] = Field(
        "all", description="layers to store, where 0 is the input layer, or how to combine them"
    )
    mix: MixConfig = Field(MixConfig(), description="the scalar mix, if layers is mix")
    kind: Literal["vector", "gradient"] = Field(
        "vector",
        description="what to store: the vectors, or in place of each vector the gradient of the text's "
        "loss with respect to it (experimental)",
    )
    path: Literal["total", "upward"] = Field(
        "total",
        description="paths of a gradient; total: also through the next steps of the same layer; upward: "
        "through the layers above only; ignored for vectors",
    )
    warm_up: bool = Field(
        False,
        description="start each text from the state after the model's warm-up text, not from zeros",
    )
    dtype: Literal["float32", "float16", "int8"] = Field(
        "float16", description="type of the stored vectors; int8 has one scale per vector"
    )
    texts: bool = Field(True, description="store the texts and their tokens with the vectors")
    precision: Literal["float32", "bf16", "auto"] = Field(
        "float32",
        description="type of matrix products; auto: bf16 on GPUs that support it, float32 elsewhere",
    )
    compile: Literal["off", "on"] = Field(
        "off",
        description="compile the recurrent cell, on a GPU as a fused kernel; the last digits of the vectors "
        "differ, so there is no auto",
    )
    append: bool = runtime(
        False, "add the texts to a finished cache made by the same model with the same settings"
    )
    batch_tokens: int | None = runtime(
        None, "tokens per batch; null: 8,192 on a CPU, 32,768 on a GPU", ge=1
    )
    device: Literal["auto", "cpu", "cuda"] | None = runtime(
        None,
        "device of each worker, on the worker's machine; auto: a GPU that no other worker uses, or the "
        "CPU; null: train.device",
    )

    @model_validator(mode="after")
    def _segments_words(self) -> "EmbedConfig":
        if self.segmenter is not None and (self.unit != "word" or self.words):
            setting = "words is true" if self.words else f"unit is {self.unit}"
            raise ValueError(
                f"segmenter: {self.segmenter} finds the words of text, but {setting}; set unit=word and "
                "words=false, or segmenter=null"
            )
        return self

    @model_validator(mode="after")
    def _usable_sources(self) -> "EmbedConfig":
        sources = self.sources or ()
        check_names(sources)
        for source in sources:
            for name, why in UNUSED_IN_EMBED.items():
                if getattr(source, name) != Source.model_fields[name].default:
                    raise ValueError(
                        f"input: the source '{source.name}' has its own {name}, but {why}; remove it"
                    )
        return self

    @property
    def chosen_pooling(self) -> Pooling:
        """The pooling, or the default of the unit."""
        return self.pooling or DEFAULT_POOLING[self.unit]

    @property
    def sources(self) -> tuple[Source, ...] | None:
        """The sources of the texts; None means a sample of the corpus."""
        return None if self.input is None else sources_of(self.input)


UNUSED_IN_EMBED = {
    "cleaning": "texts are cleaned as the model's training text was, because the vectors depend on it",
    "filters": "every text is embedded",
    "split": "all texts are embedded alike",
    "weight": "all texts are embedded alike",
}
"""Settings of a source that `embed.input` does not allow, each with the reason. ``license`` is only
recorded."""


class ReportConfig(Section):
    """Settings of the run report."""

    words: tuple[str, ...] | None = Field(
        None, description="words to show nearest neighbours of; null: chosen from the corpus"
    )
    neighbours: int = Field(4, ge=1, description="nearest neighbours to show per word")


class TrackingConfig(Section):
    """Loggers of the training metrics, besides metrics.jsonl."""

    wandb: Literal["auto", "offline", "off"] = runtime(
        "auto", "Weights & Biases; auto: on if a key is found"
    )
    project: str | None = runtime(
        None,
        "wandb project; null: that of wandb's own settings, such as WANDB_PROJECT, else biloom",
    )
    name: str | None = runtime(None, "wandb run name; null: WANDB_NAME, else chosen by wandb")
    tensorboard: bool = runtime(False, "write TensorBoard event files")
    tensorboard_folder: str | None = runtime(
        None,
        "local folder of the event files of many runs, each in a folder that its run.output names; "
        "null: train/tensorboard, which must be local",
    )


class Config(Section):
    """All settings of a run."""

    run: RunConfig = Field(RunConfig(), description="the run folder")
    runner: RunnerConfig = Field(DirectRunner(), description="engine that runs the Beam jobs")
    tokenizer: TokenizerConfig = Field(
        SentencePieceConfig(), description="the tokenizer stage: text to token ids"
    )
    prepare: PrepareConfig = Field(
        PrepareConfig(), description="the prepare stage: raw text to token shards"
    )
    model: TrainableModelConfig = Field(
        TrainableModelConfig(), description="the network architecture"
    )
    train: TrainConfig = Field(TrainConfig(), description="the train stage")
    evaluate: EvaluateConfig = Field(
        EvaluateConfig(), description="the evaluate stage: held-out perplexity"
    )
    export: ExportConfig = Field(
        ExportConfig(), description="the export stage: checkpoint to model folder"
    )
    embed: EmbedConfig = Field(EmbedConfig(), description="the embed stage: text to vector cache")
    report: ReportConfig = Field(ReportConfig(), description="the run report")
    tracking: TrackingConfig = Field(
        TrackingConfig(), description="loggers of the training metrics"
    )

    @model_validator(mode="after")
    def _workers_see_the_output(self) -> "Config":
        runner = self.runner
        one_process = isinstance(runner, DirectRunner) and runner.options.own_process_only
        if self.run.output.startswith("memory://") and not one_process:
            raise ValueError(
                "run.output: memory:// is private to one process; set runner.options.mode=in_memory"
            )
        return self
