"""What a module does in any Trainer: former checkpoints, `torch.compile`, the learning rate finder."""

import os
from typing import Any, Self

import pytorch_lightning as pl
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

from lightning_modules.training.checkpoint_format import make_resumable
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.gradient_scale import use_gradient_scaler
from lightning_modules.training.trainer_settings import hyperparameters
from preprocess.errors import UserError

STEPS = ("training_step", "validation_step")


class ForeignTrainerMixin(pl.LightningModule):
    """The part of a module that makes it fit into any Trainer.

    Attributes:
        train_config: settings of the training.
    """

    train_config: TrainConfig

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, under the name that Lightning's ``Tuner.lr_find`` sets."""
        return self.train_config.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.train_config = self.train_config.model_copy(update={"learning_rate": rate})
        self.hparams["train"] = hyperparameters(self.train_config)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **options: Any) -> Self:
        """Return a module with the weights and the hyperparameters of a checkpoint.

        Args:
            checkpoint_path: file of the checkpoint.
            arguments, options: as of Lightning's method; hyperparameters replace those of the file.

        Raises:
            UserError: if the checkpoint was written by version 0.1.
        """
        try:
            return super().load_from_checkpoint(checkpoint_path, *arguments, **options)
        except KeyError as error:
            if error.args != ("pytorch-lightning_version",):
                raise
            raise UserError(
                f"{checkpoint_path} was written by biloom 0.1 and has no hyperparameters; make the module "
                "with its settings of model and train, and resume it by Trainer.fit(module, data, "
                "ckpt_path=...), or take one more step of it by `biloom train`"
            ) from error

    def adapt_trainer(self) -> None:
        """Adapt the checkpoints and the scaler of the Trainer, and undo `torch.compile` of the module.

        The Trainer also reads checkpoints of version 0.1, and scales gradients by a `GradientScaler`.
        A compiled module replaces its steps. Compiling them takes very long, because the loop over time
        is unrolled, and `compile_cell` compiles what matters.
        """
        compiled = [vars(self).pop(name, None) for name in STEPS]
        if any(compiled):
            rank_zero_warn(
                "torch.compile(LitBiLM) has no effect, because the module compiles its recurrent cell "
                "itself; see train.compile"
            )
        strategy = self.trainer.strategy
        if not isinstance(strategy.checkpoint_io, FormerCheckpoints):
            accumulated = self.trainer.accumulate_grad_batches
            strategy.checkpoint_io = FormerCheckpoints(strategy.checkpoint_io, accumulated)
        use_gradient_scaler(self.trainer)


class FormerCheckpoints(CheckpointIO):
    """Reads checkpoints of version 0.1 as those of this version.

    Args:
        files: what reads, writes and removes the files.
        accumulate: windows of an optimiser step.
    """

    def __init__(self, files: CheckpointIO, accumulate: int) -> None:
        self._files, self._accumulate = files, accumulate

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        self._files.save_checkpoint(checkpoint, os.fspath(path), storage_options)

    def load_checkpoint(
        self, path: str | os.PathLike[str], *arguments: Any, **options: Any
    ) -> dict[str, Any]:
        """Return the contents of a checkpoint, which a Trainer can resume from.

        Raises:
            UserError: if neither Lightning nor a known version of biloom wrote it.
        """
        checkpoint: dict[str, Any] = self._files.load_checkpoint(
            os.fspath(path), *arguments, **options
        )
        if "pytorch-lightning_version" not in checkpoint:
            make_resumable(checkpoint, self._accumulate)
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint."""
        self._files.remove_checkpoint(os.fspath(path))

    def teardown(self) -> None:
        """Finish what is being written."""
        self._files.teardown()
