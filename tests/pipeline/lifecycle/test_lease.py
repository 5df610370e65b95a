"""A lease is renewed while its process runs; once lost, nothing more is written."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.console import Console
from pipeline.lifecycle import lease as leases
from pipeline.lifecycle.lease import Lease, LeaseLost
from pipeline.lifecycle.lock import lock
from preprocess.errors import UserError
from preprocess.files import exclusive, processes, storage
from preprocess.files.errors import StoreError
from preprocess.work.aside import move_aside

BEAT = 0.05


class Clock:
    """The clock of a process that can be suspended."""

    def __init__(self) -> None:
        self.suspended = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.suspended


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "_clock", clock)
    return clock


@pytest.fixture(params=["local", "memory"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setattr(exclusive, "SETTLE_SECONDS", 0.01)
    yield str(tmp_path / "stage") if request.param == "local" else "memory://leased/stage"
    storage.remove_tree("memory://leased")


def lock_file(folder: str) -> str:
    return storage.join(folder, "_work", "lock.json")


def held(folder: str) -> Any:
    return lock(folder, lock_file(folder), Console())


def read(folder: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(storage.read_bytes(lock_file(folder)))
    return record


def put(folder: str, content: bytes | None) -> None:
    """Change the lock file as another process does."""
    target = lock_file(folder)
    if storage.is_remote(target):
        fs, inner = storage.open_remote(target)
        fs.rm_file(inner) if content is None else fs.pipe_file(inner, content)
    elif content is None:
        Path(target).unlink()
    else:
        Path(target).write_bytes(content)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


OTHER = b'{"holder": "other", "host": "elsewhere", "process": 7, "began": "1", "place": "there"}'
WHY = {
    OTHER: r"process 7 on elsewhere has taken it over",
    b"{": "an unknown process has taken it over",
    None: "its lock file is gone",
}


def test_the_lock_file_names_its_holder_and_is_renewed(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", BEAT)
    with held(folder):
        first = read(folder)
        me = processes.this_process()
        assert first == {"holder": first["holder"], **me._asdict(), "beat": first["beat"]}
        wait_until(lambda: read(folder)["beat"] > first["beat"] + 2)
        assert read(folder) | {"beat": 0} == first | {"beat": 0}
    with held(folder):
        assert read(folder)["holder"] != first["holder"]


def test_a_held_lease_passes_every_check(folder: str) -> None:
    with held(folder) as lease:
        for _ in range(2):
            lease.check()
            storage.write_bytes(storage.join(folder, "a"), b"a")


@pytest.mark.parametrize("content", WHY)
def test_a_lost_lease_fails_the_next_check(folder: str, content: bytes | None) -> None:
    def work() -> None:
        with held(folder) as lease:
            put(folder, content)
            for _ in range(2):
                with pytest.raises(LeaseLost, match=WHY[content]):
                    lease.check()
            lease.check()

    with pytest.raises(LeaseLost) as caught:
        work()
    assert isinstance(caught.value, UserError)
    assert str(caught.value).startswith(
        f"{folder}: this process no longer holds the lock of the folder ("
    )
    assert str(caught.value).endswith(
        "), so it writes nothing more there; usually it was suspended, or could not reach the lock "
        "file, for more than 60 s; run the same command to resume or to see the result"
    )
    if content:
        assert storage.read_bytes(lock_file(folder)) == content, "the lock of another is kept"


def test_a_lost_lease_stops_every_write_in_its_folder_and_no_other(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", BEAT)
    path = storage.join(folder, "_work", "checkpoint")
    with held(folder) as lease:
        storage.write_bytes(path, b"mine")
        put(folder, OTHER)
        wait_until(lambda: bool(lease._lost_to))
        with pytest.raises(LeaseLost):
            storage.write_bytes(path, b"late")
        storage.write_bytes(f"{folder}-other", b"free")
    assert storage.read_bytes(path) == b"mine"
    storage.write_bytes(path, b"unlocked")


def test_a_write_after_a_suspension_finds_that_the_lease_is_lost(folder: str, clock: Clock) -> None:
    """The heartbeat has not run since."""
    path = storage.join(folder, "data")
    with held(folder):
        put(folder, OTHER)
        clock.suspended = 61
        with pytest.raises(LeaseLost):
            storage.write_bytes(path, b"late")
        assert storage.read_bytes(lock_file(folder)) == OTHER
    assert not storage.exists(path)


def test_a_lease_that_nobody_took_is_renewed_after_a_suspension(folder: str, clock: Clock) -> None:
    with held(folder) as lease:
        before = read(folder)
        clock.suspended = 3600
        lease.check()
        assert read(folder)["beat"] == before["beat"] + 1
        assert clock() - lease._renewed_at < 60


def test_an_error_of_the_store_is_fatal_only_after_the_silence(
    folder: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreError("the store is away")

    with held(folder) as lease:
        with monkeypatch.context() as patched:
            patched.setattr(leases, "update_exclusive", fail)
            patched.setattr(leases, "read_lock", fail)
            for clock.suspended in (0, 59):
                lease.check()
            clock.suspended = 61
            with pytest.raises(LeaseLost, match=r"\(not renewed for 61 s: the store is away\)"):
                lease.check()
        lease.check()


def test_the_heartbeat_needs_no_room_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = str(tmp_path)
    with held(folder) as lease:
        size = Path(lock_file(folder)).stat().st_size
        monkeypatch.setattr(exclusive, "temporary_name", full)
        for _ in range(12):
            lease._renew()
        assert read(folder)["beat"] == 12
        assert Path(lock_file(folder)).stat().st_size == size


def test_the_heartbeat_survives_errors(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", BEAT)
    update = exclusive.update_exclusive
    errors = iter([StoreError("away"), OSError("away"), RuntimeError("a client's own")])

    def fail(*arguments: Any, **options: Any) -> bool:
        if error := next(errors, None):
            raise error
        return update(*arguments, **options)

    monkeypatch.setattr(leases, "update_exclusive", fail)
    with held(folder):
        wait_until(lambda: read(folder)["beat"] > 3)


def test_an_error_while_releasing_is_reported_and_hides_no_other(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the store is away")

    monkeypatch.setattr(leases, "remove_exclusive", fail)
    printed = StringIO()
    console = Console(RichConsole(file=printed, width=1000))
    with (
        pytest.raises(RuntimeError, match="of the stage"),
        lock(folder, lock_file(folder), console),
    ):
        raise RuntimeError("of the stage")
    assert f"could not remove the lock file {lock_file(folder)} (the store is away)" in (
        printed.getvalue()
    )


@pytest.mark.parametrize(("error", "told"), [(RuntimeError, LeaseLost), (StoreError, StoreError)])
def test_a_failure_after_the_lease_was_lost_is_reported_as_its_consequence(
    folder: str, error: type[Exception], told: type[Exception]
) -> None:
    def fail(lost: bool) -> None:
        with held(folder):
            if lost:
                put(folder, OTHER)
            raise error("no such file")

    with pytest.raises(error, match="no such file"):
        fail(lost=False)
    with pytest.raises(told):
        fail(lost=True)


def test_a_folder_that_was_moved_aside_is_not_created_again(folder: str) -> None:
    with held(folder):
        storage.write_bytes(storage.join(folder, "data"), b"old")
        move_aside(folder)
    assert not storage.exists(folder)


def test_a_forked_process_neither_checks_nor_releases(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with held(folder) as lease:
        child = os.fork()
        if not child:
            lease._lost_to = "another"
            lease.check()
            storage.write_bytes(str(tmp_path / "child"), b"written")
            lease.release(Console())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert (tmp_path / "child").exists()
        lease.check()


def test_the_heartbeat_does_not_keep_the_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.console import Console; from pipeline.lifecycle.lock import lock\n"
        "held = lock(sys.argv[1], sys.argv[1] + '/lock.json', Console()); held.__enter__()\n"
    )
    run = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(run, check=True, timeout=60, cwd=Path(__file__).parents[3])


def test_the_heartbeat_ends_with_the_block(folder: str) -> None:
    with held(folder):
        assert "biloom-lease" in {thread.name for thread in threading.enumerate()}
    assert "biloom-lease" not in {thread.name for thread in threading.enumerate()}


def test_a_lease_that_was_never_created_removes_nothing(folder: str) -> None:
    lease = Lease(folder, lock_file(folder))
    storage.write_bytes(lock_file(folder), lease._content())
    lease.release(Console())
    assert storage.exists(lock_file(folder))
