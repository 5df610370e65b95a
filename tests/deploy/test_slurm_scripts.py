"""The logic of the scripts in deploy/slurm: stand-ins for SLURM's commands and for biloom."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.exit_codes import ExitCode

SCRIPTS = Path(__file__).parents[2] / "deploy" / "slurm"
BATCH = sorted(file.name for file in SCRIPTS.glob("*.sbatch"))
SRUN = """\
#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""
SCONTROL = """\
#!/bin/sh
if [ "$1 $2" = "show hostnames" ]; then printf 'node7\\nnode8\\n'; else echo "scontrol $*" >> calls; fi
"""
BILOOM = """\
#!/bin/bash
echo "biloom $* on $MASTER_ADDR:$MASTER_PORT with $SRUN_CPUS_PER_TASK cores" >> calls
[ -n "$WAITS" ] || exit "$CODE"
trap 'echo signal >> calls; sleep 0.3; exit 75' USR1
touch ready
while true; do sleep 0.05; done
"""
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a batch script, as SLURM does, with stand-ins that write to the file `calls`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("biloom", BILOOM)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(script: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        copy = tmp_path / "slurm_script"
        shutil.copy(SCRIPTS / script, copy)
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(SCRIPTS.parents[1]),
            "SLURM_JOB_ID": "40017",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_NTASKS_PER_NODE": "8",
            "SLURM_CPUS_PER_TASK": "6",
            **{"CODE": "0", "WAITS": "", **variables},
        }
        return subprocess.Popen(
            ["bash", copy, *arguments],
            env=environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_training_runs_on_all_nodes_from_the_first_one(start: Start, tmp_path: Path) -> None:
    _, told = (job := start("train.sbatch", "mine.yaml", "a='b c'")).communicate(timeout=120)

    assert (job.returncode, told) == (0, "")
    assert calls(tmp_path) == [
        "biloom train mine.yaml a='b c' train.num_nodes=2 train.devices=8 on node7:20017 "
        "with 6 cores"
    ]


def test_the_tokenizer_is_made_before_the_corpus(start: Start, tmp_path: Path) -> None:
    (job := start("prepare.sbatch", "mine.yaml")).communicate(timeout=120)

    assert job.returncode == 0
    assert [call.split()[1] for call in calls(tmp_path)] == ["tokenizer", "prepare"]


@pytest.mark.parametrize("script", BATCH)
@pytest.mark.parametrize("code", [1, 2, 3, 70, 137])
def test_a_failure_ends_the_job_with_its_code(
    start: Start, tmp_path: Path, script: str, code: int
) -> None:
    _, told = (job := start(script, "mine.yaml", CODE=f"{code}")).communicate(timeout=120)

    assert job.returncode == code
    assert told.endswith(f": the step ended with exit code {code}; the job is not requeued\n")
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize("script", BATCH)
def test_a_step_that_was_stopped_and_has_saved_requeues_the_job(
    start: Start, tmp_path: Path, script: str
) -> None:
    _, told = (job := start(script, "mine.yaml", CODE="75")).communicate(timeout=120)

    assert job.returncode == ExitCode.STOPPED
    assert told.endswith(": the step was stopped and has saved; requeueing job 40017\n")
    assert calls(tmp_path)[1:] == ["scontrol requeue 40017"]


def test_a_job_is_not_requeued_for_ever(start: Start, tmp_path: Path) -> None:
    variables = {"CODE": "75", "SLURM_RESTART_COUNT": "3", "BILOOM_MAX_REQUEUES": "3"}
    _, told = (job := start("train.sbatch", "mine.yaml", **variables)).communicate(timeout=120)

    assert job.returncode == ExitCode.STOPPED
    assert told.endswith(
        ": the step was stopped and has saved, but the job was requeued 3 times already "
        "(BILOOM_MAX_REQUEUES); sbatch continues it\n"
    )
    assert len(calls(tmp_path)) == 1


def test_the_signal_before_the_time_limit_reaches_the_step_once(
    start: Start, tmp_path: Path
) -> None:
    job = start("train.sbatch", "mine.yaml", WAITS="1")
    deadline = time.monotonic() + 120
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    while "signal" not in calls(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=120)

    assert job.returncode == ExitCode.STOPPED
    assert calls(tmp_path)[1:] == ["signal", "scontrol requeue 40017"]


def test_every_script_asks_for_the_signal_and_may_be_requeued() -> None:
    assert len(BATCH) == 3
    for name in BATCH:
        options = re.findall(r"^#SBATCH (\S+)$", (SCRIPTS / name).read_text(), re.MULTILINE)
        assert {"--signal=B:USR1@180", "--requeue", "--open-mode=append"} <= set(options), name
    text = (SCRIPTS / "requeue.sh").read_text()
    assert f"STOPPED={ExitCode.STOPPED.value}\n" in text
