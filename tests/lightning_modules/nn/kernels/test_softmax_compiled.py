"""The kernels of softmax, compiled for GPUs on a machine without one: no spills, and 16 bytes a load."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.nn.kernels import narrow_softmax, wide_softmax

triton = pytest.importorskip("triton", reason="Triton is not installed")

MOST_SHARED = 99 * 1024
"""Bytes of shared memory of a program on the GPUs with the least, of compute capability 8.6 and 8.9."""
TYPES = {"hidden": "*bf16", "weight": "*bf16", "logits": "*bf16", "columns": "*i64"} | dict.fromkeys(
    ["bias", "result", "totals", "grad", "d_bias", "sums", "losses", "targets"], "*fp32"
)  # fmt: skip


def narrow(dim: int, block: int, tile: int) -> dict[str, int]:
    return {"dim": dim, "width": max(16, dim), "block": block, "tile": tile}


def kernels() -> list[tuple[str, str, dict[str, int], int, int]]:
    """Return module, kernel, constants, warps, and the least number of accesses of 16 bytes."""
    by_rows = (narrow_softmax.ROWS, narrow_softmax.COLUMNS)
    by_columns = (narrow_softmax.WEIGHT_ROWS, narrow_softmax.WEIGHT_COLUMNS)
    loss = {"dim": 128, "width": 128, "block": narrow_softmax.LOSS_ROWS, "most_chunks": 512}
    block = wide_softmax.BLOCK
    return [
        *[("narrow", "sums", narrow(dim, *by_rows), 8, 1) for dim in (8, 32, 128)],
        *[("narrow", "d_hidden", narrow(dim, *by_rows), 8, 3) for dim in (8, 32, 128)],
        *[("narrow", "d_weight", narrow(dim, *by_columns), 8, 3) for dim in (8, 32, 128)],
        ("narrow", "loss", loss, 4, 0),
        ("wide", "whole_row", {"block": 8192}, wide_softmax._warps(8192), 8),
        ("wide", "whole_row", {"block": 16384}, wide_softmax._warps(16384), 8),
        ("wide", "long_row", {"block": block}, wide_softmax._warps(block), 12),
        ("wide", "tile_totals", {"block": block}, wide_softmax._warps(block), 4),
        ("wide", "tile_gradient", {"block": block}, wide_softmax._warps(block), 8),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("capability", [80, 86, 90, 100, 120])
@pytest.mark.parametrize(("module", "name", "constants", "warps", "wide"), kernels())
def test_a_kernel_spills_nothing_and_moves_16_bytes_a_thread(
    module: str,
    name: str,
    constants: dict[str, Any],
    warps: int,
    wide: int,
    capability: int,
    flag: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel = compiled(f"{module}_softmax_triton", name, constants, warps, capability, flag)

    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "--dump-resource-usage", binary]
    resources = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"STACK:0\b.*LOCAL:0\b", resources)
    assert kernel.metadata.shared <= MOST_SHARED
    moves = r"(?:ld|st)\.global\.v4\.b32|cp\.async\.c[ag]\.shared\.global .*, (?:0x10|16),"
    assert len(re.findall(moves, kernel.asm["ptx"])) >= wide


def compiled(
    module: str, name: str, constants: dict[str, Any], warps: int, capability: int, flag: bool
) -> Any:
    """Compile a kernel as its operation calls it; flag says whether with a bias and an excluded column."""
    import importlib

    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"lightning_modules.nn.kernels.{module}"), name)
    constants = constants | {"biased": flag, "exclude": flag} | ({} if flag else {"bias": None})
    signature = {
        name: "constexpr" if name in constants else TYPES.get(name, "i32")
        for name in kernel.arg_names
    }
    aligned = [
        position
        for position, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*") or name in ("stride", "chunk")
    ]  # what Triton finds when the kernel is called
    attributes = {(position,): [["tt.divisibility", 16]] for position in aligned}
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": warps})
