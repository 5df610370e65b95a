"""The evaluation of the whole held-out split when a training ends."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.lit_bilm import LitBiLM


class FinalEvaluation(pl.Callback):
    """Evaluates the whole held-out split after the last validation, if validations read a sample of it.

    The figures have the names of those of a validation, with "whole" in the place of "valid". They go to
    ``put`` and to the loggers. All ranks take part. This callback must follow those that end a training,
    and precede the one that writes checkpoints, so that a resumed training has the same figures.

    Args:
        put: called with the figures, and the step under "step".
    """

    def __init__(self, put: Callable[[dict[str, Any]], None]) -> None:
        self._put = put

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, LitBiLM)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, TokenShardDataModule)
        if not trainer.should_stop or data.sample.tokens is None:
            return
        figures = module.evaluate_held_out(data.whole_loader())
        row = {f"whole_{name}": value for name, value in figures.items()}
        self._put({"step": module.step, **row})
        defined = {name: value for name, value in row.items() if value is not None}
        for logger in trainer.loggers:
            logger.log_metrics(defined, module.step - 1)  # Lightning counts steps from 0
