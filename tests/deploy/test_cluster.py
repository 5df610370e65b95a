"""The commands in the header of the compose file, on an engine of its own, while processes are killed.

Run by `make test-deploy`. Versions are those of the job server that BILOOM_FLINK_JOB_SERVER_JAR names. By default the images
are stand-ins (see engine.py): what is tested are the compose file, the script of the workers and biloom. With
BILOOM_DEPLOY_IMAGES, an archive of `docker save` with all images of the compose file, these are tested instead.
"""

import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.engine import Engine, engine, make_images, wait_until, why_not, write_mounts
from tests.deploy.files import COMPOSE_FILE, ROOT, header_commands

pytestmark = pytest.mark.deploy
Command = Any
RUN = "s3://biloom/runs/first"
VERSIONS = {"FLINK_VERSION": "1.19", "FLINK_PATCH": "0", "BEAM_VERSION": "2.62.0"}
IMAGES = os.environ.get("BILOOM_DEPLOY_IMAGES", "")
SMALL = [
    "tokenizer.vocabulary=320",
    "prepare.unit_bytes=1024",
    "prepare.valid_fraction=0.1",
    "model.recurrent.hidden=8",
    "model.recurrent.projection=4",
    "train.rows=4",
    "train.unroll=5",
    "train.steps=40",
    "train.warmup_steps=2",
    "train.log_steps=2",
    "train.checkpoint_steps=10",
    "train.evaluate_steps=20",
    "train.compile=off",
    "train.device=cpu",
    "embed.input=s3://biloom/corpus/0.txt",
]
"""Sizes for a text of half a megabyte. The words of the header stay as they are."""
UNITS = f"""\
import fsspec
print(len(fsspec.filesystem("s3").glob("{RUN}/prepare/_work/*/units/[0-9]*.json")))
"""
FILES = ("prepare", "export", "embed")
"""Stages whose content is compared."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster, and the folder of its compose file, its .env and its text."""

    engine: Engine
    folder: Path
    secret: str

    def compose(self, *words: str, **options: Any) -> str:
        return self.engine.docker("compose", *words, cwd=self.folder, **options)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command of compose; its output is one text."""
        return subprocess.Popen(
            ["docker", "compose", *words],
            cwd=self.folder,
            env=self.engine.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def containers(self, *services: str) -> list[str]:
        return self.compose("ps", "--quiet", *services).split()

    def state(self, container: str) -> Any:
        (found,) = json.loads(self.engine.docker("inspect", container))
        return found

    def units(self) -> int:
        """Return the number of finished units of `prepare`; 0 if the store does not answer."""
        words = ("run", "--rm", "-T", "--entrypoint", "python", "biloom", "-c", UNITS)
        answer = self.compose(*words, check=False).split()
        return int(answer[-1]) if answer else 0

    def kill(self, container: str, command: str) -> None:
        """Kill -9 a process of a worker, and wait until its container is healthy again."""
        before = self.state(container)["RestartCount"]
        found = self.engine.processes(container)
        chosen = [pid for pid, words in found.items() if command in words and "tini" not in words]
        assert len(chosen) == 1, (found, self.state(container)["State"])
        os.kill(chosen[0], signal.SIGKILL)
        wait_until(lambda: self.state(container)["RestartCount"] > before, 60)
        wait_until(lambda: self.state(container)["State"]["Health"]["Status"] == "healthy", 120)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster with two workers, and text on its store."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(COMPOSE_FILE, folder)
    secret = secrets.token_hex(20)
    settings = VERSIONS | {"STORE_ACCESS_KEY": "tester", "STORE_SECRET_KEY": secret}
    example = (ROOT / ".env.example").read_text()
    for name, value in settings.items():
        example = re.sub(rf"^{name}=.*\n", "", example, flags=re.MULTILINE) + f"{name}={value}\n"
    (folder / ".env").write_text(example)
    write_text(folder / "data")
    for path in (folder / "data", *(folder / "data").iterdir()):
        os.chown(path, 1000, 1000)
    with engine(tmp_path_factory.mktemp("docker") / "engine") as own:
        found = Cluster(own, folder, secret)
        if IMAGES:
            own.docker("load", "--input", IMAGES)
        else:
            found = with_stand_ins(found)
        try:
            for words in header("up", "copy"):
                found.compose(*words)
            yield found
        finally:
            (folder / "services.log").write_text(found.compose("logs", check=False))
            found.compose("down", "--volumes", check=False)


def with_stand_ins(cluster: Cluster) -> Cluster:
    """Make images, and return the cluster with the folders that they need mounted."""
    config = ("--profile", "*", "config", "--format", "json")
    services = json.loads(cluster.compose(*config))["services"]
    write_mounts(services, cluster.folder / "mounts.json")
    make_images(cluster.engine, {name: one["image"] for name, one in services.items()})
    files = f"{COMPOSE_FILE.name}:mounts.json"
    return replace(cluster, engine=cluster.engine.with_environment(COMPOSE_FILE=files))


def write_text(folder: Path) -> None:
    """Write half a megabyte of text in ten files, each line a document."""
    folder.mkdir()
    draw = random.Random(5)
    words = [
        "".join(draw.choices("abcdefghijklmnoprstuvwy", k=draw.randint(2, 7))) for _ in range(300)
    ]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    for number in range(10):
        lines = (" ".join(draw.choices(words, weights, k=draw.randint(5, 30))) for _ in range(500))
        (folder / f"{number}.txt").write_text("".join(f"{line}.\n" for line in lines))


def header(first: str, last: str) -> list[list[str]]:
    """Return the words after `docker compose` from the first command with ``first`` to that with ``last``."""
    commands = [words[2:] for words in header_commands() if words[:2] == ["docker", "compose"]]
    begin = next(place for place, words in enumerate(commands) if first in words)
    end = next(place for place, words in enumerate(commands) if place >= begin and last in words)
    return commands[begin : end + 1]


def run_settings() -> list[str]:
    """Return the words after `biloom run` in the header, with `SMALL`."""
    (words,) = (words for words in header("run", "trainer") if "trainer" in words)
    return [*words[words.index("trainer") + 2 :], *SMALL]


@pytest.fixture(scope="module")
def alone(cluster: Cluster, biloom: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on this machine, in one process without Docker."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(cluster.folder / "data", folder / "corpus")
    words = [word.replace("s3://biloom", str(folder)) for word in run_settings()]
    words.remove("/etc/biloom/cluster.yaml")
    answer = biloom.run("run", *words, "runner.options.mode=in_memory", "tracking.wandb=off")
    assert (answer.returncode, answer.stderr) == (0, "")
    return folder / "runs" / "first"


def content(folder: Path, stage: str) -> str:
    return str(json.loads((folder / stage / "manifest.json").read_text())["content"])


def test_prepare_goes_on_while_a_task_manager_a_pool_and_the_store_are_killed(
    cluster: Cluster,
) -> None:
    draw = random.Random(11)
    settings = run_settings()
    cluster.compose("run", "--rm", "-T", "biloom", "tokenizer", *settings)
    with cluster.start("run", "--rm", "-T", "biloom", "prepare", *settings) as prepare:
        seen = 0
        for command in ("TaskManagerRunner", "worker_pool_main", "store"):
            goal = seen + draw.randint(5, 20)
            wait_until(lambda goal=goal: cluster.units() >= goal or ended(prepare), 300)
            assert not ended(prepare), prepare.stdout and prepare.stdout.read()
            if command == "store":
                (store,) = cluster.containers("store")
                cluster.engine.docker("kill", "--signal", "KILL", store)
                time.sleep(10)
                cluster.engine.docker("start", store)
            else:
                cluster.kill(draw.choice(cluster.containers("worker")), command)
            seen = cluster.units()
        output, _ = prepare.communicate(timeout=900)
    assert prepare.returncode == 0, output


def ended(process: "subprocess.Popen[str]") -> bool:
    return process.poll() is not None


def test_the_header_trains_embeds_and_reports_as_on_one_machine(
    cluster: Cluster, alone: Path
) -> None:
    *_, run = header("run", "trainer")
    said = cluster.compose(*run, *SMALL, timeout=1800)
    assert "prepare" in said
    cluster.compose(*header(f"{RUN}/report.html", f"{RUN}/report.html")[0])
    report = cluster.folder / "data" / "report.html"
    assert "<html" in report.read_text(encoding="utf-8")
    assert report.stat().st_uid == 1000
    cluster.compose("run", "--rm", "copy", RUN, "/data/first")
    there = cluster.folder / "data" / "first"
    assert {stage: content(there, stage) for stage in FILES} == {
        stage: content(alone, stage) for stage in FILES
    }
    assert (
        "portable"
        in yaml.safe_load((there / "prepare" / "config.yaml").read_text())["runner"].values()
    )
    for file in there.rglob("*"):
        assert file.is_dir() or cluster.secret.encode() not in file.read_bytes(), file
    # The stand-in for TensorBoard lists files.
    path, found = (
        ("data/runs", "biloom/runs/first") if IMAGES else ("biloom/runs/first", "events.out")
    )
    read = f"import urllib.request as u; print(u.urlopen('http://localhost:6006/{path}').read())"
    assert found in cluster.compose("exec", "-T", "tensorboard", "python", "-c", read)


def test_no_process_is_of_root_and_no_port_is_open_to_others(cluster: Cluster) -> None:
    containers = cluster.containers()
    assert len(containers) == 6
    for container in containers:
        users = cluster.engine.docker("top", container, "-eo", "uid,pid").splitlines()[1:]
        assert users
        assert all(line.split()[0] != "0" for line in users)
        for bindings in cluster.state(container)["NetworkSettings"]["Ports"].values():
            assert all(one["HostIp"] == "127.0.0.1" for one in bindings or ())
    assert cluster.secret not in cluster.compose("logs")


def test_the_store_asks_for_keys_and_hides_what_does_not(cluster: Cluster) -> None:
    probe = """\
import socket, urllib.error, urllib.request
for port in (8080, 8888, 9333, 18080, 18888, 19333):
    with socket.socket() as one:
        assert one.connect_ex(("store", port)), port
try:
    urllib.request.urlopen("http://store:8333/biloom")
except urllib.error.HTTPError as error:
    print(error.code)
"""
    words = ("run", "--rm", "-T", "--entrypoint", "python", "biloom", "-c", probe)
    assert cluster.compose(*words).strip() == "403"


def test_a_result_stays_when_the_cluster_goes_down_and_up(cluster: Cluster) -> None:
    *_, down = header("up", "down")
    cluster.compose(*down)
    cluster.compose(*header("up", "up")[0])
    said = cluster.compose("run", "--rm", "-T", "biloom", "status", RUN)
    assert "done" in said
