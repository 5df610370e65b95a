"""The device that the network runs on."""

from typing import Any

import pytest
import torch

from pipeline.config.runners import DirectOptions, DirectRunner, PortableRunner
from pipeline.training import device as module
from pipeline.training.device import device_name, resolve_device, use_cores, with_a_worker_per_gpu
from preprocess.errors import UserError


@pytest.mark.parametrize(("gpu", "expected"), [(False, "cpu"), (True, "cuda")])
def test_auto_uses_a_gpu_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    assert resolve_device("auto").type == expected
    assert resolve_device("cpu").type == "cpu"


def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(UserError, match=r"train\.device is cuda, but torch finds no GPU; set it"):
        resolve_device("cuda")


def test_a_cpu_is_named_by_its_threads() -> None:
    assert device_name(torch.device("cpu")) == f"{torch.get_num_threads()} CPU threads"


@pytest.mark.parametrize(
    ("gpus", "device", "workers", "expected"),
    [(3, "auto", None, 3), (3, "cpu", None, None), (3, "cuda", 2, 2), (0, "auto", None, None)],
)
def test_the_direct_runner_starts_a_worker_per_gpu(
    gpus: int,
    device: Any,
    workers: int | None,
    expected: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    runner = DirectRunner(options=DirectOptions(workers=workers))
    found = with_a_worker_per_gpu(runner, device)
    assert isinstance(found, DirectRunner)
    assert found.options.workers == expected
    assert with_a_worker_per_gpu(PortableRunner(), device) == PortableRunner()


@pytest.mark.parametrize(("usable", "processes", "threads"), [(8, 2, 4), (1, 2, 1), (64, 1, 16)])
def test_the_processes_of_a_machine_share_its_threads(
    usable: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(module, "usable_cores", lambda: usable)
    use_cores(processes)
    assert chosen == [threads]
