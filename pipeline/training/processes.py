"""The processes of a training, and the place of this one among them; imports nothing heavy.

The processes are started by

- biloom: the command starts the other processes of its machine. With several machines, the user
  starts the command on each, with NODE_RANK, MASTER_ADDR and MASTER_PORT.
- torchrun: it starts all processes.
- srun: SLURM starts all tasks of a job step.
- PyTorchJob: Kubeflow's operator starts one process in each pod, which counts as a machine.

Variables that another program left in the environment are ignored: a shell inside a SLURM allocation is
not a task of a step, and MASTER_ADDR, RANK or LOCAL_RANK mean something only with one of the above.
"""

import os
from dataclasses import dataclass, replace
from typing import Literal

from lightning_modules.training.config import TrainConfig
from preprocess.errors import UserError

Starter = Literal["biloom", "torchrun", "srun", "PyTorchJob"]

LOCALHOST = "127.0.0.1"
PORT = 29500
"""torch's usual port, where srun's tasks meet unless MASTER_PORT is set."""
SPECIAL_STEPS = 4_294_967_200
"""SLURM numbers special steps, such as batch scripts, from here; srun does not start them."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training, as one of them sees them.

    Attributes:
        rank: index of this process.
        world: number of processes.
        local_rank: index of this process on its machine.
        machines: number of machines.
        address, port: where the processes meet; port 0 means any free port of this machine.
        starter: what starts the processes.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    machines: int = 1
    address: str = LOCALHOST
    port: int = 0
    starter: Starter = "biloom"

    @property
    def of_machine(self) -> int:
        """Number of processes of each machine."""
        return self.world // self.machines

    @property
    def started(self) -> range:
        """Ranks of the processes that this process has to start."""
        if self.starter != "biloom" or self.local_rank:
            return range(0)
        return range(self.rank + 1, self.rank + self.of_machine)

    def of_rank(self, rank: int, port: int) -> "Processes":
        """Return how the process of another rank of this machine sees the processes."""
        local = self.local_rank + rank - self.rank
        return replace(self, rank=rank, local_rank=local, port=port)


def processes_of(train: TrainConfig, devices: int) -> Processes:
    """Return the processes of a training with ``devices`` per machine.

    Raises:
        UserError: the processes that another program or the user started do not fit the config.
    """
    world = devices * train.num_nodes
    shape = Processes(world=world, machines=train.num_nodes)
    if starter := _external(train):
        rank, started, local_rank = _ranks(starter)
        if starter == "PyTorchJob" and (devices, train.num_nodes) != (1, started):
            raise UserError(
                f"the PyTorchJob started one process in each of {started} pods, but train.devices x "
                f"train.num_nodes is {devices} x {train.num_nodes}; set train.num_nodes to {started} "
                "and train.devices to 1. For several devices per pod, start the command by torchrun, "
                "or set NODE_RANK to the value of RANK. If no PyTorchJob started this command, unset "
                "RANK and WORLD_SIZE"
            )
        if started != world:
            raise UserError(
                f"{starter} started {started} processes, but train.devices x train.num_nodes is "
                f"{devices} x {train.num_nodes}; start {world}, or set train.devices to "
                f"{max(1, started // train.num_nodes)}"
            )
        if local_rank >= devices:
            raise UserError(
                f"{starter} started more than {devices} processes on this machine, but train.devices x "
                f"train.num_nodes is {devices} x {train.num_nodes}; start {devices} on each machine"
            )
        address = os.environ.get("MASTER_ADDR", LOCALHOST)
        if starter == "srun" and train.num_nodes == 1:
            address = LOCALHOST  # an earlier job may have left another
        if starter == "srun" and train.num_nodes > 1 and "MASTER_ADDR" not in os.environ:
            raise UserError(
                "MASTER_ADDR is not set; with several machines under srun, set it to the first one: "
                'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
            )
        port = _number("MASTER_PORT") or PORT
        return Processes(rank, world, local_rank, train.num_nodes, address, port, starter)
    if train.num_nodes == 1:
        return shape
    node, meet, host = _number("NODE_RANK"), _number("MASTER_PORT"), os.environ.get("MASTER_ADDR")
    if node is None or meet is None or not host:
        raise UserError(
            f"train.num_nodes is {train.num_nodes}, so NODE_RANK (0 to {train.num_nodes - 1}), "
            "MASTER_ADDR and MASTER_PORT must be set on each machine, or torchrun or srun must start "
            "the command"
        )
    if node >= train.num_nodes:
        raise UserError(f"NODE_RANK is {node}, but train.num_nodes is {train.num_nodes}; lower it")
    return replace(shape, rank=node * devices, address=host, port=meet)


def is_further_process(train: TrainConfig) -> bool:
    """Return True if this process is not rank 0, which runs the stages and writes the results."""
    if starter := _external(train):
        return _ranks(starter)[0] > 0
    return train.num_nodes > 1 and (_number("NODE_RANK") or 0) > 0


def _external(train: TrainConfig) -> Starter | None:
    """Return the launcher of this process, or None if it is none of those above but biloom."""
    if "TORCHELASTIC_RUN_ID" in os.environ and (_number("WORLD_SIZE") or 1) > 1:
        return "torchrun"
    step = _number("SLURM_STEP_ID")
    if step is not None and step < SPECIAL_STEPS and _ranks("srun")[1] > 1:
        return "srun"
    given = all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"))
    others = any(name in os.environ for name in ("NODE_RANK", "LOCAL_RANK"))
    expected = train.num_nodes > 1 or "KUBERNETES_SERVICE_HOST" in os.environ
    if given and expected and not others and (_number("WORLD_SIZE") or 1) > 1:
        return "PyTorchJob"
    return None


def _ranks(starter: Starter) -> tuple[int, int, int]:
    """Return rank, number of processes and rank on this machine, from the environment."""
    if starter == "srun":
        tasks = _number("SLURM_STEP_NUM_TASKS") or _number("SLURM_NTASKS") or 1
        return _number("SLURM_PROCID") or 0, tasks, _number("SLURM_LOCALID") or 0
    local_rank = _number("LOCAL_RANK") if starter == "torchrun" else 0
    return _number("RANK") or 0, _number("WORLD_SIZE") or 1, local_rank or 0


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
