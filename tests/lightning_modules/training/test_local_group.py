"""Collective operations of processes on one machine, without threads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Together = Callable[[str, int], list[tuple[int, str]]]  # of conftest.py

OPERATIONS = """
found = {}
found["sum"] = torch.tensor([[0.1 * 3**rank, 1.0]])
dist.all_reduce(found["sum"])
found["max"] = torch.tensor([rank, -rank, 2**60 + rank])
dist.all_reduce(found["max"], dist.ReduceOp.MAX)
found["gathered"] = [torch.empty(40_000, 2) for _ in range(world)]
dist.all_gather(found["gathered"], torch.full((2, 40_000), float(rank)).T)
found["objects"] = [rank, "x" * rank]
dist.broadcast_object_list(found["objects"], src=world - 1)
found["scalar"] = torch.tensor(2.0**rank)
dist.all_reduce(found["scalar"])
dist.barrier()
found["threads"] = threads() - threads_before
dist.destroy_process_group()
torch.save(found, f"{folder}/{rank}.pt")
"""
LOST = """
dist.barrier()
if rank == world - 1:
    os._exit(1)
dist.barrier()
"""
SILENT = """
if rank:
    time.sleep(8)
dist.barrier()
"""


@pytest.mark.parametrize("world", [1, 2, 3])
def test_collective_operations_give_every_process_the_result(
    together: Together, tmp_path: Path, world: int
) -> None:
    assert together(OPERATIONS, world) == [(0, "")] * world

    total = torch.tensor(0.1)
    for rank in range(1, world):
        total += torch.tensor(0.1 * 3**rank)
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(found["sum"], torch.tensor([[float(total), world]]))
        assert found["max"].tolist() == [world - 1, 0, 2**60 + world - 1]
        assert [part.unique().tolist() for part in found["gathered"]] == [[r] for r in range(world)]
        assert found["objects"] == [world - 1, "x" * (world - 1)]
        assert found["scalar"].shape == ()
        assert float(found["scalar"]) == 2**world - 1
        assert found["threads"] == 0


@pytest.mark.parametrize("world", [2, 3])
def test_waiting_for_a_process_that_has_ended_fails_at_once(together: Together, world: int) -> None:
    *others, _ = together(LOST, world)

    for code, words in others:
        assert code == 1
        assert "DistNetworkError: no answer from a process on this machine: " in words


@pytest.mark.slow
def test_waiting_for_a_silent_process_fails_after_the_timeout(
    together: Together,
) -> None:
    (code, words), _ = together(SILENT, 2)

    assert code == 1
    assert "DistNetworkError: no answer from a process on this machine: timed out" in words
