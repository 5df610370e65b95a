"""deploy/kubernetes/torchrun.py ends with biloom's exit code, as the retry rules need it."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from pipeline.exit_codes import ExitCode
from tests.conftest import free_port

Tiny, Command = Any, Any  # of conftest.py

SCRIPT = Path(__file__).parents[2] / "deploy" / "kubernetes" / "torchrun.py"
SETTINGS = ("train.rows=4", "train.steps=120", "train.checkpoint_steps=5")


@pytest.fixture(scope="module")
def launcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("launcher_of_the_test", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def failed(*codes: int) -> ChildFailedError:
    """The error of torchrun after its processes ended, the first one first."""
    failures = {
        rank: ProcessFailure(local_rank=rank, pid=rank + 1, exitcode=code, error_file="none")
        for rank, code in enumerate(codes)
    }
    for rank, failure in failures.items():
        failure.timestamp = rank  # type: ignore[misc]
    return ChildFailedError("biloom", failures)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (None, ExitCode.DONE),
        (SignalException("a signal", signal.SIGTERM), ExitCode.STOPPED),
        (failed(75, 75), ExitCode.STOPPED),
        (failed(2, -15), ExitCode.USER_ERROR),
        (failed(3, 3), ExitCode.FAILED),
        (failed(-9, 3), ExitCode.FAILED),
    ],
)
def test_the_exit_code_is_that_of_biloom(
    launcher: ModuleType, monkeypatch: pytest.MonkeyPatch, raised: Exception | None, code: ExitCode
) -> None:
    given: list[str] = []

    def main(arguments: list[str]) -> None:
        given.extend(arguments)
        if raised:
            raise raised

    monkeypatch.setattr(launcher, "main", main)
    assert launcher.run(["--nnodes=2", "script"]) == code
    assert given == ["--nnodes=2", "script"]


@pytest.mark.slow
def test_two_nodes_stop_by_one_signal_and_resume_to_the_same_checkpoint(
    tiny: Tiny, biloom: Command, tmp_path: Path
) -> None:
    """SIGTERM reaches one pod only, as in the eviction of a node."""
    output, other = tmp_path / "stopped", tmp_path / "undisturbed"
    whole = biloom.run("train", *tiny.arguments(other, *SETTINGS, "train.devices=2"))
    assert whole.returncode == 0, whole.stderr

    def nodes() -> "list[subprocess.Popen[str]]":
        port = free_port()
        return [
            subprocess.Popen(
                [
                    *(sys.executable, SCRIPT, "--nnodes=2", "--nproc-per-node=1"),
                    *(f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}"),
                    *("--shutdown-timeout=100", "--no-python", biloom.script, "train"),
                    *tiny.arguments(output, *SETTINGS, "train.num_nodes=2", "train.devices=1"),
                ],
                env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]

    started, deadline = nodes(), time.monotonic() + 300
    while not [*output.glob("train/_work/*/step-*.ckpt")]:
        assert [one.poll() for one in started] == [None, None]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    told = [one.communicate(timeout=300)[1] for one in started]
    assert [one.returncode for one in started] == [75, 75], told

    again = nodes()
    told = [one.communicate(timeout=300)[1] for one in again]
    assert [one.returncode for one in again] == [0, 0], told
    ends = [(folder / "train" / "checkpoint.ckpt").read_bytes() for folder in (output, other)]
    assert ends[0] == ends[1]
