"""The fused cells, compiled for GPUs on a machine without one: no spills, and 16 bytes a load."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.nn.kernels.tile import Tile

triton = pytest.importorskip("triton", reason="Triton is not installed")

POINTERS = {
    "lstm_forward": {"gates", "recurrent", "squashed", "keep"},
    "lstm_backward": {"gates", "d_squashed", "keep"},
    "gru_forward": {"gates", "recurrent", "inner", "operand", "keep"},
    "gru_backward": {"gates", "inner", "d_recurrent", "d_product", "keep"},
}
"""The kernels, and their tensors that lie between two matmuls; the others are float32."""


def compiled(
    name: str, size: int, rows: int, capability: int, dtype: str = "bf16", options: bool = True
) -> Any:
    """Compile a kernel as a layer with matmuls in a dtype calls it, with clips and resets or without."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lightning_modules.nn.kernels import cells_triton

    kernel, tile = getattr(cells_triton, name), Tile.of(rows, size)
    constants: dict[str, Any] = {"clipped": options, "kept": options}
    narrow = dtype != "fp32"
    constants |= dict.fromkeys(("as_sums", "with_operand", "with_output", "with_product"), narrow)
    constants |= {"size": size, "tile_rows": tile.rows, "tile_columns": tile.columns}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    signature, attributes = {}, {}
    for position, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in ("clip", "rows"):
            signature[argument] = "fp32" if argument == "clip" else "i32"
        else:
            is_stride = argument.endswith("_stride")
            pointer = f"*{dtype}" if argument in POINTERS[name] else "*fp32"
            signature[argument] = "i64" if is_stride else pointer
            if size % 16 == 0:  # what Triton finds when the kernel is called
                attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": tile.warps})


def resources(kernel: Any, tmp_path: Path) -> str:
    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "--dump-resource-usage", binary]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 90, 100, 120])
@pytest.mark.parametrize("name", POINTERS)
@pytest.mark.parametrize(
    ("dtype", "options"), [("bf16", False), ("bf16", True), ("fp16", True), ("fp32", True)]
)
def test_a_kernel_spills_nothing_and_moves_16_bytes_a_thread(
    name: str,
    capability: int,
    dtype: str,
    options: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel = compiled(name, 4096, 128, capability, dtype, options)

    assert re.search(r"STACK:0\b.*LOCAL:0\b", resources(kernel, tmp_path))
    moves = re.findall(r"(?:ld|st)\.global(?:\.v(\d))?\.b(\d+)", kernel.asm["ptx"])
    narrow = [move for move in moves if move != ("4", "32")]
    # The biases and `keep` are shared by the rows or the columns of a tile.
    assert len(narrow) <= 4 + (8 if options else 0)
    assert len(moves) - len(narrow) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTERS)
@pytest.mark.parametrize(("rows", "size"), [(1, 4097), (3, 20)])
def test_a_kernel_compiles_for_odd_sizes_without_spills(
    name: str, rows: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel = compiled(name, size, rows, 90)

    assert re.search(r"STACK:0\b.*LOCAL:0\b", resources(kernel, tmp_path))
