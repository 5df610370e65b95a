"""Which devices use the fused kernels, with a stand-in for a GPU."""

import importlib.metadata
import importlib.util
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch

from lightning_modules.nn.kernels import support, wide_softmax

GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def h100_with_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.8.0")
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr(torch, "zeros", lambda *shape, **options: None)
    monkeypatch.setattr(wide_softmax, "softmax_rows_", lambda *arguments: None)
    caches = (support._triton_version, support._warn, support.launch_problem)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_a_gpu_with_triton_uses_the_kernels_and_other_devices_do_not() -> None:
    assert support.are_usable(GPU)
    assert not support.are_usable(torch.device("cpu"))
    assert not support.are_usable(torch.device("meta"))


def test_gpus_below_8_0_and_those_of_amd_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert not support.are_usable(GPU)
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not support.are_usable(GPU)


@pytest.mark.parametrize(
    ("version", "problem"),
    [(None, "triton is not installed"), ("3.1.0", "3.1.0 is older than 3.2")],
)
def test_without_triton_or_with_an_old_one_a_warning_says_so_once(
    version: str | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: version)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)

    with pytest.warns(
        UserWarning, match=f"{problem}, so this GPU trains with PyTorch's operations"
    ):
        assert not support.are_usable(GPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not support.are_usable(GPU)


def test_if_a_kernel_cannot_be_compiled_a_warning_says_why_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(wide_softmax, "softmax_rows_", fail)

    with pytest.warns(UserWarning, match=r"triton fails \(RuntimeError: Failed to find C compiler"):
        assert not support.are_usable(GPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not support.are_usable(GPU)


def test_a_triton_of_another_name_has_no_known_version_and_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert support.are_usable(GPU)
