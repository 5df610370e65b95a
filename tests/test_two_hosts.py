"""Two hosts and a store, each in a network namespace, with a cable that is cut for 20 seconds."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from preprocess.files.manifest import read_manifest

pytestmark = pytest.mark.slow

Tiny, Command = Any, Any  # of conftest.py
ROOT = Path(__file__).parents[1]
CUT_SECONDS = 20.0
ADDRESSES = {"one": "10.77.0.1", "two": "10.77.0.2", "store": "10.77.0.3"}
SPEED = ("tokens_per_second", "mfu", "data_wait")
# Waits until the unfinished work of a stage has two units.
WAIT = """
import sys
import time
from preprocess.files import storage

work = f"{sys.argv[1]}/_work"
while sum(len(storage.list_names(f"{work}/{one}/units")) for one in storage.list_folders(work)) < 2:
    time.sleep(0.05)
"""
# Waits until both workers are connected to the scheduler.
WAIT_FOR_WORKERS = """
import sys
import time
from distributed import Client

end = time.monotonic() + 120
while True:
    try:
        Client(sys.argv[1], timeout=5).wait_for_workers(2, timeout=end - time.monotonic())
        break
    except OSError:
        if time.monotonic() > end:
            raise
"""
MAKE_BUCKET = "import sys, s3fs; s3fs.S3FileSystem().mkdir(sys.argv[1])"
CONTENT = """
import sys
from preprocess.files.manifest import check_files, read_manifest

manifest = read_manifest(sys.argv[1], "prepare")
assert check_files(sys.argv[1], manifest) == []
print(manifest.content)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Hosts:
    """Hosts ``one``, ``two`` and ``store``, connected to one switch.

    Args:
        prefix: start of the names of their network namespaces.
    """

    prefix: str

    def before(self, host: str) -> tuple[str, ...]:
        """Return a command that runs another on a host."""
        name = ("unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh")
        return ("ip", "netns", "exec", f"{self.prefix}-{host}", *name)

    def connect(self) -> None:
        switch = f"{self.prefix}-switch"
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host, address in ADDRESSES.items():
            name = f"{self.prefix}-{host}"
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0")
            ip("-n", switch, "link", "set", "eth0", "netns", name)
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", switch, "link", "set", host, "master", "bridge", "up")

    def remove(self) -> None:
        for name in ("switch", *ADDRESSES):
            command = ["ip", "netns", "delete", f"{self.prefix}-{name}"]
            subprocess.run(command, check=False, capture_output=True)

    def cut(self, host: str) -> None:
        """Pull the cable of a host for `CUT_SECONDS`."""
        switch = f"{self.prefix}-switch"
        ip("-n", switch, "link", "set", host, "down")
        time.sleep(CUT_SECONDS)
        ip("-n", switch, "link", "set", host, "up")

    def start(self, host: str, *command: object, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.before(host), *map(str, command)],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "eth0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def run(self, host: str, *command: object, **environment: str) -> str:
        """Run a command on a host, and return what it prints."""
        process = self.start(host, *command, **environment)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return out


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("network namespaces need root, iproute2 and util-linux")
    made = Hosts(f"biloom-{uuid.uuid4().hex[:6]}")
    try:
        try:
            made.connect()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield made
    finally:
        made.remove()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(reached: Callable[[], bool], *processes: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 240
    while not reached():
        assert all(one.poll() is None for one in processes), [
            one.communicate(timeout=60) for one in processes
        ]
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.02)


# Training

TRAINING = ("train.rows=4", "train.steps=60", "train.checkpoint_steps=5", "train.evaluate_steps=60")


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = (output / "train" / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in SPEED} for line in lines]


@pytest.fixture(scope="module")
def alone(tiny: Tiny, biloom: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in two processes of one host."""
    output = tmp_path_factory.mktemp("alone")
    answer = biloom.run("train", *tiny.arguments(output, *TRAINING, "train.devices=2"))
    assert (answer.returncode, answer.stderr) == (0, "")
    return output


def start_training(hosts: Hosts, tiny: Tiny, output: Path) -> list["subprocess.Popen[str]"]:
    shape = (*TRAINING, "train.devices=1", "train.num_nodes=2")
    port = free_port()
    meet = ("--nnodes=2", "--nproc-per-node=1", f"--master-addr={ADDRESSES['one']}")
    log = f"--log-dir={output / 'torchrun'}"
    torchrun = (sys.executable, "-m", "torch.distributed.run", *meet, f"--master-port={port}", log)
    return [
        hosts.start(
            host,
            *(*torchrun, f"--node-rank={rank}", "-m", "pipeline.cli", "train"),
            *tiny.arguments(output, *shape),
        )
        for rank, host in enumerate(("one", "two"))
    ]


def test_two_hosts_train_like_two_processes_of_one(
    hosts: Hosts, tiny: Tiny, alone: Path, tmp_path: Path
) -> None:
    processes = start_training(hosts, tiny, tmp_path)
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert metrics(tmp_path) == metrics(alone)
    one, two = (read_manifest(str(output / "train"), "train") for output in (alone, tmp_path))
    assert one.content == two.content


@pytest.mark.parametrize("host", ["one", "two"])
def test_a_training_continues_after_its_link_was_cut(
    host: str, hosts: Hosts, tiny: Tiny, alone: Path, tmp_path: Path
) -> None:
    processes = start_training(hosts, tiny, tmp_path)
    wait_until(lambda: any(tmp_path.glob("train/_work/*/step-*.ckpt")), *processes)
    hosts.cut(host)
    assert [process.poll() for process in processes] == [None, None], "it waits"
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert metrics(tmp_path) == metrics(alone)


# The corpus, on the workers of a Dask cluster


@pytest.fixture(scope="module")
def store(
    hosts: Hosts, start_seaweedfs: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of processes that use the store."""
    pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("store")
    server = start_seaweedfs(folder, host=ADDRESSES["store"], before=hosts.before("store"))
    environment = {
        "FSSPEC_S3_ENDPOINT_URL": server.address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    hosts.run("one", sys.executable, "-c", MAKE_BUCKET, "corpora", **environment)
    return environment


@contextmanager
def cluster(hosts: Hosts, environment: dict[str, str], log: Path) -> Iterator[str]:
    """Run a Dask cluster with a worker on each host, and yield the address of its scheduler.

    The scheduler and the workers write to log.
    """
    address = f"tcp://{ADDRESSES['one']}:8786"
    module = (sys.executable, "-P", "-m")
    scheduler = (*module, "distributed.cli.dask_scheduler", f"--host={address}")
    worker = (*module, "distributed.cli.dask_worker", address, "--nthreads=1", "--no-nanny")
    with ExitStack() as stack:
        told = stack.enter_context(log.open("wb"))
        for host, command in (("one", scheduler), ("one", worker), ("two", worker)):
            process = subprocess.Popen(
                [*hosts.before(host), *command, "--no-dashboard"],
                env={**os.environ, **environment},
                stdout=told,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        waiting = hosts.start("one", sys.executable, "-c", WAIT_FOR_WORKERS, address)
        _, err = waiting.communicate(timeout=240)
        assert waiting.returncode == 0, err + log.read_text()
        yield address


@pytest.mark.parametrize("cut", ["", "one", "two", "store"])
def test_two_hosts_prepare_the_corpus_of_one_on_a_store(
    cut: str, hosts: Hosts, store: dict[str, str], tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    """With the link of a host or of the store cut in the middle, too."""
    output = f"s3://corpora/{cut or 'whole'}"
    small = ("prepare.unit_bytes=1024", "prepare.part_tokens=150", "prepare.shard_tokens=150")
    answer = biloom.run("prepare", *tiny.arguments(tmp_path, *small))
    assert (answer.returncode, answer.stderr) == (0, "")
    log = tmp_path / "cluster.log"
    with cluster(hosts, store, log) as address:
        runner = ("runner.kind=dask", f"runner.options.scheduler={address}")
        arguments = tiny.arguments(tmp_path, *small, *runner, f"run.output={output}")
        driver = hosts.start("one", biloom.script, "prepare", *arguments, **store)
        if cut:
            work = (sys.executable, "-c", WAIT, f"{output}/prepare")
            waiting = hosts.start("store", *work, **store)
            wait_until(lambda: waiting.poll() is not None, driver)
            _, err = waiting.communicate(timeout=60)
            assert waiting.returncode == 0, err
            assert driver.poll() is None
            hosts.cut(cut)
        _, err = driver.communicate(timeout=300)
        assert "Traceback" not in err
        if driver.returncode:
            assert cut, err + log.read_text()
            assert err.startswith("biloom: ")
            hosts.run("one", biloom.script, "prepare", *arguments, **store)
    content = hosts.run("store", sys.executable, "-c", CONTENT, f"{output}/prepare", **store)
    assert content.strip() == read_manifest(str(tmp_path / "prepare"), "prepare").content
