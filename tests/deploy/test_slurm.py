"""deploy/slurm on a SLURM that the tests start: a training that is stopped ends as one that is not."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port

Tiny = Any  # of conftest.py

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy" / "slurm"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
# A preempted job has GraceTime seconds to save. A requeued one is held for cred_expire seconds. Jobs run as
# root, without munge and control groups.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
SlurmctldPort={ctld}
SlurmdPort={slurmd}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MailProg=/bin/true
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=batch_sched_delay=1,sched_interval=1,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=120 State=UP
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF State=UP
"""
SIZES = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1")


class Slurm:
    """A running SLURM of one node with two cores.

    Args:
        environment: of its commands and jobs.
        folder: where logs of jobs are written.
    """

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment, self._folder = environment, folder

    def run(self, *command: object) -> str:
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=60,
            env=self._environment,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, *arguments: object) -> str:
        """Submit a job, and return its number."""
        log = f"--output={self._folder}/%j.log"
        return self.run("sbatch", "--parsable", log, *arguments).strip()

    def log(self, job: str) -> str:
        file = self._folder / f"{job}.log"
        return file.read_text() if file.exists() else ""

    def state(self, job: str) -> str:
        found = re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job))
        assert found
        return found[1]

    def wait(self, job: str, *states: str) -> None:
        deadline = time.monotonic() + 400
        while (state := self.state(job)) not in states:
            ended = {"FAILED", "TIMEOUT", "CANCELLED"} - {*states}
            assert state not in ended, self.log(job)
            assert time.monotonic() < deadline, (state, self.log(job))
            time.sleep(0.2)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    path = f"{os.environ['PATH']}:/usr/sbin"
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=path)]:
        pytest.skip(f"no {missing[0]}; SLURM is in Debian's slurmctld, slurmd and slurm-client")
    if os.geteuid():
        pytest.skip("a SLURM of the tests needs root")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    host, ports = socket.gethostname(), {"ctld": free_port(), "slurmd": free_port()}
    (folder / "slurm.conf").write_text(CONFIG.format(host=host, folder=folder, **ports))
    command = folder / "bin" / "biloom"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline.cli "$@"\n')
    command.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder}/bin:{path}",
        "PYTHONPATH": str(ROOT),
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    with ExitStack() as stack, (folder / "daemons.log").open("w") as log:
        for program in ("slurmctld", "slurmd"):
            words = [program, "-D", "-c", *(["-N", host] if program == "slurmd" else [])]
            daemon = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
        made = Slurm(environment, folder)
        deadline = time.monotonic() + 60
        while (
            subprocess.run(
                ["sinfo", "-h", "-t", "idle", "-o", "%D"], env=environment, capture_output=True
            ).stdout.strip()
            != b"1"
        ):
            assert time.monotonic() < deadline, (folder / "daemons.log").read_text()
            time.sleep(0.2)
        yield made
        made.run("scancel", "--user=root")
        deadline = time.monotonic() + 60
        while made.run("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)


def arguments(tiny: Tiny, output: Path) -> list[object]:
    settings = ("train.rows=4", "train.steps=150", "train.checkpoint_steps=5")
    return [*SIZES, SCRIPTS / "train.sbatch", *tiny.arguments(output, *settings)]


def wait_for_a_checkpoint(slurm: Slurm, job: str, output: Path) -> None:
    deadline = time.monotonic() + 200
    while not [*output.glob("train/_work/*/step-*.ckpt")]:
        assert time.monotonic() < deadline, slurm.log(job)
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(slurm: Slurm, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of a training that nothing stops."""
    output = tmp_path_factory.mktemp("undisturbed")
    job = slurm.submit(*arguments(tiny, output))
    slurm.wait(job, "COMPLETED")
    assert "requeueing" not in slurm.log(job)
    return (output / "train" / "checkpoint.ckpt").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["time limit", "preemption"])
def test_a_training_that_is_requeued_ends_in_the_same_checkpoint(
    slurm: Slurm, tiny: Tiny, undisturbed: bytes, tmp_path: Path, reason: str
) -> None:
    job = slurm.submit(*arguments(tiny, tmp_path))
    wait_for_a_checkpoint(slurm, job, tmp_path)
    if reason == "time limit":
        # What SLURM sends before the limit, because of --signal=B:USR1@180.
        slurm.run("scancel", "--batch", "--signal=USR1", job)
    else:
        urgent = slurm.submit("--partition=high", "--ntasks=2", "--wrap=sleep 1")
        slurm.wait(urgent, "COMPLETED")
    slurm.wait(job, "COMPLETED")

    told = slurm.log(job)
    assert f"requeueing job {job}" in told
    assert told.count("biloom: stopped; the same command continues from what is saved") == 1
    assert "resuming from step" in told
    assert (tmp_path / "train" / "checkpoint.ckpt").read_bytes() == undisturbed


@pytest.mark.slow
def test_a_mistake_ends_the_job(slurm: Slurm, tiny: Tiny, tmp_path: Path) -> None:
    job = slurm.submit(*SIZES, SCRIPTS / "train.sbatch", "no-such.yaml")
    slurm.wait(job, "COMPLETED", "FAILED")

    assert "the step ended with exit code 2; the job is not requeued" in slurm.log(job)
    shown = slurm.run("scontrol", "show", "job", job)
    assert "ExitCode=2:0" in shown
    assert "Restarts=0" in shown
