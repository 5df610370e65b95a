"""A GPU whose tensors have shapes and dtypes but no values, for a machine without one.

Tensors on "cuda:0" are torch's fake tensors. torch's builds for CPUs lack five things that code for a
GPU needs even then. `fake_gpu` supplies them until its block ends:

- a device guard for CUDA; torch has one that does nothing, and installs it if it finds a CUDA without
  devices,
- `torch.cuda`'s random state, and autocast for "cuda",
- multi-tensor (foreach and fused) operations on fake tensors, which torch chooses by the type of a tensor,
- the fused Adagrad of torch's builds for CUDA,
- Triton, so that whatever is compiled or fused on a GPU is chosen here too. Kernels must be custom
  operations; they are not run.
"""

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import optimizer
from torch.utils import _foreach_utils

from lightning_modules.nn.recurrent import graphs
from lightning_modules.nn.recurrent.graphs import Capture, capture_on_gpu

DEVICE = torch.device("cuda:0")
CUDA, LAZY, DEVICE_TYPES = 1, 17, 21  # c10::DeviceType, a part of torch's binary interface
ALLOW_FAKES = {"_foreach_supported_types": [torch.Tensor, torch.nn.Parameter, FakeTensor]}


@contextmanager
def fake_gpu(
    compiled: Callable[[Any], Any], captured: Capture = capture_on_gpu
) -> Iterator[torch.device]:
    """Make tensors in the block fake, and allow them on a GPU; yields the device.

    Gradients are computed in the calling thread, so that its dispatch modes see them.

    Args:
        compiled: stands for `torch.compile`.
        captured: stands for the capture of a function in a CUDA graph.
    """
    patch = mock.patch.multiple
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(_cuda_guard())
        enter(torch.autograd.set_multithreading_enabled(False))
        enter(
            patch(
                torch.cuda,
                get_rng_state=lambda *_: torch.empty(16, dtype=torch.uint8),
                set_rng_state=lambda *_: None,
                manual_seed=lambda _: None,
                device=lambda _: nullcontext(),
                current_stream=lambda *_: mock.Mock(),
                is_bf16_supported=lambda **_: True,
                get_device_capability=lambda *_: (9, 0),
            )
        )
        enter(patch(torch.cuda.amp.common, amp_definitely_not_available=lambda: False))
        enter(patch(optimizer, **ALLOW_FAKES))
        enter(patch(_foreach_utils, **ALLOW_FAKES))
        enter(patch(importlib.util, find_spec=_with_triton(importlib.util.find_spec)))
        # Cells are compared with the eager ones after they are compiled. There are no values here.
        enter(patch(torch.testing, assert_close=lambda *_, **__: None))
        enter(patch(torch, compile=compiled))
        enter(patch(graphs, capture_on_gpu=captured))
        enter(_fused_adagrad())
        enter(FakeTensorMode(allow_non_fake_inputs=True))
        yield DEVICE


def on_fake_gpu() -> SingleDeviceStrategy:
    """Return a strategy of Lightning for one fake GPU, in bf16."""
    return _OnFakeGPU(DEVICE, _FakeGPU(), precision_plugin=MixedPrecision("bf16-mixed", "cuda"))


class _FakeGPU(Accelerator):
    """The interface of Lightning for a kind of device."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> Any:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "cuda"


class _OnFakeGPU(SingleDeviceStrategy):
    """The module is made on the device. torch cannot move fake parameters."""

    def model_to_device(self) -> None: ...

    def teardown(self) -> None: ...


def _with_triton(find_spec: Callable[..., Any]) -> Callable[..., Any]:
    return lambda name, *others: True if name == "triton" else find_spec(name, *others)


@contextmanager
def _fused_adagrad() -> Iterator[None]:
    """Let tensors without values have the fused Adagrad that torch's builds for CUDA have."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_fused_adagrad_", lambda *_, **__: None, "Meta")
    try:
        yield
    finally:
        library._destroy()


@contextmanager
def _cuda_guard() -> Iterator[None]:
    """Install torch's device guard for CUDA that does nothing."""
    if torch.cuda._is_compiled():
        yield  # torch does it itself
        return
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * DEVICE_TYPES).in_dll(
        library, "_ZN3c104impl26device_guard_impl_registryE"
    )
    # The autograd engine starts a thread for each device that it finds when it is first used.
    torch.zeros((), requires_grad=True).backward()
    assert guards[CUDA] is None
    assert guards[LAZY] is not None
    # torch replaces a guard that has no device. That of lazy tensors has none.
    guards[CUDA] = guards[LAZY]
    torch._C._ensureCUDADeviceGuardSet()
    assert guards[CUDA] != guards[LAZY]
    try:
        yield
    finally:
        guards[CUDA] = None
