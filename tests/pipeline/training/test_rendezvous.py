"""Processes meet before they form a process group, whatever started them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from dataclasses import replace
import torch
import torch.distributed as dist
from pipeline.training import rendezvous
from pipeline.training.processes import Processes
from pipeline.training.rendezvous import connected

rendezvous.MEET_SECONDS = 40
rank, port, purpose = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
processes = Processes(rank, 2, rank, 1, "127.0.0.1", port, "torchrun")
{change}
try:
    with connected(processes, "gloo", torch.device("cpu"), purpose, None):
        total = torch.tensor([rank + 1])
        dist.all_reduce(total)
        print(int(total))
except Exception as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""
MACHINES = "processes = replace(processes, local_rank=0, machines=2)"
STARTED_HERE = """
class Ranks(rendezvous.LocalRanks):
    def start(self, port, work):
        pass  # the test starts both

rendezvous.LocalRanks = Ranks
processes = replace(processes, starter="biloom")
"""


def run(change: str, purposes: tuple[str, str], **environment: str) -> list[str]:
    """Return what each of two processes prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(change=change), str(rank), port, purpose],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, purpose in enumerate(purposes)
    ]
    return [one.communicate(timeout=100)[0].strip() for one in started]


def test_processes_of_equal_purpose_are_connected() -> None:
    assert run("", ("a", "a")) == ["3", "3"]


def test_processes_of_different_purposes_are_refused() -> None:
    told = run("", ("a", "b"))

    assert all("ranks" in one and "have different settings or inputs" in one for one in told), told
    assert all(one.startswith("UserError: ") for one in told)
    assert all(
        "if their devices differ, set train.precision instead of auto" in one for one in told
    )


def test_an_interface_that_another_program_left_is_ignored_on_one_machine() -> None:
    assert run(STARTED_HERE, ("a", "a"), GLOO_SOCKET_IFNAME="none-such") == ["3", "3"]


def test_an_interface_that_does_not_exist_is_named_with_several_machines() -> None:
    for told in run(MACHINES, ("a", "a"), GLOO_SOCKET_IFNAME="none-such"):
        assert told.startswith("JobError: the 2 processes of this training cannot be connected ")
        assert "none-such" in told
        assert told.endswith(
            "set GLOO_SOCKET_IFNAME to the network interface that connects the machines, or unset it"
        )
