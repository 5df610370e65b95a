"""Local copies of remote files: size limit, checks, sharing between processes and removal."""

import errno
import mmap
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import xxhash

from preprocess.files import local_copies, storage
from preprocess.files.errors import StorageError, StoreError
from preprocess.files.local_copies import DamagedCopy, LocalCopies
from preprocess.files.manifest import FileRecord

STORE = "memory://copied"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder for copies instead of the machine's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"biloom-shards-{os.getuid()}"


@pytest.fixture
def copies(folder: Path) -> Iterator[LocalCopies]:
    made = LocalCopies(25)
    yield made
    made.close()
    assert not folder.exists(), "the last user removes it"


def put(name: str, size: int = 10) -> tuple[str, FileRecord]:
    path, data = f"{STORE}/{name}", (name * size)[:size].encode()
    storage.write_bytes(path, data)
    return path, FileRecord(name, size, xxhash.xxh3_128_hexdigest(data))


def read(copies: LocalCopies, file: tuple[str, FileRecord]) -> bytes:
    with copies.open(*file) as opened:
        return opened.read()


def held(folder: Path) -> set[str]:
    return {path.name for path in (folder / "files").iterdir()}


def test_a_file_is_fetched_once_and_whole(
    copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_copies, "AT_ONCE", 4)
    file = put("a")
    assert read(copies, file) == b"a" * 10
    storage.remove(file[0])
    assert read(copies, file) == b"a" * 10


def test_least_recently_used_copies_are_evicted_first(copies: LocalCopies, folder: Path) -> None:
    files = [put(name) for name in "abcd"]
    for number in (0, 1, 0, 2):
        read(copies, files[number])
    assert held(folder) == {files[0][1].xxh128, files[2][1].xxh128}
    read(copies, files[3])
    assert held(folder) == {files[2][1].xxh128, files[3][1].xxh128}


def test_a_copy_larger_than_the_limit_is_kept_while_it_is_used(
    copies: LocalCopies, folder: Path
) -> None:
    large, small = put("large", 100), put("small")
    with copies.open(*large) as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert held(folder) == {large[1].xxh128}
    assert read(copies, small) == b"smallsmall"
    assert held(folder) == {small[1].xxh128}
    assert mapped[:5] == b"large", "a mapped copy stays readable"
    mapped.close()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"aaaaaaaaab", r"hash [0-9a-f]{32}, not [0-9a-f]{32}"),
        (b"aaa", "3 bytes, not 10"),
        (b"aaaaaaaa", "8 bytes, not 10"),
    ],
)
def test_a_file_that_differs_from_its_record_is_refused_and_not_kept(
    copies: LocalCopies, folder: Path, monkeypatch: pytest.MonkeyPatch, stored: bytes, message: str
) -> None:
    monkeypatch.setattr(local_copies, "AT_ONCE", 4)
    file = put("a")
    storage.write_bytes(file[0], stored)
    with pytest.raises(DamagedCopy, match=f"^{message}$"):
        copies.open(*file)
    assert held(folder) == set()
    put("a")
    assert read(copies, file) == b"a" * 10


def test_a_missing_remote_file_raises(copies: LocalCopies) -> None:
    file = put("a")
    storage.remove(file[0])
    with pytest.raises(FileNotFoundError):
        copies.open(*file)


def test_a_truncated_copy_is_fetched_again(copies: LocalCopies, folder: Path) -> None:
    file = put("a")
    read(copies, file)
    (folder / "files" / file[1].xxh128).write_bytes(b"aa")
    assert read(copies, file) == b"a" * 10


def test_a_full_disk_is_reported(
    copies: LocalCopies, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: IO[bytes]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = put("a")
    monkeypatch.setattr(storage, "sync_data", full)
    message = (
        f"{folder}: no space for a copy of {file[0]} (No space left on device); free some, set "
        "TMPDIR to a larger disk, or lower train.cache_bytes"
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        copies.open(*file)
    assert held(folder) == set()


def test_a_store_that_fails_is_not_a_full_disk(
    copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise StoreError("the store gave an error") from OSError(5, "broken")

    file = put("a")
    monkeypatch.setattr(storage, "read_bytes", fail)
    with pytest.raises(StoreError, match="the store gave an error"):
        copies.open(*file)


def test_a_file_wanted_by_two_is_fetched_by_one(
    copies: LocalCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    fetch = storage.read_bytes

    def slow(path: str, *bounds: int) -> bytes:
        fetched.append(path)
        time.sleep(0.2)
        return fetch(path, *bounds)

    monkeypatch.setattr(storage, "read_bytes", slow)
    file = put("a")
    other = LocalCopies(25)
    threads = [threading.Thread(target=read, args=(one, file)) for one in (copies, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert fetched == [file[0]]


def test_a_forked_process_does_not_remove_the_folder(
    copies: LocalCopies, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        copies.close()
    assert folder.exists()


def test_the_last_user_removes_the_folder(folder: Path) -> None:
    copies, other = LocalCopies(25), LocalCopies(25)
    file = put("a")
    read(copies, file)
    copies.close()
    storage.remove(file[0])
    assert read(other, file) == b"a" * 10
    again = LocalCopies(25)
    other.close()
    assert folder.exists()
    again.close()
    assert not folder.exists()


def test_a_copy_being_fetched_by_another_process_is_not_evicted(
    copies: LocalCopies, folder: Path
) -> None:
    unfinished = folder / "files" / f"{storage.TEMPORARY}elsewhere-1-b"
    unfinished.write_bytes(bytes(20))
    read(copies, put("a"))
    read(copies, put("b"))
    assert len(held(folder)) == 2
    assert unfinished.exists()


def test_pickling_keeps_the_limit(copies: LocalCopies) -> None:
    other = pickle.loads(pickle.dumps(copies))
    assert other.limit == 25
    other.close()


def test_a_folder_of_another_user_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    with pytest.raises(
        StorageError,
        match=rf"biloom-shards-{stranger}: .* another user; set TMPDIR to a folder of your own$",
    ):
        LocalCopies(1)


KILLED = """
import sys, time
from preprocess.files.local_copies import LocalCopies
from preprocess.files.temporary import temporary_name
sys.path.insert(0, {tests!r})
from test_local_copies import put
copies = LocalCopies(25)
copies.open(*put("a")).close()
temporary_name(copies._files / "b").write_bytes(b"half")
print("ready", flush=True)
time.sleep(60)
"""


def test_copies_of_a_killed_process_are_used_and_then_removed(folder: Path) -> None:
    program = KILLED.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={"TMPDIR": str(folder.parent), "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
        file = put("a")
        storage.remove(file[0])
        beside = LocalCopies(25)
        beside.close()
        assert len(held(folder)) == 2, "another process uses the folder"
        process.send_signal(signal.SIGKILL)
        process.wait()
    after = LocalCopies(25)
    assert held(folder) == {file[1].xxh128}
    assert read(after, file) == b"a" * 10
    after.close()
    assert not folder.exists()


def test_a_file_system_without_locks_is_used_without_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(local_copies, "flock", flock)
    copies = LocalCopies(25)
    assert read(copies, put("a")) == b"a" * 10
    copies.close()
    assert folder.exists(), "another process may use it"
