"""The device that the network runs on."""

from typing import Any

import pytest
import torch

from pipeline.config.runners import DirectOptions, DirectRunner, PortableRunner
from pipeline.training import device as module
from pipeline.training.device import (
    device_name,
    resolve_device,
    resolve_precision,
    tf32_products,
    use_cores,
    with_a_worker_per_gpu,
)
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


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((9, 0), "bf16"),
        ((8, 0), "bf16"),
        ((7, 5), "float16"),
        ((7, 0), "float16"),
        ((6, 1), "float32"),
    ],
)
def test_auto_is_the_fastest_precision_that_a_gpu_has_units_for(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0)
    )

    assert resolve_precision("auto", gpu) == expected
    assert resolve_precision("auto", torch.device("cpu")) == "float32"
    for asked in ("float32", "bf16", "float16"):
        assert resolve_precision(asked, gpu) == asked  # type: ignore[arg-type]


def test_tf32_is_refused_without_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    for is_supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda found=is_supported: found)
        with pytest.raises(
            UserError, match=r"^train\.precision is tf32, but \d+ CPU threads cannot"
        ):
            resolve_precision("tf32", torch.device("cpu"))
    with pytest.raises(
        UserError,
        match=r"is tf32, but Tesla T4 cannot .* 8\.0 or higher can\. Set it to auto or float32$",
    ):
        resolve_precision("tf32", gpu)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: True)
    assert resolve_precision("tf32", gpu) == "tf32"


def test_tf32_is_allowed_in_its_context_only() -> None:
    def setting() -> tuple[Any, ...]:
        matmul, on_cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        return (
            torch.get_float32_matmul_precision(),
            matmul.allow_tf32,
            matmul.fp32_precision,
            on_cpu.fp32_precision,
        )

    former = setting()
    with tf32_products(False):
        assert setting() == former
    with tf32_products(True):
        assert setting() == ("high", True, "tf32", former[3])
    assert setting() == former
    with pytest.raises(KeyError), tf32_products(True):
        raise KeyError
    assert setting() == former

    torch.set_float32_matmul_precision("medium")
    try:
        chosen = setting()
        with tf32_products(True):
            assert setting() == chosen, "the user has allowed more"
        assert setting() == chosen
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = former[2]


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
