"""Fixtures: scripts in several processes of one process group, and CUDA graphs on a CPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.nn.recurrent import graphs

ROOT = Path(__file__).parents[2]
GROUP = """
import sys
from datetime import timedelta
from pathlib import Path
import torch, torch.distributed as dist

folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = dist.FileStore(f"{folder}/store", world)
dist.init_process_group(
    "gloo", rank=rank, world_size=world, store=store, timeout=timedelta(seconds=60)
)
"""

Together = Callable[[str, int], list[tuple[int, str]]]
"""(script, number of processes) -> exit code and standard error of each process."""


@pytest.fixture
def together(tmp_path: Path) -> Together:
    """Run a script in processes in which ``folder`` (the test's), ``rank`` and ``world`` are defined."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}

    def run(script: str, world: int) -> list[tuple[int, str]]:
        (tmp_path / "store").unlink(missing_ok=True)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", GROUP + script, str(tmp_path), str(rank), str(world)],
                cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        errors = [process.communicate(timeout=100)[1] for process in processes]
        return [(p.returncode, text) for p, text in zip(processes, errors, strict=True)]

    return run


class Captures:
    """Stands for captures: a replay runs the function again, and its results are where they were before.

    Attributes:
        count: number of captures.
        replays: number of replays.
    """

    def __init__(self) -> None:
        self.count = self.replays = 0

    def __call__(self, function: graphs.Pass) -> tuple[tuple[Any, ...], Callable[[], object]]:
        self.count += 1
        results = function()

        def replay() -> None:
            self.replays += 1
            for kept, now in zip(results, function(), strict=True):
                if kept is not None:
                    kept.copy_(now)

        return results, replay


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Captures:
    """Let a CPU have CUDA graphs."""
    made = Captures()
    monkeypatch.setattr(graphs, "are_supported", lambda device: True)
    monkeypatch.setattr(graphs, "capture_on_gpu", made)
    return made
