"""The benchmark of a GPU runs on a CPU with a small network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from step_counter import PARTS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_gpu.py"


@pytest.mark.slow
def test_every_measurement_works_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--rows", "4"]
    command += ["--steps", "2", "--cudnn", "--trace", str(tmp_path / "trace.json")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    *shown, last = done.stdout.splitlines()
    figures = json.loads(last)

    assert figures["failed"] == {}
    for kind in ("predicted", "measured"):
        assert figures[f"{kind}_parts_ms_4"].keys() == set(PARTS)
    assert any(line.startswith("LSTM backward") and len(line.split()) == 5 for line in shown)
    names = ("tokens_per_s_4", "mfu_4", "ddp_tokens_per_s_4", "cudnn_tokens_per_s_4", "tb_per_s")
    for name in (*names, "embed_new_words_per_s", "embed_float32_per_s", "embed_bf16_per_s"):
        assert figures[name] > 0
    assert figures["error_float32"] < 1e-4 < figures["error_bf16"] < 1
    assert (tmp_path / "trace.json").stat().st_size > 1000
