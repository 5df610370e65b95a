"""Each worker takes a GPU of its own, on its own machine."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from lightning_modules.vectors import worker_device as module
from lightning_modules.vectors.worker_device import (
    Precision,
    choose_device,
    matmul_dtype,
    worker_device,
)
from preprocess.errors import UserError

OTHER = """
import sys
from lightning_modules.vectors.worker_device import choose_device
print(choose_device("auto", sys.argv[1:]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def gpus() -> Iterator[list[str]]:
    """Two GPUs that only this test knows."""
    yield [f"test-{os.getpid()}-{secrets.token_hex(4)}" for _ in range(2)]
    for mark in module._held.values():
        mark.close()
    module._held.clear()


def other_process(gpus: list[str]) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, *gpus],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, process.stdout.readline().strip()


def test_processes_take_one_gpu_each_and_a_killed_one_frees_its_own(gpus: list[str]) -> None:
    others = [other_process(gpus) for _ in range(3)]
    try:
        assert [device for _, device in others] == ["cuda:0", "cuda:1", "cpu"]
        assert choose_device("auto", gpus) == "cpu"
        with pytest.raises(
            UserError, match=r"each of the 2 GPUs of the machine .* is used by another"
        ):
            choose_device("cuda", gpus)
        others[1][0].kill()
        others[1][0].wait()
        assert choose_device("cuda", gpus) == "cuda:1"
    finally:
        for process, _ in others:
            process.kill()
            process.communicate()


def test_a_process_keeps_its_gpu(gpus: list[str]) -> None:
    assert choose_device("auto", gpus) == "cuda:0"
    assert choose_device("cuda", gpus) == "cuda:0"
    assert choose_device("cpu", gpus) == "cpu"


def test_a_machine_without_a_gpu_uses_its_cpu_unless_a_gpu_is_wanted() -> None:
    assert choose_device("auto", []) == "cpu"
    with pytest.raises(UserError, match="torch finds no GPU on the machine"):
        choose_device("cuda", [])


def test_the_device_is_chosen_where_the_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: ["a-gpu-of-this-worker"])
    worker_device.cache_clear()
    try:
        assert worker_device("auto") == "cuda:0"
        assert worker_device("cpu") == "cpu"
    finally:
        worker_device.cache_clear()
        module._held.pop("a-gpu-of-this-worker").close()


def test_gpus_are_known_by_names_that_other_processes_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = [type("Properties", (), {"uuid": f"GPU-{number}"})() for number in range(2)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    assert module.visible_gpus() == ["GPU-0", "GPU-1"]


@pytest.mark.parametrize(
    ("precision", "device", "supported", "expected"),
    [
        ("float32", "cuda:0", True, None),
        ("bf16", "cpu", False, torch.bfloat16),
        ("auto", "cpu", True, None),
        ("auto", "cuda:1", True, torch.bfloat16),
        ("auto", "cuda:1", False, None),
    ],
)
def test_auto_means_bf16_on_a_gpu_that_has_it(
    precision: Precision,
    device: str,
    supported: bool,
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    assert matmul_dtype(precision, device) == expected
