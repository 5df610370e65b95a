"""The kernels of the character CNN, compiled for GPUs on a machine without one: no spills, 16 bytes a load."""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.nn.kernels import highway
from lightning_modules.nn.kernels.convolution_layout import layout_of

triton = pytest.importorskip("triton", reason="Triton is not installed")

MOST_SHARED = 99 * 1024
"""Bytes of shared memory of a program on the GPUs with the least, of compute capability 8.6 and 8.9."""
BF16, FP32 = torch.bfloat16, torch.float32
ELMO = ((1, 2, 3, 4, 5, 6, 7), (32, 32, 64, 128, 256, 512, 1024), 16)
ODD = ((1, 3), (5, 130), 20)
KERNELS = ("maxima", "d_weights", "d_windows", "d_places", "forward", "backward")
OPERANDS = {
    *("both", "x", "y", "d_y", "d_both", "d_x"),
    *("characters", "weights", "values", "gradient", "d_window"),
}


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 90, 100, 120])
@pytest.mark.parametrize("dtype", [BF16, FP32])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_spills_nothing_and_moves_16_bytes_a_thread(
    name: str, dtype: torch.dtype, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel = compiled(name, ELMO, dtype, capability)

    assert_no_spills(kernel, tmp_path)
    moves = len(re.findall(r"(?:ld|st)\.global|cp\.async\.c[ag]", kernel.asm["ptx"]))
    wide = r"(?:ld|st)\.global\.v4\.b32|cp\.async\.c[ag]\.shared\.global .*, (?:0x10|16),"
    # Others read single characters and windows, which have a byte.
    assert len(re.findall(wide, kernel.asm["ptx"])) >= 0.6 * moves


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [BF16, FP32])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_for_one_short_word_and_odd_sizes_spills_nothing(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    assert_no_spills(compiled(name, ODD, dtype, 90), tmp_path)


def assert_no_spills(kernel: Any, tmp_path: Path) -> None:
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "--dump-resource-usage", binary]
    resources = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"STACK:0\b.*LOCAL:0\b", resources)
    assert kernel.metadata.shared <= MOST_SHARED


def compiled(name: str, filters: Any, dtype: torch.dtype, capability: int) -> Any:
    """Compile a kernel as its operation calls it."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    is_highway = name in ("forward", "backward")
    module = f"lightning_modules.nn.kernels.{'highway' if is_highway else 'convolution'}_triton"
    kernel = getattr(importlib.import_module(module), name)
    options: dict[str, Any] = {"tile": highway.TILE, "num_warps": 4}
    if not is_highway:
        layout = layout_of(*filters, dtype)
        assert layout
        options = layout.arguments(name)
    constants = {key: options.pop(key) for key in kernel.arg_names if key in options}
    if filters is ODD:  # when a kernel is called, Triton makes a constant of an integer that is 1
        constants |= {key: 1 for key in ("types", "length", "width") if key in kernel.arg_names}
    types = dict.fromkeys(OPERANDS, "*bf16" if dtype == BF16 else "*fp32")
    types |= {"ids": "*i64", "seen": "*i64", "windows": "*u8", "bias": "*fp32", "result": "*fp32"}
    if name == "d_windows":
        types["result"] = types["gradient"]
    signature = {
        key: "constexpr" if key in constants else types.get(key, "i32") for key in kernel.arg_names
    }
    # What Triton finds when the kernel is called.
    attributes = {
        (position,): [["tt.divisibility", 16]]
        for position, key in enumerate(kernel.arg_names)
        if signature[key].startswith("*") or (key == "width" and filters is ELMO)
    }
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options)
