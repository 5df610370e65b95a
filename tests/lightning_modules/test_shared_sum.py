"""Gradients summed through shared memory, by processes of this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
SIZES = (7, 3, 1000, 1000, 1, 50)

PROCESS = """
import json, os, sys
import torch, torch.distributed as dist
from lightning_modules.shared_sum import SharedSum
folder, rank, world, sizes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
store = dist.FileStore(folder + "/store", world)
dist.init_process_group("gloo", rank=rank, world_size=world, store=store)
total = SharedSum()
for number, size in enumerate(sizes):
    if len(sys.argv) > 5 and rank and number == 2:
        os._exit(1)
    values = torch.randn(size, generator=torch.Generator().manual_seed(100 * number + rank))
    total.mean_(values)
    torch.save(values, f"{folder}/{number}-{rank}.pt")
dist.destroy_process_group()
"""


def run(folder: Path, world: int, *more: str) -> list[tuple[int, str]]:
    """Exit code and last words of each process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), str(rank), str(world), json.dumps(SIZES), *more],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    told = [process.communicate(timeout=100)[1] for process in processes]
    return [(process.returncode, words) for process, words in zip(processes, told, strict=True)]


@pytest.mark.parametrize("world", [2, 3])
def test_all_processes_have_the_same_mean_of_all(tmp_path: Path, world: int) -> None:
    assert [code for code, _ in run(tmp_path, world)] == [0] * world

    for number, size in enumerate(SIZES):
        given = [
            torch.randn(size, generator=torch.Generator().manual_seed(100 * number + rank))
            for rank in range(world)
        ]
        found = [torch.load(tmp_path / f"{number}-{rank}.pt") for rank in range(world)]
        assert all(torch.equal(one, found[0]) for one in found)
        expected = np.mean([one.double().numpy() for one in given], axis=0)
        np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not list(tmp_path.glob("biloom-sum-*"))
    assert not list(Path("/dev/shm").glob("biloom-sum-*"))


def test_who_waits_for_a_lost_process_is_told(tmp_path: Path) -> None:
    (code, words), _ = run(tmp_path, 2, "one is lost")

    assert code == 1
    assert "RuntimeError" in words
    assert not list(Path("/dev/shm").glob("biloom-sum-*"))
