"""Gradients summed through shared memory, by processes of this machine."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SHAPES = [(7,), (3, 5), (1,), (20, 50)]
STEPS, PASSES = 5, 2

PROCESS = """
import os, sys
import torch, torch.distributed as dist
from torch import nn
from lightning_modules.shared_sum import SharedSum
from tests.lightning_modules.test_shared_sum import PASSES, SHAPES, STEPS, drawn
folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = dist.FileStore(folder + "/store", world)
dist.init_process_group("gloo", rank=rank, world_size=world, store=store)
weights = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
total = SharedSum(weights)
for step in range(STEPS):
    if len(sys.argv) > 4 and rank and step == 2:
        os._exit(1)
    for weight in weights:
        weight.grad = None
    # The gradient of each weight is what it is multiplied with.
    for number in range(PASSES - 1):
        sum((w * f).sum() for w, f in zip(weights, drawn(step, number, rank))).backward()
    with total.averaged():
        sum((w * f).sum() for w, f in zip(weights, drawn(step, PASSES - 1, rank))).backward()
    torch.save([weight.grad for weight in weights], f"{folder}/{step}-{rank}.pt")
dist.destroy_process_group()
"""


def drawn(step: int, number: int, rank: int) -> list[torch.Tensor]:
    """What a process gets as gradients in a backward pass."""
    draw = torch.Generator().manual_seed(100 * step + 10 * number + rank)
    return [torch.randn(shape, generator=draw) for shape in SHAPES]


def mean(step: int, world: int) -> list[Any]:
    """Over the processes, of each weight's gradient in all passes, float64."""
    totals: list[Any] = [np.zeros(shape) for shape in SHAPES]
    for rank, number in product(range(world), range(PASSES)):
        for total, part in zip(totals, drawn(step, number, rank), strict=True):
            total += part.numpy()
    return [total / world for total in totals]


def run(folder: Path, world: int, *more: str) -> list[tuple[int, str]]:
    """Exit code and last words of each process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), str(rank), str(world), *more],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    told = [process.communicate(timeout=100)[1] for process in processes]
    return [(process.returncode, words) for process, words in zip(processes, told, strict=True)]


@pytest.mark.parametrize("world", [2, 3])
def test_after_the_last_pass_gradients_are_means_over_all_processes(
    tmp_path: Path, world: int
) -> None:
    assert [code for code, _ in run(tmp_path, world)] == [0] * world

    for step in range(STEPS):
        found = [torch.load(tmp_path / f"{step}-{rank}.pt") for rank in range(world)]
        for place, expected in enumerate(mean(step, world)):
            assert all(torch.equal(one[place], found[0][place]) for one in found)
            np.testing.assert_allclose(found[0][place].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not list(tmp_path.glob("biloom-sum-*"))
    assert not list(Path("/dev/shm").glob("biloom-sum-*"))


def test_who_waits_for_a_lost_process_is_told(tmp_path: Path) -> None:
    (code, words), _ = run(tmp_path, 2, "one is lost")

    assert code == 1
    assert "RuntimeError" in words
    assert not list(Path("/dev/shm").glob("biloom-sum-*"))
