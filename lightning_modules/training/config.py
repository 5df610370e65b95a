"""Config sections of training and evaluation. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocess.section import Section, runtime
from preprocess.text.config import Split


class AdamConfig(Section):
    """Adam (Kingma & Ba 2015)."""

    kind: Literal["adam"] = "adam"
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="decay of the gradient's mean and of its square's"
    )
    epsilon: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="added to the gradient, times the weight")


class AdamWConfig(Section):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="decay of the gradient's mean and of its square's"
    )
    epsilon: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.01, ge=0, description="taken off the weight, times the rate")


class AdagradConfig(Section):
    """Adagrad (Duchi et al. 2011)."""

    kind: Literal["adagrad"] = "adagrad"
    initial_accumulator: float = Field(
        1.0, ge=0, description="where the sum of squared gradients begins"
    )
    epsilon: float = Field(1e-10, ge=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="added to the gradient, times the weight")


class SGDConfig(Section):
    """Stochastic gradient descent, with averaging once the held-out text no longer gains."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.0, ge=0, lt=1, description="share of the last step kept")
    weight_decay: float = Field(0.0, ge=0, description="added to the gradient, times the weight")
    average_after: int | None = Field(
        None,
        ge=1,
        description="looks at the held-out text without gain after which the weights' average "
        "begins (NT-ASGD, Merity et al. 2018); none: no average",
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
    final_rate: float = Field(
        0.1, ge=0, le=1, description="rate at the last step, as a share of the peak"
    )


class LinearConfig(Section):
    """A straight line from the peak to the last step."""

    kind: Literal["linear"] = "linear"
    final_rate: float = Field(
        0.0, ge=0, le=1, description="rate at the last step, as a share of the peak"
    )
    hold: float = Field(
        0.0, ge=0, lt=1, description="share of the steps that are at the peak before it falls"
    )


class InverseSqrtConfig(Section):
    """Falls with the root of the step after the warm-up (Vaswani et al. 2017)."""

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"


class PlateauConfig(Section):
    """Falls by a factor whenever the held-out text gains no more."""

    kind: Literal["plateau"] = "plateau"
    factor: float = Field(0.25, gt=0, lt=1, description="factor on the rate")
    patience: int = Field(0, ge=0, description="looks without gain that are let pass before it")


ScheduleConfig = Annotated[
    CosineConfig | LinearConfig | InverseSqrtConfig | ConstantConfig | PlateauConfig,
    Field(discriminator="kind"),
]


class TrainConfig(Section):
    """Truncated backpropagation through time on independent streams a row, one a direction."""

    corpus: str | None = runtime(None, "corpus folder; none: this run's own prepare")
    init_from: str | None = runtime(
        None, "model folder whose weights training starts from; none: drawn weights"
    )
    rows: int = Field(32, ge=1, description="rows of a batch, over all devices")
    unroll: int = Field(20, ge=1, description="tokens a row reads a step (truncated BPTT)")
    accumulate_steps: int = Field(
        1, ge=1, description="windows of `unroll` tokens a row reads for one optimiser step"
    )
    steps: int = Field(10_000, ge=1, description="optimiser steps; may be raised later")
    boundary: Literal["eos", "bos_eos"] = Field(
        "eos", description="between documents: one <eos>, or ELMo's <bos> and <eos>"
    )
    reset_state: bool = Field(
        False, description="begin every document from zero state, not from the one before it"
    )
    order: Literal["shuffled", "as-given"] = Field(
        "shuffled", description="order of shards and documents in a pass over the corpus"
    )
    seed: int = Field(
        1, ge=0, lt=1 << 32, description="seed of the weights, the order and the dropout"
    )
    optimizer: OptimizerConfig = Field(AdamConfig(), description="optimiser")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    warmup_steps: int = Field(100, ge=0, description="steps in which the rate rises from 0")
    schedule: ScheduleConfig = Field(CosineConfig(), description="the rate after the warm-up")
    clip_norm: float | None = Field(1.0, gt=0, description="bound of the gradient's norm")
    loss_scale: float = Field(
        1.0, gt=0, description="factor on the mean loss before its gradient; ELMo's is `unroll`"
    )
    activation_penalty: float = Field(
        0.0, ge=0, description="times the mean square of the top outputs (Merity et al. 2018, 4.6)"
    )
    change_penalty: float = Field(
        0.0, ge=0, description="times the mean square of the top output's change a token (ibid.)"
    )
    max_skipped_steps: int = runtime(
        10, "steps in a row with a gradient that is not finite after which training ends", ge=1
    )
    precision: Literal["auto", "float32", "bf16"] = Field(
        "auto", description="of the matmuls; auto: bf16 where a GPU has it"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="compile the recurrent cell; auto: where a compiler is found"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    devices: int | None = runtime(
        None, "devices (or CPU processes) of each node; none: all GPUs, one CPU process", ge=1
    )
    num_nodes: int = runtime(1, "machines, each of which runs the same command", ge=1)
    row_passes: int = runtime(
        1, "passes in which a device takes its rows, so that fewer devices carry the same", ge=1
    )
    data_workers: int | None = runtime(
        None,
        "processes of each device that read ahead; 0: the training process reads; none: 1 for a GPU, "
        "else 0",
        ge=0,
    )
    cache_bytes: int = runtime(
        50_000_000_000, "local copies of remote shards, in bytes at most", ge=0
    )
    checkpoint_steps: int = runtime(500, "steps between checkpoints", ge=1)
    checkpoint_minutes: float = runtime(10.0, "minutes between checkpoints, at most", gt=0)
    evaluate_steps: int = runtime(1000, "steps between looks at the held-out text", ge=1)
    log_steps: int = runtime(10, "steps between lines of metrics.jsonl", ge=1)

    @property
    def looks_decide(self) -> bool:
        """Whether looks at the held-out text change the training, and so how often they come."""
        averages = isinstance(self.optimizer, SGDConfig) and self.optimizer.average_after
        return bool(averages) or isinstance(self.schedule, PlateauConfig)

    @property
    def tokens_a_step(self) -> int:
        """Tokens that all rows read in one optimiser step."""
        return self.rows * self.unroll * self.accumulate_steps

    @model_validator(mode="after")
    def _rows_can_be_dealt(self) -> "TrainConfig":
        if self.rows % self.row_passes:
            raise ValueError(
                f"rows ({self.rows}) must be a multiple of row_passes ({self.row_passes})"
            )
        return self


class EvaluateConfig(Section):
    """Perplexity of held-out text over the full vocabulary."""

    corpus: str | None = runtime(None, "corpus folder; none: the one that is trained on")
    checkpoint: str | None = runtime(None, "train folder; none: this run's own")
    split: Split = Field("valid", description="the split to read")
    rows: int = Field(
        16, ge=1, description="rows the text is dealt to; each starts from zero state"
    )
