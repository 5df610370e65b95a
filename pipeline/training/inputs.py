"""The inputs of a training: corpus, output clusters, initial weights or checkpoint, rows of a rank."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lightning_modules.config import AdaptiveSoftmaxConfig, CharCNNInputConfig
from lightning_modules.evaluation.held_out import HeldOut
from lightning_modules.nn.heads.cutoffs import CPU, GPU, predicted_speedup
from lightning_modules.nn.heads.routes import ranks_of
from lightning_modules.nn.inputs.word_types import word_encoder
from lightning_modules.nn.window import Types
from lightning_modules.sizes import SpelledTypes
from lightning_modules.training.checkpoints import newest_checkpoint
from lightning_modules.training.config import ConstantConfig, InverseSqrtConfig, PlateauConfig
from lightning_modules.training.datamodule import TokenShardDataModule, training_windows
from lightning_modules.training.distillation.lit_student import LitStudent
from lightning_modules.training.distillation.teacher import Teacher
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.optimizers import learning_rate
from lightning_modules.training.ranks.distribution import Share
from lightning_modules.training.validation.sample import HeldOutSample, training_sample
from lightning_modules.training.weights.clusters import cutoffs_of, output_counts, softmax_size
from lightning_modules.training.weights.initial_weights import InitialWeights
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.inputs import stage_folder, tokenizer_of
from pipeline.lifecycle.stage import StageError, StageFolder
from pipeline.training.device import (
    Precision,
    device_count,
    resolve_device,
    resolve_precision,
    use_cores,
)
from pipeline.training.memory import check_memory
from pipeline.training.processes import Processes, processes_of
from preprocess.shards.format import Corpus
from preprocess.shards.stream import Int64Ids
from preprocess.shards.windows import TrainingWindows
from preprocess.text.config import SPLITS
from preprocess.tokenizers.load import cached_tokenizer
from preprocess.tokenizers.spellings import MARKS, PAD, truncated

COSTS = {"cpu": CPU, "cuda": GPU}
"""Cost model of the adaptive softmax by device type, for the speed that is shown."""


@dataclass
class TrainingInputs:
    """The inputs of a training; only ``device``, ``processes`` and ``share`` differ between ranks.

    Attributes:
        config: the config.
        place: the folder of the train stage.
        corpus: the token shards.
        device: the device of this rank.
        processes: the processes of the training, and the place of this one.
        share: the rows that this rank reads.
        step: the step to resume from, 0 if there is no unfinished work.
        checkpoint: the checkpoint to resume from, if there is unfinished work.
        initial: the weights to start from, if there is no checkpoint and the config names some.
        teacher: the teacher, if the config names one.
    """

    config: Config
    place: StageFolder
    corpus: Corpus
    device: torch.device
    processes: Processes
    share: Share
    step: int
    checkpoint: dict[str, Any] | None
    initial: InitialWeights | None
    teacher: Teacher | None

    @classmethod
    def of(
        cls,
        config: Config,
        place: StageFolder,
        console: Console | None = None,
        processes: Processes | None = None,
    ) -> "TrainingInputs":
        """Open the inputs that the config names.

        Args:
            config: the config.
            place: the folder of the train stage.
            console: prints warnings about damaged checkpoints.
            processes: the processes of the training, if biloom started this one.

        Raises:
            UserError: corpus, model folder, devices or settings cannot be used.
        """
        train = config.train
        corpus = Corpus.open(stage_folder(config, "prepare", train.corpus), train.cache_bytes)
        if train.depends_on_held_out_loss and not corpus.shards("valid"):
            raise StageError(
                f"{corpus.folder} has no held-out text, which is needed for "
                f"{' and '.join(train.held_out_settings)}; prepare it with a larger "
                "prepare.valid_fraction, or do not set this"
            )
        device = resolve_device(train.device)
        devices = device_count(train.devices, device)
        processes = processes or processes_of(train, devices)
        if device.type == "cuda":
            # Otherwise all processes of a machine use the first GPU until Lightning moves them.
            device = torch.device("cuda", processes.local_rank)
            torch.cuda.set_device(device)
        share = Share(train.rows, processes.rank, processes.world, train.row_passes)
        use_cores(devices)
        checkpoint = newest_checkpoint(place.work, console.warn if console else lambda _: None)
        initial, teacher, tokenizer = None, None, corpus.manifest.details["tokenizer"]
        if train.init_from and not checkpoint:
            initial = InitialWeights.read(train.init_from, tokenizer, config.model)
        if train.teacher:
            teacher = Teacher.open(train.teacher, tokenizer, train.boundary)
        step = checkpoint["step"] if checkpoint else 0
        found = (step, checkpoint, initial, teacher)
        return cls(config, place, corpus, device, processes, share, *found)

    @property
    def precision(self) -> Precision:
        """The type of matrix products."""
        return resolve_precision(self.config.train.precision, self.device)

    @property
    def output_vocabulary(self) -> int:
        """The number of ids that the output layer predicts."""
        return self.config.model.predictable_ids(self.corpus.vocabulary)

    @cached_property
    def counts(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """How often each id is a target in the train split, (output vocabulary,)."""
        return output_counts(self.corpus, self.config.model, self.config.train)

    @cached_property
    def clusters(self) -> tuple[tuple[int, ...], torch.Tensor]:
        """Cutoffs of the output layer, and the frequency rank of each id, (output vocabulary,).

        They come from the first of these that has them: checkpoint, initial weights, teacher, config,
        corpus.
        """
        if self.checkpoint:
            ranks = self.checkpoint["state_dict"].get("network.head.ranks")
            if ranks is None:
                ranks = torch.arange(self.output_vocabulary)
            # A copy, because the module keeps it, and the checkpoint is mapped from its file.
            return tuple(self.checkpoint["cutoffs"]), ranks.clone()
        head = self.config.model.head
        for trained in (self.initial, self.teacher):
            if clusters := trained and trained.clusters(head, self.output_vocabulary):
                return clusters
        model, train = self.config.model, self.config.train
        return cutoffs_of(model, train, self.counts), torch.from_numpy(ranks_of(self.counts))

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """Ranks where the tail clusters of an adaptive softmax begin; empty for another head."""
        return self.clusters[0]

    def module(self, console: Console) -> LitBiLM:
        """Return the module with its network on the device of this rank.

        The weights come from the initial weights if there are some, else they are random. Those of a
        checkpoint are restored by Lightning.

        Raises:
            UserError: the training cannot fit into memory.
        """
        model, train = self.config.model, self.config.train
        size = (self.corpus.vocabulary, self.cutoffs)
        check_memory(model, train, *size, self.share, self.device)
        settings = (model, train, self.corpus.vocabulary, *self.clusters)
        if self.teacher:
            self.teacher.to(self.device)
        module = LitStudent(*settings, teacher=self.teacher) if self.teacher else LitBiLM(*settings)
        if self.initial:
            told = self.initial.adopt(module.network, train.optimizer)
            console.line(f"starting from {self.initial.path}; {told}")
            module.initial_optimizer = self.initial.optimizer_state
        module.network.to(self.device)
        return module

    def _windows(self, rows: range) -> TrainingWindows:
        directions = self.config.model.direction_count
        return training_windows(self.corpus, self.config.train, rows, directions)

    @cached_property
    def passes(self) -> float:
        """Number of passes over the train split."""
        train = self.config.train
        return self._windows(range(0)).passes(train.steps * train.accumulate_steps)

    @property
    def split_tokens(self) -> dict[str, int]:
        """Number of tokens of each split of the corpus."""
        return {split: self.corpus.totals(split)["tokens"] for split in SPLITS}

    @cached_property
    def sample(self) -> HeldOutSample:
        """What held-out evaluations read: the same text as before the checkpoint, if there is one."""
        if self.checkpoint:
            state = self.checkpoint.get(TokenShardDataModule.__qualname__, {})
            return HeldOutSample.of_checkpoint(state.get("sample"))
        return self._sample_of_settings

    @cached_property
    def _sample_of_settings(self) -> HeldOutSample:
        model, train = self.config.model, self.config.train
        return training_sample(model, train, self.corpus.vocabulary, self._held_out_tokens)

    @cached_property
    def _held_out_tokens(self) -> int:
        return HeldOut.of(self.corpus.shards("valid")).tokens

    @cached_property
    def tokenizer(self) -> str | None:
        """Folder of the tokenizer, if a character CNN spells the words."""
        if not isinstance(self.config.model.input, CharCNNInputConfig):
            return None
        content = self.corpus.manifest.details["tokenizer"]
        used_by = f"{self.corpus.folder} was prepared with, which spells words for a char_cnn input"
        return tokenizer_of(self.config, content, used_by)

    @cached_property
    def _spelling(self) -> Callable[[int], str] | None:
        """A function from an id to its spelling, for a character CNN input."""
        if self.tokenizer is None:
            return None
        content = self.corpus.manifest.details["tokenizer"]
        return cached_tokenizer(self.tokenizer, content).spelling

    @cached_property
    def encode(self) -> Callable[[Int64Ids], Types] | None:
        """A function from ids to the spellings of their types, for a character CNN input."""
        settings = self.config.model.input
        if self._spelling is None or not isinstance(settings, CharCNNInputConfig):
            return None
        return word_encoder(self._spelling, self.corpus.vocabulary, settings.max_characters)

    @cached_property
    def spelled_types(self) -> SpelledTypes | None:
        """Types and characters per token that a character CNN reads, from this rank's first window."""
        if self.encode is None:
            return None
        ids = (
            self._windows(self.share.of_rank).batch(0).ids
        )  # (directions, unroll, rows of the rank)
        buckets = self.encode(ids).characters
        types = sum(len(bucket) for bucket in buckets)
        characters = sum(float((bucket != PAD).sum()) for bucket in buckets)
        return SpelledTypes(types / ids[0].size, characters / types)

    def show(self, console: Console) -> None:
        """Print the output clusters, truncated words and the step that training resumes from."""
        head = self.config.model.head
        if isinstance(head, AdaptiveSoftmaxConfig):
            size, costs = (
                softmax_size(self.config.model, self.config.train, head),
                COSTS[self.device.type],
            )
            speedup = predicted_speedup(self.counts, self.cutoffs, *size, costs)
            shown = ", ".join(f"{cut:,}" for cut in self.cutoffs) or "none"
            # The cutoffs are those for a CPU, so that they do not depend on the device.
            hint = "; model.head.cutoffs=[] is faster on this device" if speedup < 1 else ""
            console.line(
                f"adaptive softmax: cutoffs {shown}; predicted to be {speedup:.1f} times as fast as "
                f"the full softmax{hint}"
            )
        self._show_truncated(console)
        self._show_sample(console)
        if self.checkpoint:
            console.line(f"resuming from step {self.checkpoint['step']:,}")
            self._show_raised_steps(self.checkpoint, console)

    def _show_truncated(self, console: Console) -> None:
        settings = self.config.model.input
        if self._spelling is None or not isinstance(settings, CharCNNInputConfig):
            return
        cut = truncated(self._spelling, self.corpus.counts(), settings.max_characters)
        if cut.types:
            console.line(
                f"{cut.types:,} types ({cut.tokens:,} tokens) are longer than the "
                f"{settings.max_characters - MARKS} bytes that model.input.max_characters allows, and "
                "are truncated"
            )

    def _show_sample(self, console: Console) -> None:
        size, same = self._held_out_tokens, self.sample == self._sample_of_settings
        if not size or (same and self.sample.tokens is None):
            return
        read, last = f"all {size:,} tokens", ""
        if self.sample.tokens is not None:
            read = f"a fixed sample of at most {self.sample.tokens:,} of {size:,} tokens"
            last = ", and all after the last step"
        why = (
            "" if same else "; the sample is that of the checkpoint, so that losses can be compared"
        )
        console.line(f"held-out evaluations read {read}{last}{why}")

    def _show_raised_steps(self, checkpoint: dict[str, Any], console: Console) -> None:
        train, step, former = self.config.train, checkpoint["step"], checkpoint["steps"]
        if former == train.steps:
            return
        schedule = train.schedule
        raised = f"train.steps is raised from {former:,} to {train.steps:,}: "
        if isinstance(schedule, ConstantConfig | InverseSqrtConfig | PlateauConfig):
            console.line(f"{raised}the {schedule.kind} schedule does not depend on it")
            return
        losses = checkpoint["looks"]
        rates = [learning_rate(train, step, steps, losses) for steps in (former, train.steps)]
        console.line(
            f"{raised}the {schedule.kind} schedule now ends there, so the next learning rate is "
            f"{rates[1]:.4g} ({rates[0]:.4g} without the change)"
        )
