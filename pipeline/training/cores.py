"""Processes of one machine, each on cores of its own.

Left to the scheduler, two processes of one thread that wait for one another many times a second share
a core for long stretches while the other core is idle.
"""

import os
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]


def share_of(cores: list[int], number: int, count: int) -> list[int]:
    """The cores of process ``number`` of ``count``; all of them where there are fewer than processes."""
    if len(cores) < count:
        return cores
    return cores[number * len(cores) // count : (number + 1) * len(cores) // count]


class OwnCores(pl.Callback):
    """Keeps this process, with all its threads, on its cores from the start of training to `restore`.

    Not before, since processes that this one starts would have its cores alone; and not under
    SLURM or torchrun, which may have put the processes in their places.
    """

    def __init__(self) -> None:
        self._former: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the cores of this process's place on its machine."""
        ours = isinstance(getattr(trainer.strategy, "cluster_environment", 0), LightningEnvironment)
        processes = len(trainer.device_ids)
        if ours and processes > 1 and hasattr(os, "sched_getaffinity"):
            self._former = sorted(os.sched_getaffinity(0))
            _keep_on(share_of(self._former, trainer.local_rank, processes))

    def restore(self) -> None:
        """Give this process all the cores that it had."""
        if self._former:
            _keep_on(self._former)


def _keep_on(cores: list[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it ended just now
            os.sched_setaffinity(int(thread.name), cores)
