"""Pin the processes of one machine to separate cores.

Otherwise the scheduler may run two single-threaded processes that often wait for each other on the
same core for a long time, while another core is idle.
"""

import os
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]


def share_of(cores: list[int], number: int, count: int) -> list[int]:
    """Return the cores of process ``number`` of ``count``; all cores if there are fewer than ``count``."""
    if len(cores) < count:
        return cores
    return cores[number * len(cores) // count : (number + 1) * len(cores) // count]


class OwnCores(pl.Callback):
    """Pins all threads of this process to its cores, from the start of training until `restore`.

    Not earlier, because processes that this one starts inherit its cores. Not under SLURM or
    torchrun, which may have pinned the processes themselves.
    """

    def __init__(self) -> None:
        self._former: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Pin this process to the cores of its local rank."""
        environment = getattr(trainer.strategy, "cluster_environment", None)
        processes = len(trainer.device_ids)
        if (
            isinstance(environment, LightningEnvironment)
            and processes > 1
            and hasattr(os, "sched_getaffinity")
        ):
            self._former = sorted(os.sched_getaffinity(0))
            _keep_on(share_of(self._former, trainer.local_rank, processes))

    def restore(self) -> None:
        """Give this process back the cores that it had before."""
        if self._former:
            _keep_on(self._former)


def _keep_on(cores: list[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # the thread has just ended
            os.sched_setaffinity(int(thread.name), cores)
