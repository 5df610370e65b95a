"""The LightningModule: network, loss, optimiser, and the recurrent state carried between windows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.evaluation.held_out import WAYS, HeldOut, perplexity
from lightning_modules.evaluation.perplexity import LossTally
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window import Window
from lightning_modules.training.checkpoint_format import CHECKPOINT_FORMAT, fits, make_resumable
from lightning_modules.training.config import PlateauConfig, SGDConfig, TrainConfig
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.distribution import (
    Share,
    gather_rows,
    mean_over_ranks,
    sum_over_ranks,
)
from lightning_modules.training.optimizers import (
    WeightAverage,
    averages,
    build_optimizer,
    learning_rate,
)
from lightning_modules.training.random_state import seeded
from lightning_modules.training.trainer_settings import check_trainer, clip_norm, last_step
from lightning_modules.training.window_loader import Batch
from preprocess.errors import UserError

HELD_OUT = ("forward_perplexity", "backward_perplexity", "average_perplexity", "bits_per_byte")
"""Figures of a validation, besides its loss."""


class LitBiLM(pl.LightningModule):
    """Training of a bidirectional language model (Peters et al. 2018, section 3.1) by any Trainer.

    The loss is the mean of the directions' cross-entropies in nats, minimised by truncated
    backpropagation through time. A batch is one window of the rows of this rank, see
    `TokenShardDataModule`. The recurrent state of each row is carried from window to window, and is
    part of a checkpoint. Windows are accumulated by ``Trainer(accumulate_grad_batches=...)``, and
    matrix products use bfloat16 with ``Trainer(precision="bf16-mixed")``.

    The random seed of a forward pass is derived from (seed, window, rank, pass), so a checkpoint needs
    no generator state, and the generators of the process are left as they were. A training that is
    resumed by ``Trainer.fit(ckpt_path=...)`` with the same number of ranks and passes takes the same
    steps as an uninterrupted one, on a CPU to the bit.

    Logged every ``log_every_n_steps`` steps: ``loss_forward``, ``loss_backward`` (nats per token, mean
    over ranks), ``perplexity_forward``, ``perplexity_backward``, ``train_loss`` (mean of both losses),
    ``gradient_norm`` (before clipping), ``skipped_steps``, ``learning_rate``. Logged after a
    validation: ``valid_loss`` (nats per token, mean of both directions),
    ``valid_forward_perplexity``, ``valid_backward_perplexity``, ``valid_average_perplexity``,
    ``valid_bits_per_byte``. Figures that are not defined are not logged.

    Args:
        model: settings of the network, or a dictionary of them.
        train: settings of the training, or a dictionary of them.
        vocabulary: number of token ids.
        cutoffs: ranks where the tail clusters of an adaptive softmax begin.
        ranks: rank of each id by count, int64 (output vocabulary,). None means that ids are ranks.
            It is a buffer of the network, not a hyperparameter.

    Raises:
        UserError: from `Trainer.fit`, if settings of the Trainer contradict those of the training, or
            a checkpoint does not fit.

    Attributes:
        network: the network.
        train_config: settings of the training.
        step: number of optimiser steps so far, including skipped ones.
        windows: number of windows trained so far.
        losses: cross-entropy of each direction in nats over the last step's rows of this rank,
            (directions,).
        gradient_norm: norm of the last step's gradient before clipping.
        skipped: number of steps skipped because the gradient was not finite.
        skipped_in_a_row: number of steps skipped since the last one that was not.
        held_out_losses: mean -log p of the held-out split in nats, at each validation so far.
        held_out: figures of the last validation.
        validation_counts: whether the next validations are recorded in `held_out_losses`.
        initial_optimizer: state of an optimiser that training starts from, see
            `InitialWeights.optimizer_state`.
    """

    def __init__(
        self,
        model: ModelConfig | Mapping[str, Any],
        train: TrainConfig | Mapping[str, Any],
        vocabulary: int,
        cutoffs: Sequence[int] = (),
        ranks: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model_config = ModelConfig.model_validate(_plain(model))
        self.train_config = TrainConfig.model_validate(_plain(train))
        self.save_hyperparameters(
            {
                "model": self.model_config.model_dump(mode="json"),
                "train": self.train_config.model_dump(mode="json"),
                "vocabulary": vocabulary,
                "cutoffs": list(cutoffs),
            }
        )
        with seeded(self.train_config.seed, torch.get_default_device()):
            self.network = BiLMNetwork(self.model_config, vocabulary, tuple(cutoffs), ranks)
        self.initial_optimizer: dict[str, Any] | None = None
        self._restored: Tensor | None = None
        self._average: WeightAverage | None = None
        self._schedule: Any = None
        self._last_step = self.train_config.steps
        self._cell = ""
        self._start()

    def _start(self) -> None:
        """Set the progress to that of a training that has not begun."""
        self.step = self.windows = self.skipped = self.skipped_in_a_row = 0
        self.losses = torch.zeros(self.network.directions)
        self._sums = torch.zeros(self.network.directions)
        self._summed = 0
        self.gradient_norm = self.learning_rate = 0.0
        self._figures: dict[str, float] = {}
        self.held_out_losses: list[float] = []
        self.held_out: dict[str, float | None] = {}
        self.validation_counts = True
        self._states: list[Tensor] = []
        self._states_before: list[Tensor] = []

    # Set-up

    def compile_cell(self, rows: int | None = None) -> str:
        """Compile the recurrent cell as `TrainConfig.compile` says, once.

        Args:
            rows: number of rows to tune for; None means those of a pass of a single rank.

        Returns:
            A sentence that says whether it is compiled and, if not, why.
        """
        if not self._cell:
            train = self.train_config
            rows = rows or train.rows // train.row_passes
            self._cell = self.network.recurrent.compile_cell(train.compile, rows)
        return self._cell

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and the learning rate schedule of `TrainConfig`, stepped every step."""
        train = self.train_config
        optimizer = build_optimizer(
            train.optimizer,
            self.network.parameters(),
            train.learning_rate,
            # A fused optimiser scales gradients itself, but they are needed before to be clipped.
            fused=self.trainer.precision != "16-mixed",
        )
        if self.initial_optimizer and self._restored is None:
            optimizer.load_state_dict(self.initial_optimizer)
            for group in optimizer.param_groups:
                group["lr"] = train.learning_rate
                group["fused"] = optimizer.defaults["fused"]
        self.initial_optimizer = None
        self._last_step = last_step(self.trainer, train)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": self._schedule,
                "interval": "step",
            },
        }

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step as a fraction of the peak."""
        train = self.train_config
        return (
            learning_rate(train, step, self._last_step, self.held_out_losses) / train.learning_rate
        )

    def _refresh_rate(self) -> None:
        """Set the rate of the next step anew, because what it depends on has changed."""
        configs = self.trainer.lr_scheduler_configs
        if not any(config.scheduler is self._schedule for config in configs):
            return  # a callback has replaced the schedule
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.train_config.learning_rate * self._rate(self.step)

    def setup(self, stage: str) -> None:
        """Compare the settings of the Trainer with those of the training.

        Raises:
            UserError: if they contradict one another.
        """
        if stage == TrainerFn.FITTING:
            check_trainer(self.trainer, self.train_config)

    def on_fit_start(self) -> None:
        """Compile the recurrent cell, if `compile_cell` has not."""
        self.compile_cell()

    def on_train_start(self) -> None:
        """Take over the progress of the checkpoint, or start anew in a Trainer at its first step."""
        if self.trainer.global_step != self.step:
            self._start()
            self._restored = self._average = None
        trainer, train = self.trainer, self.train_config
        self.share = Share(train.rows, trainer.global_rank, trainer.world_size, train.row_passes)
        if not self._states:
            state = self._restored
            if state is None:
                state = self.network.zero_state(train.rows)
            self._states = [
                state[:, :, part.start : part.stop].contiguous().to(self.device)
                for part in self.share.ranges
            ]  # (layers, directions, rows of the pass, state_width)
        self._states_before = list(self._states)
        self._restored = None
        self._sums = torch.zeros(self.network.directions, device=self.device)
        if self._average:
            self._average.to(self.device)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                # The state may come from a device with another implementation.
                if "fused" in optimizer.defaults:
                    group["fused"] = optimizer.defaults["fused"]
        self._refresh_rate()

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a window. Lightning computes its gradient.

        If the rows are divided into passes, the gradients of all passes except the last one are
        computed here, so that the memory of one pass is enough.

        Args:
            batch: the window with the number `windows`.
            batch_idx: number of the batch in the epoch.

        Raises:
            UserError: if the batch is another window.
        """
        if batch.step != self.windows and not self.trainer.overfit_batches:
            raise UserError(
                f"the data are at window {batch.step:,} but the module is at window {self.windows:,}; "
                "resume both by Trainer.fit(ckpt_path=...), and let a TokenShardDataModule serve one "
                "module"
            )
        accumulated = self.trainer.accumulate_grad_batches
        if batch_idx % accumulated == 0:
            # Lightning would do it after this method, and drop the gradients of the first passes.
            self.zero_grad()
        *first, last = range(len(batch.passes))
        for number in first:
            loss = self._loss(batch, number) / accumulated
            self.trainer.precision_plugin.pre_backward(loss, self).backward()
        loss = self._loss(batch, last)
        self._summed += 1
        self.windows += 1
        return loss

    def _loss(self, batch: Batch, number: int) -> Tensor:
        """Return the loss of one pass, divided by the number of passes; carry its state."""
        train, device = self.train_config, self.device.type
        seed = (train.seed, self.windows, self.share.rank, number)
        dtype = torch.get_autocast_dtype(device)
        with (
            seeded(
                int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1), self.device
            ),
            # Lightning's autocast would convert a weight at each of its uses.
            torch.autocast(device, dtype, torch.is_autocast_enabled(device), cache_enabled=True),
        ):
            losses = self.network.loss(
                batch.passes[number],
                self._states[number],
                bool(train.activation_penalty or train.change_penalty),
            )
        self._states[number] = losses.state.detach()
        self._sums += losses.means.detach() / len(batch.passes)
        loss = losses.means.mean()
        if losses.activation is not None and losses.change is not None:
            loss = loss + train.activation_penalty * losses.activation
            loss = loss + train.change_penalty * losses.change
        return loss * (train.loss_scale / len(batch.passes))

    def optimizer_zero_grad(self, *arguments: Any) -> None:
        """Do nothing, because `training_step` has done it."""

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, or drop it if it is not finite, so that the optimiser does nothing.

        A dropped gradient restores the recurrent states before the step. All ranks have the same
        gradient here, so all decide alike.
        """
        weights = [w for w in self.network.parameters() if w.grad is not None]
        total = torch.nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])
        self.gradient_norm = norm = float(total)
        if not math.isfinite(norm):
            self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
            self._states = list(self._states_before)
            self.zero_grad()
            return
        self.skipped_in_a_row = 0
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        limit = clip_norm(self.trainer, self.train_config)
        if limit and norm > limit:
            torch.nn.utils.clip_grads_with_norm_(weights, limit, total)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Take the step, and count it, also if its gradient was dropped."""
        super().optimizer_step(*arguments, **options)
        self.learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        if self._average is not None and not self.skipped_in_a_row:
            self._average.add(list(self.network.parameters()))
        self.losses = self._sums / self._summed
        self._sums, self._summed = torch.zeros_like(self._sums), 0
        self._states_before = list(self._states)
        self._figures = {}
        self.step += 1

    @property
    def is_between_steps(self) -> bool:
        """Whether no window of the next optimiser step has been trained."""
        return not self._summed

    @property
    def training_figures(self) -> dict[str, float]:
        """Figures of the last step. Collective when first read after a step: losses are means over ranks."""
        if not self._figures:
            losses = mean_over_ranks(self.losses).tolist()
            for name, loss in zip(WAYS, losses, strict=False):
                self._figures |= {f"loss_{name}": loss, f"perplexity_{name}": perplexity(loss)}
            self._figures |= {
                "train_loss": sum(losses) / len(losses),
                "learning_rate": self.learning_rate,
                "gradient_norm": self.gradient_norm,
                "skipped_steps": self.skipped,
            }
        return self._figures

    def on_train_batch_end(self, *arguments: Any) -> None:
        trainer = self.trainer
        if self.is_between_steps and (
            self.step % trainer.log_every_n_steps == 0 or trainer.should_stop
        ):
            figures = dict(self.training_figures)
            self.log("train_loss", figures.pop("train_loss"), prog_bar=True)
            self.log_dict(figures)

    # Validation

    def on_validation_start(self) -> None:
        """Exchange the weights with their average, if there is one, until the figures are computed."""
        self.swap_average()
        network = self.network
        self._tally = LossTally(network.directions, network.output_vocabulary, None, self.device)
        self._held_out_state: Tensor | None = None

    def validation_step(self, window: Window, batch_idx: int) -> None:
        """Add the losses of a window of held-out text, without dropout, over the full vocabulary."""
        state = self._held_out_state
        if state is None:
            state = self.network.zero_state(window.targets.shape[2])
        with torch.autocast(self.device.type, enabled=False):
            nll, self._held_out_state = self.network.nll(window, state)
        self._tally.add(nll, window.targets)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the held-out split. Collective."""
        data = getattr(self.trainer, "datamodule", None)
        text = HeldOut(0, 0, 0, 0, {})  # unknown
        if isinstance(data, TokenShardDataModule):
            text = data.held_out
        result = self._tally.result(text, sum_over_ranks)
        self.swap_average()
        figures = result.figures()
        self.held_out = {"loss": result.loss, **{name: figures[name] for name in HELD_OUT}}
        self.log_dict(
            {f"valid_{k}": v for k, v in self.held_out.items() if v is not None}, batch_size=1
        )
        is_fit = self.trainer.state.fn == TrainerFn.FITTING
        if is_fit and not self.trainer.sanity_checking and self.validation_counts:
            self._record(result.loss)

    def _record(self, nats: float) -> None:
        """Record a held-out loss, on which the learning rate and the averaging may depend."""
        self.held_out_losses.append(nats)
        optimizer, train = self.train_config.optimizer, self.train_config
        after = optimizer.average_after if isinstance(optimizer, SGDConfig) else None
        if after is not None and self._average is None and averages(self.held_out_losses, after):
            self._average = WeightAverage(list(self.network.parameters()))
        if isinstance(train.schedule, PlateauConfig):
            self._refresh_rate()

    @property
    def is_averaging(self) -> bool:
        """Whether averaging of the weights (NT-ASGD) has begun."""
        return self._average is not None

    def swap_average(self) -> None:
        """Exchange the weights with their average, if there is one; a second call undoes the first."""
        if self._average is None:
            return
        for weight, mean in zip(self.network.parameters(), self._average.tensors, strict=True):
            weight.data, mean.data = mean.data, weight.data

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the progress and the recurrent state of all rows to a checkpoint. Collective.

        Keys include "average", the averaged weights (None before averaging has begun), and
        "carried_state", the recurrent state of all rows in global order, (layers, directions, rows,
        state_width).
        """
        checkpoint |= {
            "format": CHECKPOINT_FORMAT,
            "step": self.step,
            "steps": self._last_step,
            "windows": self.windows,
            "cutoffs": list(self.network.head.cutoffs),
            "carried_state": gather_rows(torch.cat(self._states, 2)),
            "looks": list(self.held_out_losses),
            "average": self._averaged_weights(),
            "averaged_steps": self._average.steps if self._average else 0,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take over the weights and the progress of a checkpoint without a Trainer.

        Raises:
            UserError: as in `on_load_checkpoint`.
        """
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"])

    def _averaged_weights(self) -> dict[str, Tensor] | None:
        if self._average is None:
            return None
        self.swap_average()
        weights = {name: tensor.cpu().clone() for name, tensor in self.network.state_dict().items()}
        self.swap_average()
        return weights

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the progress of a checkpoint of any number of ranks and passes.

        Raises:
            UserError: if the checkpoint has another format, or does not fit the model.
        """
        make_resumable(checkpoint, self.train_config.accumulate_steps)
        with fits():
            shapes = {f"network.{k}": v.shape for k, v in self.network.state_dict().items()}
            found = {k: v.shape for k, v in checkpoint["state_dict"].items()}
            if shapes != found:
                different = sorted(k for k in shapes | found if shapes.get(k) != found.get(k))
                raise ValueError(f"weights of other names or shapes: {', '.join(different[:3])}")
            self._start()
            self.step, self.windows = checkpoint["step"], checkpoint["windows"]
            self.held_out_losses = list(checkpoint["looks"])
            self.skipped = checkpoint["skipped"]
            self.skipped_in_a_row = checkpoint["skipped_in_a_row"]
            self._average = None
            if checkpoint["average"]:
                weights = dict(self.network.named_parameters())
                means = [checkpoint["average"][name] for name in weights]
                if [m.shape for m in means] != [w.shape for w in weights.values()]:
                    raise ValueError("averaged weights of other shapes")
                self._average = WeightAverage(means)
                self._average.steps = checkpoint["averaged_steps"]
            zero = self.network.zero_state(self.train_config.rows)
            if checkpoint["carried_state"].shape != zero.shape:
                raise ValueError("a recurrent state of another shape")
        self._restored = checkpoint["carried_state"]


def _plain(settings: Any) -> Any:
    """Return a dictionary of settings that is no more than a dictionary, such as an `AttributeDict`."""
    return dict(settings) if isinstance(settings, Mapping) else settings
