"""The LightningModule: network + loss + optimiser + the state that is carried from step to step."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
    """Maximum likelihood by truncated backpropagation through time (Peters et al. 2018, 3.1).

    The loss is the mean of all directions' cross-entropies in nats. The state of every row is
    carried over steps and saved in the checkpoint as one tensor in global row order. All random
    draws of a step follow from (seed, step, window, rank, pass), so going on needs no generator's
    state; and since everything else is arithmetic on the step, `checkpoint` holds all of a training.

    Args:
        model: the network's config.
        train: the training's config.
        vocabulary: number of ids.
        cutoffs: ranks where the tails of an adaptive softmax begin.
        ranks: int64 (vocabulary of the output layer,), rank of each id by count; none: ids are ranks.
        share: the rows this process takes; none: all.
        bf16: matmuls in bfloat16, by autocast.

    Attributes:
        step: optimiser steps done; a skipped one counts.
        losses: (directions,) cross-entropy of the last step's rows of this process, in nats.
        gradient_norm: of the last step, before it was clipped.
        learning_rate: of the last step.
        skipped: steps left out for a gradient that was not finite; `skipped_in_a_row` likewise.
        looks: mean -log p of the held-out text at each look so far.
        make_update: what takes gradients into the weights, made when training starts.
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
        self.looks: list[float] = []
        self.make_update: Callable[[TrainConfig, list[torch.nn.Parameter]], Update] = Update
        self._bf16 = bf16
        self._states: list[Tensor] = []
        self._average: WeightAverage | None = None
        self._restored: dict[str, Any] = {}

    def configure_optimizers(self) -> None:
        """None that Lightning would have to know of."""

    def on_train_start(self) -> None:
        """Put the optimiser, the carried state and the average where the checkpoint had them."""
        saved, rows = self._restored, self.share.rows
        state = saved.get("carried_state", self.network.zero_state(rows).cpu())
        self._states = [
            state[:, :, part.start : part.stop].contiguous().to(self.device)
            for part in self.share.ranges
        ]  # (layers, directions, rows of the pass, state_width)
        self._update = self.make_update(self.train_config, list(self.network.parameters()))
        if saved:
            self._update.load_state_dict(saved["optimizer"])
        if self._average:
            self._average.tensors = [mean.to(self.device) for mean in self._average.tensors]
        self._restored = {}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimiser step: every window of every row of this process, then the update."""
        assert batch.step == self.step, "the data and the optimiser are at other steps"
        self.network.zero_grad()
        before, self.losses = list(self._states), torch.zeros_like(self.losses, device=self.device)
        last = (len(batch.windows) - 1, self.share.passes - 1)
        for place, passes in enumerate(batch.windows):
            for number in range(self.share.passes):
                is_last = (place, number) == last
                with self._update.averaged() if is_last else self._gradients_kept_here():
                    self._backward(batch, place, number, len(passes) * len(batch.windows))
        self._take_step(before)
        self.step += 1

    def _backward(self, batch: Batch, place: int, number: int, parts: int) -> None:
        """Loss and gradient of one window of one pass's rows."""
        train = self.train_config
        seed = (train.seed, batch.step, place, self.share.rank, number)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            found = self.network.loss(
                batch.windows[place][number],
                self._states[number],
                bool(train.activation_penalty or train.change_penalty),
            )
        self._states[number] = found.state.detach()
        self.losses += found.means.detach() / parts
        loss = found.means.mean()
        if found.activation is not None and found.change is not None:
            loss = loss + train.activation_penalty * found.activation
            loss = loss + train.change_penalty * found.change
        self.manual_backward(loss * (train.loss_scale / parts))

    def _gradients_kept_here(self) -> AbstractContextManager[None]:
        """Between the passes of a step, gradients are summed here and not yet over processes."""
        model = self.trainer.strategy.model
        kept: AbstractContextManager[None] = getattr(model, "no_sync", nullcontext)()
        return kept

    def _take_step(self, before: list[Tensor]) -> None:
        """Clip and step; or leave out a step whose gradient is not finite, with its states.

        The gradient is the same in all processes by now, so all decide alike.
        """
        train = self.train_config
        norm = self.gradient_norm = self._update.norm()
        self.learning_rate = learning_rate(train, self.step, self.looks)
        if not math.isfinite(norm):
            self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
            self._states = before
            return
        self.skipped_in_a_row = 0
        self._update.step(self.learning_rate, norm / (train.clip_norm or math.inf))
        if self._average is not None:
            self._average.add(list(self.network.parameters()))

    def looked(self, nats: float) -> None:
        """Take notice of the held-out text's mean -log p: rate and average may depend on it."""
        self.looks.append(nats)
        optimizer = self.train_config.optimizer
        after = optimizer.average_after if isinstance(optimizer, SGDConfig) else None
        if after is not None and self._average is None and averages(self.looks, after):
            self._average = WeightAverage(list(self.network.parameters()))

    @property
    def is_averaging(self) -> bool:
        """Whether the weights' average (NT-ASGD) has begun."""
        return self._average is not None

    def swap_average(self) -> None:
        """Exchange the weights with their average, if there is one; twice is as before."""
        if self._average is None:
            return
        for weight, mean in zip(self.network.parameters(), self._average.tensors, strict=True):
            weight.data, mean.data = mean.data, weight.data

    def checkpoint(self) -> dict[str, Any]:
        """All that a training is at this step; called by all processes at once, for the first alone.

        steps: of the whole training; state_dict: the weights to go on from; average: their mean,
        likewise, none before it has begun; carried_state: (layers, directions, rows, state_width).
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
            "looks": list(self.looks),
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
        """Go on from a checkpoint, with any number of processes and passes; before training starts.

        Raises:
            UserError: it is of another format.
        """
        if checkpoint.get("format") != CHECKPOINT_FORMAT:
            raise UserError(
                f"this checkpoint has format {checkpoint.get('format', 1)}, and this biloom goes on "
                f"from format {CHECKPOINT_FORMAT}; go on with the biloom that wrote it, or train anew "
                "with --overwrite"
            )
        prefix = "network."
        self.network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items()}
        )
        self.step = checkpoint["step"]
        self.looks = list(checkpoint["looks"])
        self.skipped = checkpoint["skipped"]
        self.skipped_in_a_row = checkpoint["skipped_in_a_row"]
        if checkpoint["average"]:
            names = [name for name, _ in self.network.named_parameters()]
            self._average = WeightAverage([checkpoint["average"][name] for name in names])
            self._average.steps = checkpoint["averaged_steps"]
        self._restored = checkpoint
