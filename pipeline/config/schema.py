"""The whole config: one section a stage, and what they share."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from lightning_modules.config import MixConfig, ModelConfig
from lightning_modules.training.config import EvaluateConfig, TrainConfig
from pipeline.config.runners import DirectRunner, RunnerConfig
from preprocess.config import PrepareConfig, SentencePieceConfig, Source, TokenizerConfig
from preprocess.section import Section, runtime


class RunConfig(Section):
    """Where everything goes."""

    output: str = runtime("biloom-run", "folder or fsspec URL of all stages")

    @field_validator("output")
    @classmethod
    def _can_be_written(cls, output: str) -> str:
        if output.startswith(("http://", "https://")):
            raise ValueError("the web can only be read; name a folder or a store's URL")
        return output


class ExportConfig(Section):
    """Checkpoint to model folder."""

    checkpoint: str | None = runtime(None, "train folder; none: this run's own")
    weights: Literal["float32", "float16", "int8"] = Field(
        "float32", description="type the weights are stored in; int8: with a scale a row"
    )
    head: bool = Field(
        True, description="with the output layer, which scoring and further training need"
    )
    type_vectors: bool = Field(
        False, description="of a char_cnn, also the finished vector of every word of the vocabulary"
    )
    warm_up: str | None = Field(
        None, description="text that may be read before each text to embed; none: no such text"
    )


class EmbedConfig(Section):
    """Text to vector cache."""

    model: str | None = runtime(None, "model folder; none: this run's own export")
    input: str | tuple[str | Source, ...] | None = Field(
        None, description="text to embed, as prepare.input; none: a sample of the corpus"
    )
    sample: int = Field(2000, ge=1, description="documents in that sample")
    seed: int = Field(1, description="seed of that sample")
    words: bool = Field(
        False, description="each text is a list of words, as its whitespace separates them"
    )
    unit: Literal["token", "word", "sentence"] = Field("token", description="what has a vector")
    pooling: Literal["direction", "mean", "first", "last"] = Field(
        "direction",
        description="a word's or sentence's vector from its tokens'; direction: each direction where "
        "it has read all of it",
    )
    layers: Literal["all", "top", "mean", "mix", "concat"] | tuple[int, ...] = Field(
        "all", description="which layers are kept, 0 that of the input; or what is made of them"
    )
    mix: MixConfig = Field(MixConfig(), description="for layers: mix")
    warm_up: bool = Field(
        False, description="start from the state after the model's warm-up text, not from zero"
    )
    dtype: Literal["float32", "float16", "int8"] = Field(
        "float16", description="type of stored values; int8: with a scale a vector"
    )
    texts: bool = Field(True, description="keep the texts and their tokens beside the vectors")
    append: bool = runtime(False, "add the texts to a finished cache of the same model and kind")
    batch_tokens: int = Field(8192, ge=1, description="tokens of a batch, padding included")


class ReportConfig(Section):
    """What the run shows at its end."""

    words: tuple[str, ...] | None = Field(
        None, description="words to show neighbours of; none: chosen from the corpus"
    )
    neighbours: int = Field(4, ge=1, description="neighbours shown of each")


class TrackingConfig(Section):
    """Where metrics go beside metrics.jsonl."""

    wandb: Literal["auto", "offline", "off"] = runtime("auto", "auto: on where a key is found")
    project: str = runtime("biloom", "wandb project")
    name: str | None = runtime(None, "wandb run name; none: wandb's choice")
    tensorboard: bool = runtime(False, "write TensorBoard's event files to train/tensorboard")


class Config(Section):
    """Everything a run is asked to do."""

    run: RunConfig = Field(RunConfig(), description="where everything goes")
    runner: RunnerConfig = Field(DirectRunner(), description="engine of the Beam jobs")
    tokenizer: TokenizerConfig = Field(SentencePieceConfig(), description="text to ids")
    prepare: PrepareConfig = Field(description="raw text to token shards")
    model: ModelConfig = Field(ModelConfig(), description="the network")
    train: TrainConfig = Field(TrainConfig(), description="training")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="held-out perplexity")
    export: ExportConfig = Field(ExportConfig(), description="checkpoint to model folder")
    embed: EmbedConfig = Field(EmbedConfig(), description="text to vector cache")
    report: ReportConfig = Field(ReportConfig(), description="what is shown at the end")
    tracking: TrackingConfig = Field(TrackingConfig(), description="where metrics go")

    @model_validator(mode="after")
    def _workers_see_the_output(self) -> "Config":
        runner = self.runner
        own = isinstance(runner, DirectRunner) and runner.options.own_process_only
        if self.run.output.startswith("memory://") and not own:
            raise ValueError(
                "run.output: memory:// is private to one process; give "
                "runner.options.mode=in_memory"
            )
        return self
