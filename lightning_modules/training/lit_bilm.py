"""The LightningModule: network, loss, optimiser, and the recurrent state carried between windows."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork, Losses
from lightning_modules.nn.heads.routes import ranks_of
from lightning_modules.nn.window import Window
from lightning_modules.random_state import derived_seed, seeded
from lightning_modules.training.carried_state import CarriedState
from lightning_modules.training.checkpoint_format import (
    CHECKPOINT_FORMAT,
    check_shapes,
    fits,
    make_resumable,
)
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.evaluated_bilm import EvaluatedBiLM
from lightning_modules.training.gradient_scale import current_scale, unscaled
from lightning_modules.training.optimizers import (
    HeldOutSchedule,
    adopt_state,
    build_optimizer,
    clip_gradients,
    end_skip,
    skip_if,
    use_own_implementation,
)
from lightning_modules.training.step_figures import StepFigures
from lightning_modules.training.trainer_settings import (
    arguments_of,
    check_no_teacher,
    check_trainer,
    clip_norm,
    hyperparameters,
    last_step,
    share_of,
)
from lightning_modules.training.weights.clusters import cutoffs_of, output_counts
from lightning_modules.training.window_loader import Batch, check_batch
from preprocess.shards.format import Corpus


class LitBiLM(EvaluatedBiLM):
    """Training of a bidirectional language model (Peters et al. 2018, section 3.1) by any Trainer.

    The loss is the mean of the directions' cross-entropies in nats, minimised by truncated
    backpropagation through time. A batch is one window of the rows of this rank, see
    `TokenShardDataModule`. The recurrent state of each row is carried from window to window, and is
    part of a checkpoint. The Trainer's ``accumulate_grad_batches`` and ``precision`` apply.

    The random seed of a forward pass is derived from (seed, window, rank, pass); the generators of the
    process are left as they were. A training that is resumed by ``Trainer.fit(ckpt_path=...)`` with the
    same number of ranks and passes takes the same steps as an uninterrupted one, on a CPU to the bit.

    Logged every ``log_every_n_steps`` steps, and at the last one of an epoch: ``loss_forward``,
    ``loss_backward``, ``train_loss`` (their mean), in nats per token; ``perplexity_forward``,
    ``perplexity_backward``; ``gradient_norm`` before clipping; ``skipped_steps``; ``learning_rate``; in
    float16 also ``gradient_scale``. Logged after a validation, if defined: ``valid_loss``,
    ``valid_tokens``, ``valid_bits_per_byte``, ``valid_forward_perplexity``,
    ``valid_backward_perplexity``, ``valid_average_perplexity``.

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
        figures: figures of the last step.
        initial_optimizer: state of an optimiser that training starts from, see
            `InitialWeights.optimizer_state`.
    """

    uses_teacher: ClassVar[bool] = False  # True for a student

    def __init__(
        self,
        model: ModelConfig | Mapping[str, Any],
        train: TrainConfig | Mapping[str, Any],
        vocabulary: int,
        cutoffs: Sequence[int] = (),
        ranks: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model_config = ModelConfig.model_validate(model)
        self.train_config = TrainConfig.model_validate(train)
        self.save_hyperparameters(
            {
                "model": self.model_config.model_dump(mode="json"),
                "train": hyperparameters(self.train_config),
                "vocabulary": vocabulary,
                "cutoffs": list(cutoffs),
            }
        )
        with seeded(self.train_config.seed, torch.get_default_device()):
            self.network = BiLMNetwork(self.model_config, vocabulary, tuple(cutoffs), ranks)
        self.initial_optimizer: dict[str, Any] | None = None
        self._restored: Tensor | None = None
        self._last_step = self.train_config.steps
        self._cell = ""
        self._start()

    @classmethod
    def for_corpus(
        cls,
        corpus: str | Corpus,
        model: ModelConfig | Mapping[str, Any],
        train: TrainConfig | Mapping[str, Any],
    ) -> "LitBiLM":
        """Return a module for a corpus, with clusters of the output layer from its token counts.

        Args:
            corpus: folder of the prepare stage, a path or URL, or the corpus itself.
            model, train: as of the class.

        Raises:
            UserError: if the corpus cannot be opened, or the settings do not fit it.
        """
        corpus, model, train = arguments_of(corpus, model, train)
        counts = output_counts(corpus, model, train)
        cutoffs = cutoffs_of(model, train, counts)
        return cls(model, train, corpus.vocabulary, cutoffs, torch.from_numpy(ranks_of(counts)))

    def _start(self) -> None:
        """Set the progress to that of a training that has not begun."""
        self.step = self.windows = 0
        self.figures = StepFigures(self.network.directions)
        self.forget_validations()
        self._carried_state: CarriedState | None = None

    def compile_cell(self, rows: int | None = None) -> str:
        """Compile the recurrent cell once, and return a sentence that says whether it is compiled.

        Args:
            rows: number of rows to tune for; None means those of a pass of a single rank.
        """
        if not self._cell:
            rows = rows or self.train_config.rows // self.train_config.row_passes
            self._cell = self.network.recurrent.compile_cell(self.train_config.compile, rows)
        return self._cell

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser and the learning rate schedule of `TrainConfig`, stepped every step."""
        train = self.train_config
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        optimizer = build_optimizer(train.optimizer, weights, train.learning_rate)
        if self.initial_optimizer and self._restored is None:
            adopt_state(optimizer, self.initial_optimizer)
        self.initial_optimizer = None
        self._last_step = last_step(self.trainer, train)
        schedule = HeldOutSchedule(optimizer, train, self._last_step, lambda: self.held_out_losses)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Refuse a Trainer whose settings contradict those of the training, and adapt it."""
        self.adapt_trainer()
        if stage == TrainerFn.FITTING:
            if not self.uses_teacher:
                check_no_teacher(self.train_config)
            check_trainer(self.trainer, self.train_config)

    def on_fit_start(self) -> None:
        """Compile the recurrent cell, if `compile_cell` has not; use CUDA graphs if the device has them."""
        self.compile_cell()
        train = self.train_config
        if train.cuda_graphs == "auto":
            rows = share_of(self.trainer, train).of_pass
            self.network.recurrent.use_graphs(train.unroll, rows)

    def on_fit_end(self) -> None:
        """Free the memory of CUDA graphs."""
        self.network.recurrent.drop_graphs()

    def on_train_start(self) -> None:
        """Take over the progress of the checkpoint, or start anew in a Trainer at its first step."""
        if self.trainer.global_step != self.step:
            self._start()
            self._restored = None
        if self.average:
            self.average.to(self.device)
        for optimizer in self.trainer.optimizers:
            use_own_implementation(optimizer)
        self.refresh_rate()

    @property
    def carried_state(self) -> CarriedState:
        """The recurrent state of the rows of this rank: that of a checkpoint, or zero at first."""
        if self._carried_state is None:
            train, whole = self.train_config, self._restored
            if whole is None:
                whole = self.network.zero_state(train.rows)
            share = share_of(self.trainer, train)
            self._carried_state = CarriedState(whole, share, self.device)
            self._restored = None
        return self._carried_state

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a window. Lightning computes its gradient.

        If the rows are divided into passes, the gradients of all passes except the last one are
        computed here, so that the memory of one pass is enough.

        Args:
            batch: the window with the number `windows`.
            batch_idx: number of the batch in the epoch.

        Raises:
            UserError: if the batch is another window, or none of `TokenShardDataModule`.
        """
        check_batch(batch, None if self.trainer.overfit_batches else self.windows)  # type: ignore[attr-defined]
        accumulated = self.trainer.accumulate_grad_batches
        if batch_idx % accumulated == 0:
            # Lightning would do it after this method, and drop the gradients of the first passes.
            self.zero_grad()
        *first, last = range(len(batch.passes))
        for number in first:
            loss = self._loss(batch, number) / accumulated
            self.trainer.precision_plugin.pre_backward(loss, self).backward()
        loss = self._loss(batch, last)
        self.windows += 1
        return loss

    def _loss(self, batch: Batch, number: int) -> Tensor:
        """Return the loss of one pass, divided by the number of passes; carry its state."""
        train, device = self.train_config, self.device.type
        seed = derived_seed(train.seed, self.windows, self.trainer.global_rank, number)
        dtype = torch.get_autocast_dtype(device)
        with (
            seeded(seed, self.device),
            # Lightning's autocast would convert a weight at each of its uses.
            torch.autocast(device, dtype, torch.is_autocast_enabled(device), cache_enabled=True),
        ):
            losses = self.network.loss(
                batch.passes[number],
                self.carried_state.passes[number],
                bool(train.activation_penalty or train.change_penalty),
            )
            self.carried_state.passes[number] = losses.state.detach()
            self.figures.add(losses.means.detach())
            loss = self.total_loss(losses, batch.passes[number], number)
        return loss * (train.loss_scale / len(batch.passes))

    def total_loss(self, losses: Losses, window: Window, number: int) -> Tensor:
        """Return the loss of a window of the pass ``number``, (), given what the network returned."""
        train, loss = self.train_config, losses.means.mean()
        if losses.activation is not None and losses.change is not None:
            loss = loss + train.activation_penalty * losses.activation
            loss = loss + train.change_penalty * losses.change
        return loss

    def optimizer_zero_grad(self, *arguments: Any) -> None:
        """Do nothing, because `training_step` has done it."""

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, or let the optimiser skip the step if the gradient is not finite.

        A skipped step restores the recurrent states before it. All ranks have the same gradient here,
        so all decide alike. The decision is made on the device, which the host does not wait for.
        """
        by_norm = gradient_clip_algorithm != "value"
        weights = [weight for weight in self.parameters() if weight.grad is not None]
        limit = clip_norm(self.trainer, self.train_config) if by_norm else None
        scale = current_scale(self.trainer)
        is_skipped = self.figures.count_gradient(clip_gradients(weights, limit), scale)
        self.carried_state.undo_if(is_skipped)
        if gradient_clip_val and not by_norm:
            # Lightning's method refuses a fused optimiser in float16.
            torch.nn.utils.clip_grad_value_(weights, gradient_clip_val)
        skip_if(is_skipped, optimizer)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Take the step, and count it, also if it is skipped. Log its figures if it is time."""
        closure = unscaled(optimizer_closure, self.trainer)
        super().optimizer_step(epoch, batch_idx, optimizer, closure)
        end_skip(*self.trainer.optimizers)
        if self.average is not None:
            self.average.add(list(self.network.parameters()), self.figures.is_skipped)
        self.figures.finish(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.carried_state.keep()
        self.step += 1
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_last = self.trainer.is_last_batch or self.step == self.trainer.max_steps
        # Not at each step: it takes 2 ms, and losses are means over ranks.
        if every and (self.step % every == 0 or is_last):
            figures = self.figures.to_log()
            self.log("train_loss", figures.pop("train_loss"), prog_bar=True)
            self.log_dict(figures)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the progress and the recurrent state of all rows to a checkpoint. Collective.

        "average" is None before averaging has begun. "carried_state" has the shape (layers,
        directions, rows, state_width), with rows in global order.
        """
        checkpoint |= {
            "format": CHECKPOINT_FORMAT,
            "step": self.step,
            "steps": self._last_step,
            "windows": self.windows,
            "cutoffs": list(self.network.head.cutoffs),
            "carried_state": self.carried_state.of_all_rows(),
            "looks": list(self.held_out_losses),
            "average": self.averaged_weights(),
            "averaged_steps": self.average.steps if self.average else 0,
            **self.figures.to_save(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the progress of a checkpoint of any number of ranks and passes.

        Raises:
            UserError: if the checkpoint has another format, or does not fit the model.
        """
        if "held_out" in checkpoint:  # of `BestCheckpoint`, which has no progress
            return
        make_resumable(checkpoint, self.train_config.accumulate_steps)
        with fits():
            check_shapes(checkpoint, self.network, self.train_config.rows)
            self._start()
            self.step, self.windows = checkpoint["step"], checkpoint["windows"]
            self.held_out_losses = list(checkpoint["looks"])
            self.figures.restore(checkpoint)
            self.restore_average(checkpoint["average"], checkpoint["averaged_steps"])
        self._restored = checkpoint["carried_state"]
