"""Files that several processes write by turns, on disks and stores with and without help."""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import exclusive, processes, storage
from preprocess.files.exclusive import (
    GUARD,
    create_exclusive,
    one_at_a_time,
    remove_exclusive,
    update_exclusive,
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "SETTLE_SECONDS", 0.05)


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def fail_with(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Return the results of ``work`` in threads that begin together."""
    begin = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        begin.wait()
        results[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Creating


def test_only_the_first_writer_creates_a_file(folder: str) -> None:
    path = storage.join(folder, "lock")
    assert create_exclusive(path, b"first")
    assert not create_exclusive(path, b"second")
    assert storage.read_bytes(path) == b"first"


@pytest.mark.parametrize("error", [None, errno.EPERM, errno.EOPNOTSUPP])
def test_one_of_many_creates_a_file_with_or_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    if error:
        monkeypatch.setattr(os, "link", fail_with(error))
    created = at_once(8, lambda n: create_exclusive(str(tmp_path / "lock"), str(n).encode()))
    assert sum(created) == 1
    assert (tmp_path / "lock").read_bytes() == str(created.index(True)).encode()
    assert names(tmp_path) == ["lock"]


def test_a_link_that_the_file_system_made_twice_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def repeated(*names: Path) -> None:
        link(*names)
        link(*names)

    monkeypatch.setattr(os, "link", repeated)
    assert create_exclusive(str(tmp_path / "lock"), b"mine")


# Changing


def test_a_file_changes_only_if_it_is_as_expected(folder: str) -> None:
    path = storage.join(folder, "lock")
    assert not update_exclusive(path, lambda old: b"new")
    assert not storage.exists(path)
    create_exclusive(path, b"old")
    assert not update_exclusive(path, lambda old: b"new" if old == b"other" else None)
    assert storage.read_bytes(path) == b"old"
    assert update_exclusive(path, lambda old: b"new" if old == b"old" else None)
    assert storage.read_bytes(path) == b"new"
    assert storage.list_names(folder) == ["lock"]


def test_a_file_can_be_changed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    create_exclusive(str(path), b"old")
    inode = path.stat().st_ino
    assert update_exclusive(str(path), lambda old: b"new", in_place=True)
    assert (path.read_bytes(), path.stat().st_ino) == (b"new", inode)
    assert update_exclusive(str(path), lambda old: b"replaced")
    assert path.stat().st_ino != inode


@pytest.mark.parametrize("flock", ["present", "missing"])
def test_one_of_many_changes_a_file(
    tmp_path: Path, request: pytest.FixtureRequest, flock: str
) -> None:
    if flock == "missing":
        request.getfixturevalue("no_flock")
    path = str(tmp_path / "lock")
    create_exclusive(path, b"old")

    def take(number: int) -> bool:
        mine = str(number).encode()
        return update_exclusive(path, lambda old: mine if old == b"old" else None)

    took = at_once(8, take)
    assert sum(took) == 1
    assert storage.read_bytes(path) == str(took.index(True)).encode()
    assert names(tmp_path) == ["lock"]


def test_the_last_of_two_writers_wins_on_a_store_without_conditions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = "memory://exclusive/lock"
    storage.write_bytes(path, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", lambda seconds: storage.write_bytes(path, b"other"))
        assert not update_exclusive(path, lambda old: b"mine")
    assert update_exclusive(path, lambda old: b"mine")


# Removing


def test_only_the_own_file_is_removed(folder: str) -> None:
    path = storage.join(folder, "lock")
    remove_exclusive(path, lambda content: True)
    create_exclusive(path, b"mine")
    remove_exclusive(path, lambda content: content == b"other")
    assert storage.read_bytes(path) == b"mine"
    remove_exclusive(path, lambda content: content == b"mine")
    assert not storage.exists(path)


# One at a time


def counted(folder: Path) -> list[int]:
    """Return the numbers of threads in the block at once, as eight threads saw them."""
    inside: list[None] = []

    def work(_: int) -> int:
        with one_at_a_time(str(folder)):
            inside.append(None)
            time.sleep(0.005)
            seen = len(inside)
            inside.pop()
        return seen

    return at_once(8, work)


def test_a_folder_is_locked_by_one_at_a_time(tmp_path: Path) -> None:
    assert counted(tmp_path) == [1] * 8
    with one_at_a_time(str(tmp_path)) as reason:
        assert reason == ""
        assert names(tmp_path) == []


@pytest.mark.usefixtures("no_flock")
def test_a_guard_file_takes_the_place_of_missing_locks(tmp_path: Path) -> None:
    assert counted(tmp_path) == [1] * 8
    with one_at_a_time(str(tmp_path)) as reason:
        assert reason == "No locks available"
        assert names(tmp_path) == [GUARD]
        assert storage.list_names(str(tmp_path)) == []
    assert names(tmp_path) == []


@pytest.mark.usefixtures("no_flock")
def test_the_guard_file_of_a_killed_process_is_removed_after_a_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SILENCE_SECONDS", 0.2)
    (tmp_path / GUARD).write_bytes(b"killed")
    begin = time.monotonic()
    with one_at_a_time(str(tmp_path)):
        assert time.monotonic() - begin > 0.2
    assert names(tmp_path) == []


def test_a_forked_process_does_not_keep_the_folder_locked(tmp_path: Path) -> None:
    with one_at_a_time(str(tmp_path)):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        handle = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_remote_folder_is_not_locked() -> None:
    with one_at_a_time("memory://exclusive/none") as reason:
        assert reason == ""
