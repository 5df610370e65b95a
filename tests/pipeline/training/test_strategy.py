"""Lightning's strategy and environment for each program that starts processes."""

import os
import signal
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    ClusterEnvironment,
    KubeflowEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.ranks.ordered_sum import OrderedDDPStrategy
from pipeline.training.processes import Processes, processes_of
from pipeline.training.strategy import (
    KeepSigtermHandler,
    StartedByBiloom,
    backend_of,
    environment_of,
    strategy_of,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MEET = {"MASTER_ADDR": "head", "MASTER_PORT": "7000"}
STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
}
JOB = {"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "16", "SLURM_NNODES": "4"}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "6",
    "LOCAL_RANK": "2",
    "WORLD_SIZE": "8",
    "GROUP_RANK": "1",
}
PYTORCHJOB = {"RANK": "6", "WORLD_SIZE": "8"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that no other program has set, and to which no change lasts."""
    names = {*MEET, *STEP, *JOB, *TORCHRUN, *PYTORCHJOB, "NODE_RANK", "KUBERNETES_SERVICE_HOST"}
    for name in names:
        # Setting it first makes the fixture restore it, also if the test sets it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("values", "train", "kind"),
    [
        (TORCHRUN, TrainConfig(devices=4, num_nodes=2), TorchElasticEnvironment),
        (STEP, TrainConfig(devices=4, num_nodes=2), SLURMEnvironment),
        ({**STEP, **JOB}, TrainConfig(devices=4, num_nodes=2), SLURMEnvironment),
        (PYTORCHJOB, TrainConfig(devices=1, num_nodes=8), KubeflowEnvironment),
        ({"NODE_RANK": "1"}, TrainConfig(devices=4, num_nodes=2), StartedByBiloom),
    ],
)
def test_lightning_sees_the_processes_that_were_started(
    values: dict[str, str],
    train: TrainConfig,
    kind: type[ClusterEnvironment],
    environment: pytest.MonkeyPatch,
) -> None:
    for name, value in {**MEET, **values}.items():
        environment.setenv(name, value)
    processes = processes_of(train, train.devices or 1)
    made = environment_of(processes)

    assert type(made) is kind
    made.validate_settings(processes.of_machine, processes.machines)
    assert made.creates_processes_externally
    assert (made.global_rank(), made.local_rank(), made.world_size(), made.node_rank()) == (
        *(processes.rank, processes.local_rank, processes.world),
        processes.rank // processes.of_machine,
    )
    assert not getattr(made, "auto_requeue", False), "the batch script decides"


def test_a_single_process_is_not_taken_for_a_task_of_slurm(environment: pytest.MonkeyPatch) -> None:
    for name, value in {**JOB, **MEET, "RANK": "1"}.items():
        environment.setenv(name, value)
    processes = processes_of(TrainConfig(), 1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        strategy=strategy_of(processes, CPU),
        plugins=[environment_of(processes)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    assert isinstance(trainer.strategy, SingleDeviceStrategy)
    assert (trainer.world_size, trainer.global_rank) == (1, 0)
    assert os.environ["SLURM_NTASKS"] == JOB["SLURM_NTASKS"]


@pytest.mark.parametrize(
    ("world", "device", "kind", "backend"),
    [
        (1, CPU, SingleDeviceStrategy, "gloo"),
        (2, CPU, DDPStrategy, "gloo"),
        (3, CPU, OrderedDDPStrategy, "gloo"),
        (3, GPU, DDPStrategy, "nccl"),
    ],
)
def test_gradients_of_three_or_more_cpu_ranks_are_summed_in_order(
    world: int, device: torch.device, kind: type, backend: str
) -> None:
    assert type(strategy_of(Processes(world=world), device)) is kind
    assert backend_of(device) == backend


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_are_reduced_in_bf16_if_the_user_asks(world: int) -> None:
    on_gpu, on_cpu = (strategy_of(Processes(world=world), d, "bf16") for d in (GPU, CPU))

    assert type(on_gpu) is DDPStrategy
    assert on_gpu._ddp_comm_hook is bf16_compress_hook
    assert isinstance(on_cpu, OrderedDDPStrategy)
    assert on_cpu.sent is torch.bfloat16
    assert isinstance(strategy_of(Processes(world=1), CPU, "bf16"), SingleDeviceStrategy)


class Module(pl.LightningModule):
    """A weight, and the SIGTERM handler of each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.handlers: list[Any] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.handlers.append(signal.getsignal(signal.SIGTERM))
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> "torch.utils.data.DataLoader[int]":
        return torch.utils.data.DataLoader([0, 1])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # advice about loader workers
def test_the_handler_of_sigterm_stays(capsys: pytest.CaptureFixture[str]) -> None:
    def own(*arguments: object) -> None: ...

    module, former = Module(), signal.signal(signal.SIGTERM, own)
    try:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[KeepSigtermHandler()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module)
        assert module.handlers == [own, own]
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, former)
