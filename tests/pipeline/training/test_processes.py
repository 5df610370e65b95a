"""The global rank of a process, from its environment."""

import pytest

from lightning_modules.training.config import TrainConfig
from pipeline.training.processes import is_further_process, process_rank

NAMES = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS",
         "SLURM_PROCID")  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, 0),
        ({"LOCAL_RANK": "3"}, 3),
        ({"LOCAL_RANK": "1", "NODE_RANK": "2"}, 9),
        ({"GROUP_RANK": "1"}, 4),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "LOCAL_RANK": "1"}, 5),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "6"}, 6),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, 0),
        ({"LOCAL_RANK": "none"}, 0),
    ],
)
def test_the_rank_is_read_from_the_variables_of_the_launcher(
    environment: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert process_rank(4) == rank
    assert is_further_process(TrainConfig(devices=4)) is (rank > 0)
    assert is_further_process(TrainConfig(num_nodes=2)) is (rank > 0)
    assert not is_further_process(TrainConfig(devices=1)), "one process is the first, whoever asks"
