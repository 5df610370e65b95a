"""The LightningModule: network + loss + optimiser + the state that is carried from step to step."""

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig, TrainConfig
from lightning_modules.datamodule import Batch
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.recurrent import State


class LitBiLM(pl.LightningModule):
    """Maximum likelihood by truncated backpropagation through time (Peters et al. 2018, 3.1).

    The loss is the mean of both directions' cross-entropy in nats. The state of every row is
    carried over steps and saved in the checkpoint as one tensor in global row order. All random
    draws of a step follow from (seed, step), so going on needs no generator's state.

    Args:
        model: the network's config.
        train: the training's config.
        vocabulary: number of ids.
        cutoffs: ranks where the tails of an adaptive softmax begin.
        ranks: int64 (vocabulary,), rank of each id by its count; none: ids are ranks.
    """

    def __init__(
        self,
        model: ModelConfig,
        train: TrainConfig,
        vocabulary: int,
        cutoffs: tuple[int, ...] = (),
        ranks: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.train_config = train
        torch.manual_seed(train.seed)
        self.network = BiLMNetwork(model, vocabulary, cutoffs, ranks)
        self.state: State | None = None
        self.losses = torch.zeros(2)
        """Cross-entropy of the last step, forward and backward, in nats."""
        self.gradient_norm = torch.zeros(())
        """Norm of the last step's gradient, before it was clipped."""
        self.learning_rate = 0.0
        """Rate of the last step."""

    def on_train_start(self) -> None:
        if self.state is None:
            self.state = self.network.zero_state(self.train_config.rows)
        self.state = State(*(part.to(self.device) for part in self.state))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One window of every row. ids and targets: (2, unroll, rows)."""
        assert batch.step == self.global_step, "the data and the optimiser are at other steps"
        assert self.state is not None
        torch.manual_seed(self.train_config.seed * 1_000_003 + batch.step + 1)
        losses, state = self.network.loss(batch.ids, batch.targets, self.state, batch.routes)
        self.state = State(*(part.detach() for part in state))
        self.losses = losses.detach()  # (2,)
        return losses.mean()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.learning_rate = float(optimizer.param_groups[0]["lr"])
        self.gradient_norm = torch.nn.utils.clip_grad_norm_(
            self.network.parameters(), self.train_config.clip_norm
        )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(
            self.network.parameters(), lr=self.train_config.learning_rate, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, learning_rate_share(self.train_config)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.state is not None
        checkpoint["carried_state"] = {
            "hidden": self.state.hidden,  # (layers, 2, rows, direction_width)
            "cell": self.state.cell,  # (layers, 2, rows, hidden)
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.state = State(**checkpoint["carried_state"])


def learning_rate_share(train: TrainConfig) -> Callable[[int], float]:
    """Share of the peak rate at a step, counted from 0.

    Linear warm-up, then half a cosine (Loshchilov and Hutter 2017, section 3) that reaches
    ``final_rate`` at the last step.
    """
    length = max(1, train.steps - 1 - train.warmup_steps)

    def share(step: int) -> float:
        if step < train.warmup_steps:
            return (step + 1) / (train.warmup_steps + 1)
        falling = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - train.warmup_steps) / length)))
        return train.final_rate + (1 - train.final_rate) * falling

    return share
