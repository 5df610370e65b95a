"""Processes that are killed, suspended, on other hosts or in other containers, locally and on S3."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import storage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

SILENCE = 3.0
# Publishes a line of standard input in the folder, and prints it then.
PROGRAM = f"""\
import sys
from pipeline.console import Console
from pipeline.lifecycle import lease, lock
from preprocess.errors import UserError
from preprocess.files import processes, storage

processes.SILENCE_SECONDS, lease.BEAT_SECONDS, lock.POLL_SECONDS = {SILENCE}, 0.1, 0.05
folder = sys.argv[1]
try:
    with lock.lock(folder, storage.join(folder, "_work", "lock.json"), Console()) as held:
        print("holding", flush=True)
        for line in sys.stdin:
            held.check()
            storage.write_bytes(storage.join(folder, "result"), line.encode())
            print(line, end="", flush=True)
except UserError as error:
    print(error)
    sys.exit(2)
"""
ROOT = Path(__file__).parents[3]


class Holder(subprocess.Popen[str]):
    """A process that wants to write a folder, started by the command ``before``."""

    def __init__(self, folder: str, *before: str) -> None:
        run = [*before, sys.executable, "-c", PROGRAM, folder]
        pipe = subprocess.PIPE
        super().__init__(run, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)

    def read(self) -> str:
        """Return the next line that it prints."""
        assert self.stdout
        return self.stdout.readline().strip()

    def publish(self, text: str) -> None:
        assert self.stdin
        self.stdin.write(f"{text}\n")
        self.stdin.flush()


@dataclass
class Folder:
    """A folder and the processes that want to write it."""

    path: str
    started: list[Holder] = field(default_factory=list)

    @property
    def file(self) -> str:
        return storage.join(self.path, "_work", "lock.json")

    def start(self, *before: str) -> Holder:
        self.started.append(Holder(self.path, *before))
        return self.started[-1]

    def hold(self, *before: str) -> Holder:
        holder = self.start(*before)
        assert holder.read() == "holding"
        return holder

    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(storage.read_bytes(self.file))
        return record

    def assert_taken_at_once(self) -> None:
        later = self.start()
        assert later.read().endswith("which has ended")
        assert later.read() == "holding"

    def assert_taken_after_the_silence(self) -> None:
        begin = time.monotonic()
        later = self.start()
        assert later.read().endswith("which holds the lock, still runs")
        assert later.read().endswith(f"which has not renewed it for {SILENCE:.0f} s")
        assert later.read() == "holding"
        assert time.monotonic() - begin > SILENCE

    def assert_refused(self) -> None:
        out, _ = self.start().communicate(timeout=60)
        assert "is being written by process" in out
        assert self.started[-1].returncode == 2

    def publish(self, holder: Holder, text: str) -> None:
        holder.publish(text)
        assert holder.read() == text
        assert storage.read_bytes(storage.join(self.path, "result")) == f"{text}\n".encode()


STORES = [pytest.param(name, marks=pytest.mark.slow) for name in ("moto", "seaweedfs")]


@pytest.fixture(params=["local", *STORES])
def folder(request: pytest.FixtureRequest, tmp_path: Path, bucket_at: Any) -> Iterator[Folder]:
    with ExitStack() as stack:
        if request.param == "local":
            folder = Folder(str(tmp_path / "stage"))
        else:
            bucket = stack.enter_context(bucket_at(request.getfixturevalue(request.param)))
            folder = Folder(f"{bucket}/stage")
        yield folder
        for holder in folder.started:
            holder.kill()
            holder.communicate()


def container() -> list[str]:
    """Return a command that runs another in a PID namespace under the same host name."""
    return usable("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def other_host() -> list[str]:
    """Return a command that runs another under another host name."""
    return usable("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh")


def usable(*command: str) -> list[str]:
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("creating namespaces is not permitted here")
    return list(command)


def test_the_lock_of_a_killed_process_is_taken_at_once(folder: Folder) -> None:
    holder = folder.hold()
    folder.assert_refused()
    holder.kill()
    holder.wait()
    folder.assert_taken_at_once()


@pytest.mark.parametrize("elsewhere", [container, other_host])
def test_a_lock_elsewhere_is_kept_while_its_holder_runs_and_taken_after_its_silence(
    folder: Folder, elsewhere: Any
) -> None:
    holder = folder.hold(*elsewhere())
    folder.assert_refused()
    folder.publish(holder, "still alone")
    holder.kill()
    holder.wait()
    folder.assert_taken_after_the_silence()


def test_a_container_does_not_steal_the_lock_of_its_host(folder: Folder) -> None:
    holder = folder.hold()
    later = folder.start(*container())
    out, _ = later.communicate(timeout=60)
    assert "is being written by process" in out
    folder.publish(holder, "still alone")


def test_one_of_two_observers_takes_the_lock_of_a_holder_that_is_gone(folder: Folder) -> None:
    holder = folder.hold(*other_host())
    holder.kill()
    holder.wait()
    observers = [folder.start() for _ in range(2)]
    for observer in observers:
        assert "waiting" in observer.read()
    said = [observer.read() for observer in observers]
    winner, loser = sorted(observers, key=lambda one: "took over" not in said[observers.index(one)])
    assert winner.read() == "holding"
    assert "is being written by process" in said[observers.index(loser)]
    assert loser.wait(60) == 2
    folder.publish(winner, "alone")


@pytest.mark.parametrize("finishes", [True, False])
def test_a_suspended_holder_that_lost_its_lease_publishes_nothing(
    folder: Folder, finishes: bool
) -> None:
    suspended = folder.hold(*other_host())
    folder.publish(suspended, "first")
    suspended.send_signal(signal.SIGSTOP)
    later = folder.start()
    assert "waiting" in later.read()
    assert "took over" in later.read()
    assert later.read() == "holding"
    folder.publish(later, "second")
    if finishes:
        later.communicate()
        assert not storage.exists(folder.file)
    suspended.publish("third")
    suspended.send_signal(signal.SIGCONT)
    out, _ = suspended.communicate(timeout=60)
    assert suspended.returncode == 2
    assert out.startswith(f"{folder.path}: this process no longer holds the lock of the folder (")
    assert storage.read_bytes(storage.join(folder.path, "result")) == b"second\n"
    if not finishes:
        folder.publish(later, "fourth")


def test_a_suspended_holder_whose_lease_nobody_took_goes_on(folder: Folder) -> None:
    holder = folder.hold()
    holder.send_signal(signal.SIGSTOP)
    time.sleep(SILENCE + 0.2)
    holder.send_signal(signal.SIGCONT)
    folder.publish(holder, "alone")
