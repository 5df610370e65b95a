"""The LightningModule: network, loss, optimiser, and the recurrent state carried between steps."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.training.config import SGDConfig, TrainConfig
from lightning_modules.training.datamodule import Batch
from lightning_modules.training.distribution import Share, gather_rows
from lightning_modules.training.optimizers import WeightAverage, averages, learning_rate
from lightning_modules.training.update import Update
from preprocess.errors import UserError

CHECKPOINT_FORMAT = 2


class LitBiLM(pl.LightningModule):
    """Training of a bidirectional language model (Peters et al. 2018, section 3.1).

    The loss is the mean of the directions' cross-entropies in nats, minimised by truncated
    backpropagation through time. The recurrent state of each row is carried from step to step.

    The random seed of each forward pass is derived from (seed, step, window, rank, pass), so a
    checkpoint needs no generator state. A training that is resumed from a checkpoint with the same
    number of ranks and passes takes the same steps as an uninterrupted one, to the bit.

    Optimisation is manual: Lightning does not see the optimiser. `restore`, if called, must be called
    before training starts.

    Args:
        model: settings of the network.
        train: settings of the training.
        vocabulary: number of token ids.
        cutoffs: ranks where the tail clusters of an adaptive softmax begin.
        ranks: rank of each id by count, int64 (output vocabulary,). None means that ids are ranks.
        share: rows of this rank. None means all rows.
        bf16: whether to compute matrix products in bfloat16, by autocast. Weights and states are
            float32 in any case.

    Attributes:
        step: number of optimiser steps so far, including skipped ones.
        losses: cross-entropy of each direction in nats over the last step's rows of this rank,
            (directions,).
        gradient_norm: norm of the last step's gradient before clipping.
        learning_rate: learning rate of the last step.
        skipped: number of steps skipped because the gradient was not finite.
        skipped_in_a_row: number of steps skipped since the last one that was not.
        held_out_losses: mean -log p of the held-out split in nats, at each evaluation so far.
        make_update: creates the `Update` when training starts.
        initial_optimizer: state of an optimiser that training starts from, see
            `InitialWeights.optimizer_state`.
    """

    def __init__(
        self,
        model: ModelConfig,
        train: TrainConfig,
        vocabulary: int,
        cutoffs: tuple[int, ...] = (),
        ranks: Tensor | None = None,
        share: Share | None = None,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.train_config = train
        torch.manual_seed(train.seed)
        self.network = BiLMNetwork(model, vocabulary, cutoffs, ranks)
        self.share = share or Share(train.rows)
        self.step = 0
        self.losses = torch.zeros(self.network.directions)
        self.gradient_norm = 0.0
        self.learning_rate = 0.0
        self.skipped = self.skipped_in_a_row = 0
        self.held_out_losses: list[float] = []
        self.make_update: Callable[[TrainConfig, list[torch.nn.Parameter]], Update] = Update
        self.initial_optimizer: dict[str, Any] | None = None
        self._bf16 = bf16
        self._states: list[Tensor] = []
        self._average: WeightAverage | None = None
        self._restored: dict[str, Any] = {}

    def configure_optimizers(self) -> None:
        """Return None, because `training_step` calls the optimiser itself."""

    def on_train_start(self) -> None:
        """Create the optimiser and the recurrent state, from the checkpoint if there is one."""
        saved, rows = self._restored, self.share.rows
        state = saved.get("carried_state", self.network.zero_state(rows).cpu())
        self._states = [
            state[:, :, part.start : part.stop].contiguous().to(self.device)
            for part in self.share.ranges
        ]  # (layers, directions, rows of the pass, state_width)
        self._update = self.make_update(self.train_config, list(self.network.parameters()))
        if saved:
            with _fits():
                self._update.load_state_dict(saved["optimizer"])
        elif self.initial_optimizer:
            self._update.load_state_dict(self.initial_optimizer)
        self.initial_optimizer = None
        if self._average:
            self._average.tensors = [mean.to(self.device) for mean in self._average.tensors]
        self._restored = {}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one optimiser step: forward and backward passes over the batch, then the update.

        Args:
            batch: the batch of step `self.step`.
            batch_idx: ignored.
        """
        assert batch.step == self.step, "the data and the optimiser are at different steps"
        self.network.zero_grad()
        before, self.losses = list(self._states), torch.zeros_like(self.losses, device=self.device)
        last = (len(batch.windows) - 1, self.share.passes - 1)
        for window, passes in enumerate(batch.windows):
            for number in range(self.share.passes):
                is_last = (window, number) == last
                with self._update.averaged() if is_last else self._no_sync():
                    self._backward(batch, window, number, len(passes) * len(batch.windows))
        self._take_step(before)
        self.step += 1

    def _backward(self, batch: Batch, window: int, number: int, parts: int) -> None:
        """Add the gradients of one window of one pass, divided by the number of ``parts``."""
        train = self.train_config
        seed = (train.seed, batch.step, window, self.share.rank, number)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            losses = self.network.loss(
                batch.windows[window][number],
                self._states[number],
                bool(train.activation_penalty or train.change_penalty),
            )
        self._states[number] = losses.state.detach()
        self.losses += losses.means.detach() / parts
        loss = losses.means.mean()
        if losses.activation is not None and losses.change is not None:
            loss = loss + train.activation_penalty * losses.activation
            loss = loss + train.change_penalty * losses.change
        self.manual_backward(loss * (train.loss_scale / parts))

    def _no_sync(self) -> AbstractContextManager[None]:
        """In this context, gradients are summed on the rank and not yet over ranks."""
        model = self.trainer.strategy.model
        no_sync: AbstractContextManager[None] = getattr(model, "no_sync", nullcontext)()
        return no_sync

    def _take_step(self, before: list[Tensor]) -> None:
        """Clip the gradient and update the weights, or skip the step if the gradient is not finite.

        A skipped step restores the states ``before`` it. All ranks have the same gradient here, so
        all decide alike.
        """
        train = self.train_config
        norm = self.gradient_norm = self._update.norm()
        self.learning_rate = learning_rate(train, self.step, self.held_out_losses)
        if not math.isfinite(norm):
            self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
            self._states = before
            return
        self.skipped_in_a_row = 0
        self._update.step(self.learning_rate, norm / (train.clip_norm or math.inf))
        if self._average is not None:
            self._average.add(list(self.network.parameters()))

    def record_held_out_loss(self, nats: float) -> None:
        """Record a held-out evaluation, on which the learning rate and the averaging may depend.

        Args:
            nats: mean -log p of the held-out split in nats.
        """
        self.held_out_losses.append(nats)
        optimizer = self.train_config.optimizer
        after = optimizer.average_after if isinstance(optimizer, SGDConfig) else None
        if after is not None and self._average is None and averages(self.held_out_losses, after):
            self._average = WeightAverage(list(self.network.parameters()))

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

    def checkpoint(self) -> dict[str, Any]:
        """Return the complete training state. Collective; ranks other than 0 get an empty dict.

        Keys include "state_dict", the weights to resume from; "average", their average (None before
        averaging has begun); and "carried_state", the recurrent state of all rows in global order,
        (layers, directions, rows, state_width).
        """
        optimizer, carried = self._update.state_dict(), gather_rows(torch.cat(self._states, 2))
        if self.share.rank:
            return {}
        average = self._average
        return {
            "format": CHECKPOINT_FORMAT,
            "step": self.step,
            "steps": self.train_config.steps,
            "cutoffs": list(self.network.head.cutoffs),
            "state_dict": {f"network.{k}": v.cpu() for k, v in self.network.state_dict().items()},
            "optimizer": optimizer,
            "carried_state": carried,
            "looks": list(self.held_out_losses),
            "average": self._averaged_weights(),
            "averaged_steps": average.steps if average else 0,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def _averaged_weights(self) -> dict[str, Tensor] | None:
        if self._average is None:
            return None
        self.swap_average()
        weights = {name: tensor.cpu().clone() for name, tensor in self.network.state_dict().items()}
        self.swap_average()
        return weights

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Resume from a checkpoint, with any number of ranks and passes.

        Args:
            checkpoint: what `checkpoint` returned on rank 0.

        Raises:
            UserError: if the checkpoint has another format, or does not fit the model.
        """
        if checkpoint.get("format") != CHECKPOINT_FORMAT:
            raise UserError(
                f"this checkpoint has format {checkpoint.get('format', 1)}, but this version of biloom "
                f"resumes from format {CHECKPOINT_FORMAT}; use the version that wrote it, or train "
                "again from the start with --overwrite"
            )
        prefix = "network."
        with _fits():
            self.network.load_state_dict(
                {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items()}
            )
            self.step = checkpoint["step"]
            self.held_out_losses = list(checkpoint["looks"])
            self.skipped = checkpoint["skipped"]
            self.skipped_in_a_row = checkpoint["skipped_in_a_row"]
            if checkpoint["average"]:
                weights = dict(self.network.named_parameters())
                means = [checkpoint["average"][name] for name in weights]
                if [m.shape for m in means] != [w.shape for w in weights.values()]:
                    raise ValueError("averaged weights of other shapes")
                self._average = WeightAverage(means)
                self._average.steps = checkpoint["averaged_steps"]
            zero = self.network.zero_state(self.share.rows)
            if checkpoint["carried_state"].shape != zero.shape:
                raise ValueError("a recurrent state of another shape")
        self._restored = checkpoint


@contextmanager
def _fits() -> Iterator[None]:
    """Turn an error of a checkpoint with other keys or shapes than expected into a `UserError`."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1]
        raise UserError(
            f"the checkpoint does not fit the model and its settings ({reason.strip()}); restore it "
            "from a backup, or train again from the start with --overwrite"
        ) from error
