"""Settings that all tasks with a trained head share. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from preprocess.section import Section, runtime

Epochs = Annotated[
    int, Field(ge=1, description="largest number of passes over the training examples")
]
Patience = Annotated[
    int, Field(ge=1, description="training ends after this many epochs without a better dev score")
]
Batch = Annotated[int, Field(ge=1, description="examples of a step")]
Rate = Annotated[float, Field(gt=0, description="peak learning rate of the head, AdamW")]
WeightDecay = Annotated[
    float,
    Field(ge=0, description="each step also subtracts learning rate x weight_decay x weight"),
]
Schedule = Annotated[
    Literal["linear", "constant"],
    Field(
        description="learning rate after the warmup; linear: falls to 0 at the last step of all epochs; "
        "constant: stays at its peak"
    ),
]
Warmup = Annotated[
    float,
    Field(ge=0, lt=1, description="fraction of all steps in which the learning rate rises from 0"),
]
ClipNorm = Annotated[float, Field(gt=0, description="largest norm of the gradient")]


class FinetuneConfig(Section):
    """How the language model is trained together with the head (ULMFiT, Howard & Ruder 2018)."""

    learning_rate: float = Field(
        3e-3, gt=0, description="peak learning rate of the top layer of the language model"
    )
    layer_decay: float = Field(
        2.6,
        ge=1,
        description="each layer's learning rate is that of the layer above divided by this "
        "(discriminative fine-tuning, Howard & Ruder 2018, section 3.2)",
    )


class FitConfig(Section):
    """The training of a head. A task may have other default values."""

    epochs: Epochs = 20
    patience: Patience = 4
    batch: Batch = 32
    learning_rate: Rate = 1e-3
    weight_decay: WeightDecay = 0.01
    schedule: Schedule = "linear"
    warmup: Warmup = 0.1
    clip_norm: ClipNorm = 1.0
    finetune: FinetuneConfig = Field(
        default_factory=FinetuneConfig,
        description="the training of the language model, if finetune is true",
    )


class TaskOptions(Section):
    """What every task with a trained head can be told, beside its head and its training."""

    dev: str | None = runtime(
        None,
        "file of examples that are scored in the table and that choose the best epoch; null: dev_share "
        "of the training file",
    )
    dev_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the training examples that is held out, if dev is null",
    )
    finetune: bool = Field(
        False, description="also train the language model, with the rates of train.finetune"
    )
    baselines: bool = Field(True, description="also score the baselines of the table")
    cache: str | None = runtime(
        None,
        "vector cache from which the vectors of its texts are read, beside --model; made with "
        "embed.layers=all; for tag also with embed.words=true and embed.unit=word",
    )
    seed: int = Field(
        1, ge=0, lt=1 << 32, description="seed of the held-out share and of the first training"
    )
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="trainings with consecutive seeds, whose scores are pooled; the folder has the first "
        "one",
    )
    bundle: bool = Field(False, description="copy the language model into the folder")
    device: Literal["auto", "cpu", "cuda"] = runtime(
        "auto", "where to compute; auto: a GPU if there is one, otherwise the CPU"
    )

    @property
    def kept_training(self) -> str:
        """Which of several trainings a folder has; empty if there is one."""
        if self.seeds == 1:
            return ""
        last = self.seed + self.seeds - 1
        return f"the folder has the network of seed {self.seed}, the first of the seeds {self.seed} to {last}"
