"""The processes of a machine are pinned to separate cores."""

import os
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training import cores
from pipeline.training.cores import OwnCores, share_of, use_cores
from pipeline.training.processes import Processes


@given(st.sets(st.integers(0, 200), min_size=1, max_size=64), st.integers(1, 70))
def test_cores_are_split_evenly_if_there_are_enough(known: set[int], count: int) -> None:
    every = sorted(known)
    shares = [share_of(every, number, count) for number in range(count)]

    if len(every) < count:
        assert all(share == every for share in shares)
        return
    assert [core for share in shares for core in share] == every
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[int]]]:
    """The calls that would pin a thread of this process; there are four cores."""
    calls: list[tuple[int, list[int]]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda task, to: calls.append((task, list(to))), raising=False
    )
    return calls


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed by Linux only")
def test_every_thread_is_pinned_until_the_cores_are_restored(
    kept: list[tuple[int, list[int]]],
) -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    own = OwnCores(Processes(rank=1, world=2, local_rank=1))
    try:
        own.on_train_start(None, None)  # type: ignore[arg-type]
        assert {threading.get_native_id(), other.native_id} <= {task for task, _ in kept}
        assert {tuple(to) for _, to in kept} == {(2, 3)}
        kept.clear()
        own.restore()
        assert {tuple(to) for _, to in kept} == {(0, 1, 2, 3)}
    finally:
        over.set()
        other.join()


@pytest.mark.parametrize(
    "alone", [Processes(0, 2, starter="srun"), Processes(), Processes(0, 2, machines=2)]
)
def test_a_single_process_and_processes_of_other_starters_are_not_pinned(
    alone: Processes, kept: list[tuple[int, list[int]]]
) -> None:
    own = OwnCores(alone)
    own.on_train_start(None, None)  # type: ignore[arg-type]
    own.restore()

    assert not kept


def test_a_system_without_affinity_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(cores, "_keep_on", pytest.fail)

    OwnCores(Processes(world=2)).on_train_start(None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("usable", "processes", "threads"), [(8, 2, 4), (1, 2, 1), (64, 1, 16)])
def test_the_processes_of_a_machine_share_its_threads(
    usable: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
    use_cores(processes)
    assert chosen == [threads]
