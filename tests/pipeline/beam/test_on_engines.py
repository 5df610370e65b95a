"""Every engine writes the same bytes, and an engine that fails ends with a message."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.stopping import exit_code

Tiny = Any  # of conftest.py
Command = Any
ROOT = Path(__file__).parents[3]
BEAM = "apache_beam.runners"
JAR = os.environ.get("BILOOM_FLINK_JOB_SERVER_JAR")
PACKAGES = ("pipeline", "lightning_modules", "preprocess")
STOPPED = "\nbiloom: stopped; the same command continues from what is saved\n"

flink = pytest.mark.skipif(
    not JAR, reason="BILOOM_FLINK_JOB_SERVER_JAR names no job server of Beam for Flink"
)


def settings(tiny: Tiny, output: Path, *overrides: str) -> list[str]:
    """Return the arguments of a run with many small units."""
    small = ("prepare.unit_bytes=1024", "prepare.part_tokens=150", "prepare.shard_tokens=150")
    return ["prepare", *tiny.arguments(output, *small, *overrides)]


def content(output: Path) -> str:
    return str(json.loads((output / "prepare" / "manifest.json").read_text())["content"])


@pytest.fixture(scope="session")
def alone(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, biloom: Command) -> str:
    """The content hash of the corpus that one process writes."""
    output = tmp_path_factory.mktemp("alone")
    answer = biloom.run(*settings(tiny, output, "runner.options.mode=in_memory"))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert " in 17 units" in answer.stdout, "kills and interrupts need some units to come"
    return content(output)


def wait_until(reached: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


@contextmanager
def service(module: str, *arguments: str, port: int, **environment: str) -> Iterator[int]:
    """Run a Python module that listens at ``port`` in another process, while the block runs."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        wait_until(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pool(path: Path = Path(sys.executable).parent, **environment: str) -> Any:
    """Run Beam's worker pool, which starts the `python` of ``path``."""
    port = free_port()
    environment["PATH"] = f"{path}:{os.environ['PATH']}"
    module = f"{BEAM}.worker.worker_pool_main"
    return service(module, f"--service_port={port}", port=port, **environment)


@pytest.fixture(scope="session")
def job_service() -> Iterator[int]:
    port = free_port()
    module = f"{BEAM}.portability.local_job_service_main"
    with service(module, f"--job_port={port}", port=port) as job_port:
        yield job_port


@contextmanager
def flink_cluster(folder: Path, task_managers: int) -> Iterator[int]:
    """Run a cluster in ``folder`` while the block runs, and yield the port of its REST API."""
    script = Path(str(JAR)).with_name("cluster.sh")
    if not script.exists():
        pytest.skip(f"no {script.name} beside the job server, to start a cluster by")
    port = free_port() % 40_000 + 2000
    environment = {**os.environ, "BILOOM_FLINK_PORT": str(port)}
    subprocess.run([script, "start", str(task_managers), folder], check=True, env=environment)
    try:
        yield port
    finally:
        subprocess.run([script, "stop", folder], check=False)


def portable(job_port: int, pool_port: int) -> tuple[str, ...]:
    return (
        "runner.kind=portable",
        f"runner.options.job_endpoint=localhost:{job_port}",
        f"runner.options.environment_config=localhost:{pool_port}",
    )


def fake_python(folder: Path, script: str) -> Path:
    folder.mkdir()
    (folder / "python").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python").chmod(0o755)
    return folder


# The same bytes


@pytest.mark.parametrize(
    "runner",
    [
        ("runner.options.mode=multi_processing", "runner.options.workers=4"),
        ("runner.options.mode=multi_threading", "runner.options.workers=2"),
        ("runner.kind=dask",),
        pytest.param(("runner.kind=flink",), marks=flink),
    ],
    ids=lambda runner: " ".join(runner),
)
def test_an_engine_on_this_machine_writes_the_same_bytes(
    runner: tuple[str, ...], tiny: Tiny, alone: str, tmp_path: Path, biloom: Command
) -> None:
    folder = tmp_path / "of somebody's own"
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise ImportError('their {name}')")
    answer = biloom.run(*settings(tiny, tmp_path, *runner), cwd=folder)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert content(tmp_path) == alone


def test_a_job_service_and_a_worker_pool_write_the_same_bytes(
    tiny: Tiny, alone: str, tmp_path: Path, biloom: Command, job_service: int
) -> None:
    with pool() as port:
        answer = biloom.run(*settings(tiny, tmp_path, *portable(job_service, port)))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert content(tmp_path) == alone


@pytest.mark.slow
def test_a_remote_dask_cluster_writes_the_same_bytes(
    tiny: Tiny, alone: str, tmp_path: Path, biloom: Command
) -> None:
    port, one, two = free_port(), free_port(), free_port()
    address = f"tcp://localhost:{port}"
    worker = ("distributed.cli.dask_worker", address, "--nthreads=1", "--no-dashboard")
    scheduler = ("distributed.cli.dask_scheduler", f"--port={port}", "--no-dashboard")
    with (
        service(*scheduler, port=port),
        service(*worker, f"--worker-port={one}", "--no-nanny", port=one),
        service(*worker, f"--worker-port={two}", "--no-nanny", port=two),
    ):
        runner = ("runner.kind=dask", f"runner.options.scheduler={address}")
        answer = biloom.run(*settings(tiny, tmp_path, *runner))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert content(tmp_path) == alone


@flink
@pytest.mark.slow
def test_a_flink_cluster_that_loses_a_task_manager_writes_the_same_bytes(
    tiny: Tiny, alone: str, tmp_path: Path, biloom: Command
) -> None:
    cluster = tmp_path / "cluster"
    with flink_cluster(cluster, 3) as port, pool() as pool_port:
        runner = (
            "runner.kind=flink",
            f"runner.options.master=localhost:{port}",
            "runner.options.environment_type=EXTERNAL",
            f"runner.options.environment_config=localhost:{pool_port}",
        )
        work = tmp_path / "prepare" / "_work"
        with biloom.start(*settings(tiny, tmp_path, *runner)) as driver:
            wait_until(lambda: len([*work.glob("*/units/[0-9]*.json")]) > 2, 200)
            os.kill(int((cluster / "taskmanager-3.pid").read_text()), signal.SIGKILL)
            _, err = driver.communicate(timeout=400)
    assert (driver.returncode, err) == (0, "")
    assert content(tmp_path) == alone


# Failures with a message


def test_a_worker_that_dies_when_it_starts_ends_the_job_by_the_stall_limit(
    tiny: Tiny, tmp_path: Path, biloom: Command, job_service: int
) -> None:
    with pool(fake_python(tmp_path / "bin", "exit 1")) as port:
        runner = (*portable(job_service, port), "runner.stall_seconds=3")
        began = time.monotonic()
        answer = biloom.run(*settings(tiny, tmp_path, *runner))
    assert answer.returncode == 3
    assert answer.stderr.startswith("biloom: no progress for 0:0")
    assert f"Read the log of the worker pool (localhost:{port}), whose `python` " in answer.stderr
    assert " needs apache_beam and biloom 0." in answer.stderr
    assert time.monotonic() - began < 40


def test_a_worker_without_biloom_is_reported(
    tiny: Tiny, tmp_path: Path, biloom: Command, job_service: int
) -> None:
    site = sysconfig.get_paths()["purelib"]
    # Without the import hooks of an editable installation of biloom.
    path = f"import sys; sys.path.append('{site}')"
    script = f'shift\nexec {sys.executable} -I -S -c "{path}\n$1"'
    with pool(fake_python(tmp_path / "bin", script)) as port:
        answer = biloom.run(*settings(tiny, tmp_path, *portable(job_service, port)))
    assert answer.returncode == 2
    assert answer.stderr.startswith("biloom: a worker cannot import biloom (ModuleNotFoundError: ")
    assert answer.stderr.endswith(" with the extra 'beam' in the workers' Python\n")


def test_a_worker_with_another_biloom_is_reported_with_both_versions(
    tiny: Tiny, tmp_path: Path, biloom: Command, job_service: int
) -> None:
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / "other" / name)
    shutil.copy(ROOT / "_biloom.py", tmp_path / "other")
    with (tmp_path / "other" / "preprocess" / "errors.py").open("a") as file:
        file.write("\n# Another version.\n")
    with pool(PYTHONPATH=str(tmp_path / "other")) as port:
        answer = biloom.run(*settings(tiny, tmp_path, *portable(job_service, port)))
    assert answer.returncode == 2
    assert answer.stderr.startswith("biloom: a worker runs biloom ")
    assert answer.stderr.count("(source ") == 2
    assert answer.stderr.endswith("; install the same versions on every worker\n")


def test_an_address_without_a_worker_pool_is_reported(
    tiny: Tiny, tmp_path: Path, biloom: Command, job_service: int
) -> None:
    port = free_port()
    answer = biloom.run(*settings(tiny, tmp_path, *portable(job_service, port)))
    assert answer.returncode == 3
    assert answer.stderr.startswith("biloom: the engine could not run the job (details = ")
    assert f"Read the log of the worker pool (localhost:{port})" in answer.stderr


@pytest.mark.parametrize(
    "runner",
    [
        ("runner.options.mode=multi_threading", "runner.options.workers=2"),
        pytest.param(("runner.kind=dask",), marks=pytest.mark.slow),
        pytest.param(("runner.kind=flink",), marks=[flink, pytest.mark.slow]),
    ],
    ids=lambda runner: runner[0],
)
def test_a_damaged_file_is_one_message_and_no_traceback_on_any_engine(
    runner: tuple[str, ...], tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(bytes.fromhex("1f8b0800"))
    answer = biloom.run(*settings(tiny, tmp_path, f"prepare.input={cut}", *runner))
    assert (answer.returncode, answer.stderr.count("\n")) == (2, 1)
    assert answer.stderr.startswith(f"biloom: {cut}: this compressed file ")


# Signals


@dataclass(frozen=True)
class Long:
    """Text that takes an engine some seconds, in many units, and the content hash of its corpus."""

    text: Path
    content: str

    def arguments(self, tiny: Tiny, output: Path, *overrides: str) -> list[str]:
        units = ("prepare.unit_bytes=50000", f"prepare.input={self.text}")
        return ["prepare", *tiny.arguments(output, *units, *overrides)]


@pytest.fixture(scope="session")
def long(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory, biloom: Command) -> Long:
    output = tmp_path_factory.mktemp("long")
    lines = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines()
    text = output / "long.txt"
    with text.open("w", encoding="utf-8") as file:
        file.writelines(f"{line} {number}\n" for number in range(100) for line in lines)
    made = Long(text, "")
    answer = biloom.run(*made.arguments(tiny, output, "runner.options.mode=in_memory"))
    assert (answer.returncode, answer.stderr) == (0, "")
    return Long(text, content(output))


def assert_stopped(
    driver: Any, number: int, output: Path, seconds: float, group: bool = False
) -> None:
    """Send a signal in the first pass, and assert that nothing of the job is left."""
    work = output / "prepare" / "_work"
    wait_until(lambda: len([*work.glob("*/units/[0-9]*.json")]) > 1, 120)
    started = driver.descendants()
    (os.killpg if group else os.kill)(driver.pid, number)
    _, err = driver.communicate(timeout=seconds)
    assert (driver.returncode, err) == (exit_code(number), STOPPED)
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in started), 10)
    assert not (work / "lock.json").exists()
    time.sleep(1)  # a unit that was running may finish
    units = sorted(work.glob("*/units/[0-9]*.json"))
    time.sleep(1)
    assert sorted(work.glob("*/units/[0-9]*.json")) == units, "the job continues"


@pytest.mark.parametrize(
    ("runner", "number"),
    [
        ("runner.options.mode=in_memory", signal.SIGTERM),
        ("runner.options.mode=in_memory", signal.SIGHUP),
        ("runner.options.mode=multi_threading", signal.SIGTERM),
        ("runner.options.mode=multi_processing", signal.SIGTERM),
        ("runner.options.mode=multi_processing", signal.SIGHUP),
        pytest.param("runner.kind=dask", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("runner.kind=dask", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("runner.kind=flink", signal.SIGINT, marks=[flink, pytest.mark.slow]),
        pytest.param("runner.kind=flink", signal.SIGTERM, marks=[flink, pytest.mark.slow]),
        pytest.param("runner.kind=flink", signal.SIGHUP, marks=[flink, pytest.mark.slow]),
    ],
)
def test_a_signal_ends_the_engine_and_another_engine_resumes_the_work(
    runner: str,
    number: int,
    tiny: Tiny,
    long: Long,
    tmp_path: Path,
    biloom: Command,
) -> None:
    arguments = long.arguments(tiny, tmp_path, runner)
    with biloom.start(*arguments, process_group=0) as driver:
        # Ctrl-C reaches the whole process group.
        assert_stopped(driver, number, tmp_path, 60, group=number == signal.SIGINT)
    assert biloom.run(*long.arguments(tiny, tmp_path)).returncode == 0
    assert content(tmp_path) == long.content


@pytest.mark.slow
def test_a_job_service_that_cannot_cancel_a_job_works_on_none_of_its_units(
    tiny: Tiny, long: Long, tmp_path: Path, biloom: Command, job_service: int
) -> None:
    with pool() as port:
        arguments = long.arguments(tiny, tmp_path, *portable(job_service, port))
        with biloom.start(*arguments) as driver:
            assert_stopped(driver, signal.SIGTERM, tmp_path, 60)
        assert biloom.run(*long.arguments(tiny, tmp_path)).returncode == 0
    assert content(tmp_path) == long.content


@flink
@pytest.mark.slow
def test_the_job_server_of_a_killed_driver_ends_with_it(
    tiny: Tiny, long: Long, tmp_path: Path, biloom: Command
) -> None:
    with biloom.start(*long.arguments(tiny, tmp_path, "runner.kind=flink")) as driver:
        wait_until(lambda: any(tmp_path.glob("prepare/_work/*/units/[0-9]*.json")), 120)
        started = driver.descendants()
        driver.kill()
    assert started
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in started), 10)


@flink
@pytest.mark.slow
def test_a_killed_job_server_is_one_message_and_the_work_resumes(
    tiny: Tiny, long: Long, tmp_path: Path, biloom: Command
) -> None:
    with biloom.start(*long.arguments(tiny, tmp_path, "runner.kind=flink")) as driver:
        wait_until(lambda: any(tmp_path.glob("prepare/_work/*/units/[0-9]*.json")), 120)
        started = driver.descendants()
        for process in started:
            os.kill(process, signal.SIGKILL)
        _, err = driver.communicate(timeout=60)
    assert (driver.returncode, err.count("\n")) == (3, 1), err
    assert err.startswith("biloom: the engine could not run the job (")
    assert not (tmp_path / "prepare" / "_work" / "lock.json").exists()
    assert biloom.run(*long.arguments(tiny, tmp_path)).returncode == 0
    assert content(tmp_path) == long.content


@flink
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job_on_a_flink_cluster(
    number: int, tiny: Tiny, long: Long, tmp_path: Path, biloom: Command
) -> None:
    with flink_cluster(tmp_path / "cluster", 1) as port, pool() as pool_port:
        runner = (
            "runner.kind=flink",
            f"runner.options.master=localhost:{port}",
            "runner.options.environment_type=EXTERNAL",
            f"runner.options.environment_config=localhost:{pool_port}",
        )
        arguments = long.arguments(tiny, tmp_path, *runner)
        with biloom.start(*arguments, process_group=0) as driver:
            assert_stopped(driver, number, tmp_path, 60, group=True)
        with urllib.request.urlopen(f"http://localhost:{port}/jobs/overview") as answer:
            (job,) = json.load(answer)["jobs"]
    assert job["state"] == "CANCELED"
    assert job["name"].startswith("biloom-")
    assert biloom.run(*long.arguments(tiny, tmp_path)).returncode == 0
    assert content(tmp_path) == long.content
