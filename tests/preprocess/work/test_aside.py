"""A folder of a store moves aside in whole, also if the process is killed at any request."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.write_checks import checked_writes
from preprocess.work import aside
from preprocess.work.aside import end_move, has_move, move_aside
from preprocess.work.damage import DamagedWork
from preprocess.work.records import write_record

OLD = {
    "manifest.json": b"manifest",
    "dropped-000000-000.jsonl": b"dropped",
    "shards/train-[0].bin": b"tokens",
    f"_work/{'0' * 64}/asked.json": b"request",
    f"_work/{'0' * 64}/units/000000.json": b"unit",
}
LOCK = "_work/lock.json"
CHANGES = ("cp_file", "_rm", "rm_file", "pipe_file")
"""Methods of the file system that change something."""


NEVER = 1 << 30


class Killed(BaseException):
    pass


@pytest.fixture
def folder() -> Iterator[str]:
    yield "memory://moves/run/prepare"
    storage.remove_tree("memory://moves")


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """A function that lets the change with this number, and all later ones, be those of a killed process."""
    left = [0]

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return change(*arguments, **options)

        return changed

    def start(number: int) -> None:
        left[0] = number

    for name in CHANGES:
        monkeypatch.setattr(MemoryFileSystem, name, dying(getattr(MemoryFileSystem, name)))
    start(NEVER)
    yield start
    start(NEVER)


def contents(folder: str) -> dict[str, bytes]:
    fs, inner = storage.open_remote(folder)
    return {name.removeprefix(f"{inner}/"): fs.cat_file(name) for name in fs.find(inner)}


def put(folder: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        storage.write_bytes(f"{folder}/{name}", data)


def test_a_folder_that_is_killed_at_any_request_is_moved_or_whole(
    folder: str, kill_at: Callable[[int], None]
) -> None:
    ends = set()
    for number in count():
        put(folder, {**OLD, LOCK: b"lock"})
        kill_at(number)
        try:
            move_aside(folder)
        except Killed:
            kill_at(NEVER)
        else:
            break
        aside, rest = contents(f"{folder}.old-1"), contents(folder)
        # Until the copy is whole, nothing takes it for a result, and then nothing takes the rest for one.
        assert aside == OLD or "manifest.json" not in aside
        assert OLD.items() <= rest.items() or aside == OLD
        assert has_move(folder) or OLD.items() <= rest.items()
        # What was not there before is not of the old result.
        put(folder, {"notes.txt": b"mine"})
        ends.add(end_move(folder))
        assert not has_move(folder)
        moved = contents(f"{folder}.old-1") == OLD
        assert contents(folder) == {
            LOCK: b"lock",
            "notes.txt": b"mine",
            **({} if moved else OLD),
        }
        assert moved or not contents(f"{folder}.old-1")
        storage.remove_tree("memory://moves")
    assert ends == {None, "", f"{folder}.old-1"}
    assert contents(folder) == {LOCK: b"lock"}
    assert contents(f"{folder}.old-1") == OLD


@pytest.mark.parametrize("change", [{"names": ["../other"]}, {"number": "1"}, {"copied": None}])
def test_a_record_that_names_other_files_is_refused(folder: str, change: dict[str, Any]) -> None:
    put("memory://moves/run", {"other": b"mine"})
    write_record(f"{folder}/_work/move.json", {"number": 1, "names": [], "copied": True, **change})
    with pytest.raises(DamagedWork, match="it is not the record of a move"):
        end_move(folder)
    assert contents("memory://moves/run")["other"] == b"mine"


def test_a_local_folder_has_no_record(tmp_path: Any) -> None:
    (tmp_path / "prepare").mkdir()
    assert move_aside(str(tmp_path / "prepare")) == str(tmp_path / "prepare.old-1")
    assert [path.name for path in tmp_path.iterdir()] == ["prepare.old-1"]
    assert not has_move(str(tmp_path / "prepare"))


def test_an_empty_folder_of_a_store_is_free(folder: str) -> None:
    put(folder, OLD)
    fs, inner = storage.open_remote(f"{folder}.old-1")
    fs.makedirs(inner)
    put(f"{folder}.old-2", {"a": b"1"})
    assert move_aside(folder) == f"{folder}.old-1"
    put(folder, OLD)
    assert move_aside(folder) == f"{folder}.old-3"


def test_a_process_that_lost_its_lock_removes_nothing_more(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, OLD)
    lost, remove = [False], aside.remove_objects

    def suspended(fs: Any, names: Any) -> None:
        remove(fs, names)
        # Meanwhile, another process has taken the lock over, and made the result again.
        put(folder, OLD)
        lost[0] = True

    def check() -> None:
        if lost[0]:
            raise StorageError("lost the lock")

    monkeypatch.setattr(aside, "remove_objects", suspended)
    with (
        checked_writes("test", folder, check),
        pytest.raises(StorageError, match="lost the lock"),
    ):
        move_aside(folder)
    assert OLD.items() <= contents(folder).items()
