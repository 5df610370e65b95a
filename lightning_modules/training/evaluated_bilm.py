"""The validation of a network in training on the held-out split, and averaged weights (NT-ASGD)."""

from collections.abc import Iterable, Mapping

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lightning_modules.evaluation.held_out import HeldOut
from lightning_modules.evaluation.perplexity import LossTally
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window import on_device
from lightning_modules.training.config import PlateauConfig, SGDConfig
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.foreign_trainer import ForeignTrainerMixin
from lightning_modules.training.optimizers import HeldOutSchedule, WeightAverage, averages
from lightning_modules.training.ranks.distribution import sum_over_ranks
from lightning_modules.training.validation.loader import HeldOutBatch

FIGURES = ("forward_perplexity", "backward_perplexity", "average_perplexity", "bits_per_byte")
"""Figures of a validation, besides its loss and its number of tokens."""


class EvaluatedBiLM(ForeignTrainerMixin):
    """A module whose network is validated on held-out text, over the full vocabulary.

    The average of the weights is validated, once averaging has begun.

    Attributes:
        network: the network.
        average: the average of the weights; None before averaging has begun.
        held_out: "loss", the mean -log p per token in nats, "tokens", the number of tokens, and `FIGURES`
            of the last validation; None where a figure is not defined.
        held_out_losses: loss of each validation so far that counts.
        validation_counts: whether the next validations count. The averaging and the schedule may
            depend on them.
    """

    network: BiLMNetwork

    def forget_validations(self) -> None:
        """Set the attributes to those of a training that has not begun."""
        self.average: WeightAverage | None = None
        self.held_out: dict[str, float | None] = {}
        self.held_out_losses: list[float] = []
        self.validation_counts = True

    def on_validation_start(self) -> None:
        """Exchange the weights with their average, if there is one, until the figures are computed."""
        self.swap_average()
        self._tally: LossTally | None = None

    def validation_step(self, batch: HeldOutBatch, batch_idx: int) -> None:
        """Add the losses of a window of held-out text, in the precision of training, without dropout."""
        window, block, blocks = batch
        network, device = self.network, self.device.type
        if self._tally is None:
            size = (network.directions, network.output_vocabulary)
            self._tally, self._block = LossTally(*size, None, self.device, blocks), None
        if block != self._block:
            self._block, self._held_out_state = block, network.zero_state(window.targets.shape[2])
        dtype = torch.get_autocast_dtype(device)
        # As in training, Lightning's autocast would convert a weight at each of its uses.
        with torch.autocast(device, dtype, torch.is_autocast_enabled(device), cache_enabled=True):
            nll, self._held_out_state = network.nll(window, self._held_out_state)
        self._tally.add(nll, window.targets, block)

    def on_validation_epoch_end(self) -> None:
        """Log the figures. Collective."""
        self.held_out = self._held_out_figures()
        self.swap_average()
        logged = {f"valid_{k}": v for k, v in self.held_out.items() if v is not None}
        # The figures are those of all ranks. Without sync_dist, Lightning would warn.
        self.log_dict(
            {**logged, "averaged": float(self.is_averaging)}, batch_size=1, sync_dist=True
        )
        is_fit = self.trainer.state.fn == TrainerFn.FITTING
        if is_fit and not self.trainer.sanity_checking and self.validation_counts:
            assert self.held_out["loss"] is not None
            self.record_held_out_loss(self.held_out["loss"])

    @torch.inference_mode()
    def evaluate_held_out(self, batches: Iterable[HeldOutBatch]) -> dict[str, float | None]:
        """Return the figures of held-out text as `held_out` has them, outside of a validation. Collective.

        Args:
            batches: the windows of this rank.
        """
        self.on_validation_start()
        for number, (window, *block) in enumerate(batches):
            with self.trainer.precision_plugin.val_step_context():
                self.validation_step(HeldOutBatch(on_device(window, self.device), *block), number)
        figures = self._held_out_figures()
        self.swap_average()
        return figures

    def _held_out_figures(self) -> dict[str, float | None]:
        """Return the figures of the windows of all ranks. Collective."""
        data = getattr(self.trainer, "datamodule", None)
        text = HeldOut(0, 0, 0, 0, {})  # unknown
        if isinstance(data, TokenShardDataModule):
            text = data.held_out
        assert self._tally is not None, "each rank has a window at least"
        result = self._tally.result(text, sum_over_ranks)
        figures = result.figures()
        return {
            "loss": result.loss,
            "tokens": result.total.tokens[0],
            **{name: figures[name] for name in FIGURES},
        }

    def record_held_out_loss(self, nats: float) -> None:
        """Record the loss of a validation, on which the learning rate may depend.

        Begins to average the weights if it is time.

        Args:
            nats: mean -log p of the held-out split in nats.
        """
        self.held_out_losses.append(nats)
        if isinstance(self.train_config.schedule, PlateauConfig):
            self.refresh_rate()
        optimizer = self.train_config.optimizer
        after = optimizer.average_after if isinstance(optimizer, SGDConfig) else None
        if after is not None and self.average is None and averages(self.held_out_losses, after):
            self.average = WeightAverage(list(self.network.parameters()))

    def refresh_rate(self) -> None:
        """Compute the rate of the next step again, unless a callback has replaced the schedule."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, HeldOutSchedule):
            schedule.refresh()

    @property
    def is_averaging(self) -> bool:
        """Whether averaging of the weights (NT-ASGD) has begun."""
        return self.average is not None

    def swap_average(self) -> None:
        """Exchange the weights with their average, if there is one; a second call undoes the first."""
        if self.average is None:
            return
        for weight, mean in zip(self.network.parameters(), self.average.tensors, strict=True):
            weight.data, mean.data = mean.data, weight.data

    def averaged_weights(self) -> dict[str, Tensor] | None:
        """Return the state dict of the network with averaged weights on the CPU, if there are some."""
        if self.average is None:
            return None
        self.swap_average()
        weights = {name: tensor.cpu().clone() for name, tensor in self.network.state_dict().items()}
        self.swap_average()
        return weights

    def restore_average(self, weights: Mapping[str, Tensor] | None, steps: int) -> None:
        """Restore the result of `averaged_weights`.

        Args:
            weights: the averaged weights; None if averaging has not begun.
            steps: number of steps averaged.

        Raises:
            ValueError: if a weight has another shape.
            KeyError: if a weight is missing.
        """
        self.average = None
        if weights is None:
            return
        own = dict(self.network.named_parameters())
        means = [weights[name] for name in own]
        if [mean.shape for mean in means] != [weight.shape for weight in own.values()]:
            raise ValueError("averaged weights of other shapes")
        self.average = WeightAverage(means, steps)
