"""The processes of a training, from the environment that their starter leaves."""

import pytest

from lightning_modules.training.config import TrainConfig
from pipeline.training.processes import Processes, is_further_process, processes_of
from preprocess.errors import UserError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "head", "MASTER_PORT": "7000"}
TASK = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
}
PYTORCHJOB = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "head", "MASTER_PORT": "7000"}
MACHINE = {"NODE_RANK": "1", "MASTER_ADDR": "head", "MASTER_PORT": "7000"}
NAMES = (
    "LOCAL_RANK",
    "GROUP_RANK",
    "RANK",
    "WORLD_SIZE",
    "SLURM_NTASKS",
    "KUBERNETES_SERVICE_HOST",
    *TORCHRUN,
    *TASK,
    *MACHINE,
)
"""Every variable that a starter sets."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def put(environment: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        environment.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "train", "expected"),
    [
        ({}, TrainConfig(devices=4), Processes(world=4)),
        (
            {**TORCHRUN, "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"},
            TrainConfig(devices=4, num_nodes=2),
            Processes(5, 8, 1, 2, "head", 7000, "torchrun"),
        ),
        (
            {**TASK, "MASTER_ADDR": "head"},
            TrainConfig(devices=4, num_nodes=2),
            Processes(6, 8, 2, 2, "head", 29500, "srun"),
        ),
        (
            # An earlier job left an address.
            {**TASK, "MASTER_ADDR": "gone"},
            TrainConfig(devices=8),
            Processes(6, 8, 2, 1, "127.0.0.1", 29500, "srun"),
        ),
        (MACHINE, TrainConfig(devices=4, num_nodes=2), Processes(4, 8, 0, 2, "head", 7000)),
        (
            PYTORCHJOB,
            TrainConfig(devices=1, num_nodes=4),
            Processes(3, 4, 0, 4, "head", 7000, "PyTorchJob"),
        ),
        (
            # The user lets biloom start the processes of each pod.
            {**PYTORCHJOB, "NODE_RANK": "3", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            TrainConfig(devices=2, num_nodes=4),
            Processes(6, 8, 0, 4, "head", 7000),
        ),
        (
            # torchrun in a pod
            {**PYTORCHJOB, **TORCHRUN, "LOCAL_RANK": "1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            TrainConfig(devices=2, num_nodes=2),
            Processes(3, 4, 1, 2, "head", 7000, "torchrun"),
        ),
    ],
)
def test_the_processes_are_those_that_were_started(
    values: dict[str, str],
    train: TrainConfig,
    expected: Processes,
    environment: pytest.MonkeyPatch,
) -> None:
    put(environment, values)
    assert processes_of(train, train.devices or 1) == expected
    assert is_further_process(train) is (expected.rank > 0)


@pytest.mark.parametrize(
    "values",
    [
        {"MASTER_ADDR": "gone.invalid", "MASTER_PORT": "29500"},
        {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "4", "GROUP_RANK": "1"},
        {"NODE_RANK": "1"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {"SLURM_STEP_ID": "4294967291", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
        {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"},
        {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1", "RANK": "0"},
        {"RANK": "none", "TORCHELASTIC_RUN_ID": "x"},
        PYTORCHJOB,
        {**PYTORCHJOB, "WORLD_SIZE": "1", "RANK": "0", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
)
@pytest.mark.parametrize("devices", [1, 2])
def test_variables_that_another_program_left_are_ignored(
    values: dict[str, str], devices: int, environment: pytest.MonkeyPatch
) -> None:
    put(environment, values)
    train = TrainConfig(devices=devices)
    assert processes_of(train, devices) == Processes(world=devices)
    assert not is_further_process(train)


@pytest.mark.parametrize(
    ("values", "train", "message"),
    [
        (
            {**TORCHRUN, "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"},
            TrainConfig(devices=1),
            r"^torchrun started 2 processes, but train.devices x train.num_nodes is 1 x 1; start 1, or "
            r"set train.devices to 2$",
        ),
        (
            TASK,
            TrainConfig(devices=2, num_nodes=2),
            r"^srun started 8 processes, but .* is 2 x 2; start 4, or set train.devices to 4$",
        ),
        (
            {**TASK, "SLURM_LOCALID": "4"},
            TrainConfig(devices=4, num_nodes=2),
            r"^srun started more than 4 processes on this machine, but .* is 4 x 2; start 4 on each",
        ),
        (
            {**PYTORCHJOB, "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            TrainConfig(),
            r"^the PyTorchJob started one process in each of 4 pods, but .* is 1 x 1; set "
            r"train.num_nodes to 4 and train.devices to 1. .* set NODE_RANK to the value of RANK. If no "
            r"PyTorchJob started this command, unset RANK and WORLD_SIZE$",
        ),
        (
            PYTORCHJOB,
            TrainConfig(devices=2, num_nodes=2),
            r"^the PyTorchJob started one process in each of 4 pods, but .* is 2 x 2;",
        ),
        (TASK, TrainConfig(devices=4, num_nodes=2), r"^MASTER_ADDR is not set; .* under srun"),
        (
            {},
            TrainConfig(num_nodes=2),
            r"^train.num_nodes is 2, so NODE_RANK \(0 to 1\), MASTER_ADDR and MASTER_PORT must be set",
        ),
        (
            {**MACHINE, "NODE_RANK": "2"},
            TrainConfig(num_nodes=2),
            r"^NODE_RANK is 2, but train.num_nodes is 2; lower it$",
        ),
    ],
)
def test_processes_that_do_not_fit_the_config_are_refused(
    values: dict[str, str], train: TrainConfig, message: str, environment: pytest.MonkeyPatch
) -> None:
    put(environment, values)
    with pytest.raises(UserError, match=message):
        processes_of(train, train.devices or 1)


def test_the_first_process_of_a_machine_starts_the_others() -> None:
    second = Processes(rank=4, world=8, machines=2, address="head", port=7000)
    assert second.started == range(5, 8)
    other = second.of_rank(6, 7000)
    assert (other.rank, other.local_rank, other.port, other.started) == (6, 2, 7000, range(0))
    assert Processes(world=4).of_rank(3, 123).port == 123
    assert not Processes(0, 4, starter="torchrun").started
