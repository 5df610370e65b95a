"""How Lightning runs the processes of a training."""

import os
import signal
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    ClusterEnvironment,
    KubeflowEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from lightning_modules.training.ranks.ordered_sum import OrderedDDPStrategy
from pipeline.training.processes import Processes


def backend_of(device: torch.device) -> str:
    """Return the backend of `torch.distributed` for a device."""
    return "nccl" if device.type == "cuda" else "gloo"


def strategy_of(
    processes: Processes, device: torch.device, reduced: Literal["float32", "bf16"] = "float32"
) -> Strategy:
    """Return Lightning's strategy for the processes of a training.

    Args:
        processes: the processes of the training.
        device: the device of this process.
        reduced: type in which the processes exchange their gradients.
    """
    if processes.world == 1:
        return SingleDeviceStrategy(device)
    return ddp(processes.world, device, reduced)


def ddp(
    world: int, device: torch.device, reduced: Literal["float32", "bf16"] = "float32"
) -> DDPStrategy:
    """Return the strategy of several processes.

    Args:
        world: number of processes.
        device: the device of this process.
        reduced: type in which the processes exchange their gradients.
    """
    options: dict[str, Any] = {
        "process_group_backend": backend_of(device),
        "gradient_as_bucket_view": True,
        "broadcast_buffers": False,  # they are the same on every rank
    }
    if device.type != "cpu":
        hook = bf16_compress_hook if reduced == "bf16" else None
        return DDPStrategy(ddp_comm_hook=hook, **options)
    # A sum of two numbers does not depend on their order, so two ranks need no order.
    if world <= 2 and reduced == "float32":
        return DDPStrategy(**options)
    return OrderedDDPStrategy(torch.bfloat16 if reduced == "bf16" else None, **options)


class StartedByBiloom(ClusterEnvironment):
    """The processes that biloom started, so that Lightning neither reads variables nor starts any.

    Args:
        processes: the processes of the training.
    """

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self._processes = processes

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self._processes.address

    @property
    def main_port(self) -> int:
        return self._processes.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._processes.world

    def set_world_size(self, size: int) -> None:
        assert size == self._processes.world, "Lightning counted other processes"

    def global_rank(self) -> int:
        return self._processes.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._processes.rank, "Lightning assigned another rank"

    def local_rank(self) -> int:
        return self._processes.local_rank

    def node_rank(self) -> int:
        return self._processes.rank // self._processes.of_machine


def environment_of(processes: Processes) -> ClusterEnvironment:
    """Return Lightning's environment for what started the processes.

    Args:
        processes: the processes of the training.
    """
    if processes.starter == "torchrun":
        return TorchElasticEnvironment()
    if processes.starter == "PyTorchJob":
        return KubeflowEnvironment()
    if processes.starter == "srun":
        # Lightning reads the numbers of the job, which may differ from those of the step. It also
        # requires --ntasks-per-node. `processes_of` has already compared the step with the config.
        os.environ["SLURM_NTASKS"] = str(processes.world)
        os.environ["SLURM_NTASKS_PER_NODE"] = str(processes.of_machine)
        os.environ["SLURM_NNODES"] = str(processes.machines)
        os.environ.setdefault("SLURM_NODEID", str(processes.rank // processes.of_machine))
        return SLURMEnvironment(auto_requeue=False)
    return StartedByBiloom(processes)


class KeepSigtermHandler(pl.Callback):
    """Keeps the SIGTERM handler that was set before `Trainer.fit`.

    Lightning replaces it by a handler that waits for the other processes, which may be waiting for this
    one. This must be the first callback.
    """

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Remember the handler. Collective, so that no rank waits for others while Lightning's is set."""
        self._handler = signal.getsignal(signal.SIGTERM)
        trainer.strategy.barrier()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Set it again."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
