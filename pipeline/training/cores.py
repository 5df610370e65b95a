"""Divide the cores of a machine over its processes, and pin the processes to them.

Otherwise the scheduler may run two single-threaded processes that often wait for each other on the
same core for a long time, while another core is idle.
"""

import os
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
import torch

from pipeline.training.processes import Processes
from preprocess.work.resources import check_threads, usable_cores


def share_of(cores: list[int], number: int, count: int) -> list[int]:
    """Return the cores of process ``number`` of ``count``; all cores if there are fewer than ``count``."""
    if len(cores) < count:
        return cores
    return cores[number * len(cores) // count : (number + 1) * len(cores) // count]


def use_cores(processes: int) -> None:
    """Let torch use this process's part of the usable cores of the machine.

    Args:
        processes: processes of the training on this machine.

    Raises:
        RuntimeError: its threads cannot be started.
    """
    threads = min(torch.get_num_threads(), max(1, usable_cores() // processes))
    torch.set_num_threads(threads)
    # Lightning would set another number, and worker processes inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    check_threads(threads)


class OwnCores(pl.Callback):
    """Pins all threads of this process to its cores, from the start of training until `restore`.

    Not earlier, because processes that this one starts inherit its cores. Not under SLURM or
    torchrun, which may have pinned the processes themselves.

    Args:
        processes: the processes of the training.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._former: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Pin this process to the cores of its local rank."""
        processes = self._processes
        alone = processes.of_machine == 1 or processes.starter != "biloom"
        if not alone and hasattr(os, "sched_getaffinity"):
            self._former = sorted(os.sched_getaffinity(0))
            _keep_on(share_of(self._former, processes.local_rank, processes.of_machine))

    def restore(self) -> None:
        """Give this process back the cores that it had before."""
        if self._former:
            _keep_on(self._former)


def _keep_on(cores: list[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # the thread has just ended
            os.sched_setaffinity(int(thread.name), cores)
