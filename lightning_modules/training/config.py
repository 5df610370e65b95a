"""Settings of training and evaluation. Imports no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lightning_modules.training.distillation.config import TeacherConfig
from preprocess.section import Section, runtime
from preprocess.text.config import Split

# Descriptions of settings that several kinds have.
BETAS = "decay rates of the running means of the gradient and of its square"
EPSILON = "added to the denominator of the update"
L2 = "L2 penalty: this factor times the weight is added to its gradient"
FINAL_RATE = "learning rate at the last step, as a fraction of the peak"


class AdamConfig(Section):
    """Adam (Kingma & Ba 2015)."""

    kind: Literal["adam"] = "adam"
    betas: tuple[float, float] = Field((0.9, 0.999), description=BETAS)
    epsilon: float = Field(1e-8, gt=0, description=EPSILON)
    weight_decay: float = Field(0.0, ge=0, description=L2)


class AdamWConfig(Section):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = Field((0.9, 0.999), description=BETAS)
    epsilon: float = Field(1e-8, gt=0, description=EPSILON)
    weight_decay: float = Field(
        0.01, ge=0, description="each step also subtracts learning rate x weight_decay x weight"
    )


class AdagradConfig(Section):
    """Adagrad (Duchi et al. 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    initial_accumulator: float = Field(
        1.0, ge=0, description="initial value of the sum of squared gradients"
    )
    epsilon: float = Field(1e-10, ge=0, description=EPSILON)
    weight_decay: float = Field(0.0, ge=0, description=L2)


class SGDConfig(Section):
    """Stochastic gradient descent, optionally with averaged weights (NT-ASGD, Merity et al. 2018)."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(
        0.0, ge=0, lt=1, description="fraction of the previous update that is added to the next one"
    )
    weight_decay: float = Field(0.0, ge=0, description=L2)
    average_after: int | None = Field(
        None,
        ge=1,
        description="start averaging the weights at the first held-out evaluation (evaluate_steps) "
        "that is worse than the best one before the last average_after evaluations; null means "
        "never (NT-ASGD, Merity et al. 2018)",
    )


OptimizerConfig = Annotated[
    AdamConfig | AdamWConfig | AdagradConfig | SGDConfig, Field(discriminator="kind")
]


class ConstantConfig(Section):
    """The peak rate after the warm-up."""

    kind: Literal["constant"] = "constant"


class CosineConfig(Section):
    """Half a cosine from the peak to the last step (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    final_rate: float = Field(0.1, ge=0, le=1, description=FINAL_RATE)


class LinearConfig(Section):
    """A straight line from the peak to the last step."""

    kind: Literal["linear"] = "linear"
    final_rate: float = Field(0.0, ge=0, le=1, description=FINAL_RATE)
    hold: float = Field(
        0.0, ge=0, lt=1, description="fraction of all steps spent at the peak before the rate falls"
    )


class InverseSqrtConfig(Section):
    """Falls with the square root of the step after the warm-up (Vaswani et al. 2017)."""

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"


class PlateauConfig(Section):
    """Falls by a factor when the held-out loss stops improving."""

    kind: Literal["plateau"] = "plateau"
    factor: float = Field(0.25, gt=0, lt=1, description="factor that the rate is multiplied by")
    patience: int = Field(
        0, ge=0, description="held-out evaluations in a row without improvement that are tolerated"
    )


ScheduleConfig = Annotated[
    CosineConfig | LinearConfig | InverseSqrtConfig | ConstantConfig | PlateauConfig,
    Field(discriminator="kind"),
]


class TrainConfig(Section):
    """Training by truncated backpropagation through time (BPTT).

    A batch has `rows` rows. Each row reads two independent streams of text, one per direction.
    """

    corpus: str | None = runtime(None, "corpus folder to train on; null means this run's corpus")
    init_from: str | None = runtime(
        None,
        "model folder, train folder or its checkpoint to take the initial weights from; a checkpoint also "
        "gives the state of the optimiser; null means random weights",
    )
    teacher: TeacherConfig | None = Field(
        None, description="a trained model that this one learns from; null means the corpus only"
    )
    rows: int = Field(
        32, ge=1, le=1_000_000, description="rows of a batch, summed over all devices"
    )
    unroll: int = Field(
        20, ge=1, le=1_000_000, description="tokens per row and window (truncated BPTT)"
    )
    accumulate_steps: int = Field(
        1,
        ge=1,
        le=10_000,
        description="windows whose gradients are averaged for one optimiser step",
    )
    steps: int = Field(
        10_000, ge=1, description="optimiser steps; can be raised to resume a finished training"
    )
    passes: float | None = runtime(
        None,
        "passes over the train split, in place of steps; can be raised like steps; null means that "
        "steps counts",
        gt=0,
        le=1_000_000,
    )
    recipe: Literal["auto"] | None = runtime(
        None,
        "auto: settings of model and train that are not set follow from the number of tokens of the "
        "train split; null means that they have their defaults",
    )
    boundary: Literal["eos", "bos_eos"] = Field(
        "eos", description="tokens between documents: <eos>, or <eos> and <bos> as in ELMo"
    )
    reset_state: float = Field(
        0.5,
        ge=0,
        le=1,
        description="probability that a document starts from the zero state instead of the state after "
        "the document before it; false is 0, true is 1",
    )
    order: Literal["mixed", "shuffled", "as-given"] = Field(
        "mixed",
        description="order of the documents in each pass over the corpus; mixed: the documents of all "
        "sources and shards alternate at random; shuffled: one shard after another, with its documents "
        "in random order, so that a row of a batch reads from one source for long; as-given: as in the "
        "corpus",
    )
    seed: int = Field(
        1, ge=0, lt=1 << 32, description="seed of initial weights, document order and dropout"
    )
    optimizer: OptimizerConfig = Field(AdamConfig(), description="optimiser")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    warmup_steps: int = Field(
        100, ge=0, description="steps in which the learning rate rises linearly to the peak"
    )
    schedule: ScheduleConfig = Field(CosineConfig(), description="rate after the warm-up")
    clip_norm: float | None = Field(
        1.0, gt=0, description="larger gradients are scaled to this norm; null means no clipping"
    )
    loss_scale: float = Field(
        1.0,
        gt=0,
        description="factor on the mean loss per token; the original ELMo code uses the value of unroll",
    )
    activation_penalty: float = Field(
        0.0,
        ge=0,
        description="weight of the mean square of the top layer's outputs in the loss (activation "
        "regularisation, Merity et al. 2018, section 4.6)",
    )
    change_penalty: float = Field(
        0.0,
        ge=0,
        description="weight of the mean square of the differences between consecutive outputs of "
        "the top layer in the loss (temporal activation regularisation, ibid.)",
    )
    max_skipped_steps: int = runtime(
        10,
        "skipped steps in a row (gradient not finite) after which training fails; in float16, only those "
        "with a gradient scale of at most 1 count",
        ge=1,
    )
    precision: Literal["auto", "float32", "tf32", "bf16", "float16"] = Field(
        "auto",
        description="type of matrix products; float16 scales the gradients; tf32 rounds the factors of "
        "float32 products to 11 bits; auto means bf16 if the GPU supports it, float16 on other GPUs of "
        "compute capability 7.0 or higher, else float32",
    )
    reduce_gradients: Literal["float32", "bf16"] = Field(
        "float32",
        description="type in which devices exchange their gradients; bf16 halves the traffic",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compile the recurrent cell; auto means on if a compiler works, else off",
    )
    cuda_graphs: Literal["auto", "off"] = runtime(
        "auto",
        "launch each pass of a recurrent layer as one CUDA graph, which keeps its memory during the training; "
        "auto means on an NVIDIA GPU, unless the capture fails",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device to train on; auto means a GPU if there is one"
    )
    devices: int | None = runtime(
        None,
        "GPUs or CPU processes per machine; null means all GPUs, or one process",
        ge=1,
        le=1024,
    )
    num_nodes: int = runtime(1, "machines; the same command runs on each of them", ge=1, le=100_000)
    row_passes: int = runtime(
        1, "parts of a device's rows that are computed one after another, to save memory", ge=1
    )
    data_workers: int | None = runtime(
        None, "processes per device that read ahead; null means 1 for a GPU, else 0", ge=0, le=1024
    )
    cache_bytes: int = runtime(50_000_000_000, "byte limit for local copies of remote shards", ge=0)
    checkpoint_minutes: float = runtime(10.0, "time between checkpoints in minutes", gt=0)
    checkpoint_steps: int | None = runtime(
        None, "steps between checkpoints, beside those by time; null means by time only", ge=1
    )
    evaluate_steps: int = runtime(1000, "steps between evaluations on the held-out split", ge=1)
    evaluate_share: float | None = runtime(
        0.05,
        "time of the held-out evaluations, as a share of that of the steps: if the held-out split is larger "
        "than this allows, they read a fixed sample of it; null means all of it at each evaluation",
        gt=0,
        le=1000,
    )
    evaluate_rows: int = runtime(
        256, "most rows that held-out text is read in, summed over all devices", ge=1, le=100_000
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop if this many held-out evaluations (evaluate_steps) in a row have not improved "
        "on the best one; null means never; can be raised to resume a finished training",
    )
    log_steps: int = runtime(10, "steps between lines of metrics.jsonl", ge=1)

    @property
    def held_out_settings(self) -> list[str]:
        """The settings that make the result depend on the held-out evaluations."""
        settings = {
            "train.patience": self.patience,
            "train.schedule.kind=plateau": isinstance(self.schedule, PlateauConfig),
            "train.optimizer.average_after": getattr(self.optimizer, "average_after", None),
        }
        return [name for name, is_set in settings.items() if is_set]

    @property
    def depends_on_held_out_loss(self) -> bool:
        """Whether the number of steps, the learning rate or the averaging depends on `evaluate_steps`."""
        return bool(self.held_out_settings)

    @property
    def tokens_a_step(self) -> int:
        """Tokens per direction in one optimiser step, of all rows and accumulated windows."""
        return self.rows * self.unroll * self.accumulate_steps

    @field_validator("reset_state", mode="before")
    @classmethod
    def _switch_is_probability(cls, value: Any) -> Any:
        # It was a switch in version 0.1. The config's reader passes an unquoted switch on as text.
        return {"false": 0.0, "true": 1.0}.get(str(value).lower(), value)

    @model_validator(mode="after")
    def _steps_or_passes(self) -> "TrainConfig":
        if self.passes is not None and "steps" in self.model_fields_set:
            raise ValueError("steps and passes both set the length of training; set one of them")
        return self

    @model_validator(mode="after")
    def _rows_are_divisible(self) -> "TrainConfig":
        if self.rows % self.row_passes:
            raise ValueError(
                f"rows ({self.rows}) must be a multiple of row_passes ({self.row_passes})"
            )
        return self


class EvaluateConfig(Section):
    """Perplexity of a held-out split over the full vocabulary."""

    corpus: str | None = runtime(None, "corpus folder; null means the training corpus")
    checkpoint: str | None = runtime(
        None,
        "best or last: the step of this run's training with the lowest held-out perplexity, or its last "
        "step; or a train folder, which means its best step; or a checkpoint in one; null means that of "
        "export.checkpoint",
    )
    split: Split = Field("valid", description="split to evaluate on")
    rows: int = Field(
        16,
        ge=1,
        le=100_000,
        description="rows that the text is divided into; each starts from the zero state",
    )
