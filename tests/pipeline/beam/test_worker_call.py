"""What a worker does with a call: by the same biloom only, and with its mistakes told through files."""

import pickle
import shutil
import threading
from pathlib import Path

import pytest

from pipeline.beam import worker_call
from pipeline.beam.worker_call import WorkerCall, failures, source_version, user_errors
from preprocess.errors import UserError


def add(first: int, second: int) -> int:
    return first + second


def refuse(item: int) -> int:
    raise UserError(f"item {item} is nothing to work on")


def test_a_call_travels_and_does_its_work(tmp_path: Path) -> None:
    call = pickle.loads(pickle.dumps(WorkerCall(str(tmp_path), add, [10])))
    assert call(5) == 15
    assert failures(str(tmp_path)) == []


def test_a_worker_with_another_source_refuses_and_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, driver = WorkerCall(str(tmp_path), add, [10]), source_version()
    monkeypatch.setattr(worker_call, "source_version", lambda: "0.0.9 (source abc)")
    message = (
        f"a worker has another biloom than this one: 0.0.9 (source abc), not {driver}; "
        "install the same on every worker"
    )
    with pytest.raises(UserError) as caught:
        call(5)
    assert str(caught.value) == message
    assert failures(str(tmp_path)) == [message]


def test_what_another_version_packed_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = WorkerCall(str(tmp_path), add, [10])
    call._packed = b"of a class that is not here"
    monkeypatch.setattr(worker_call, "source_version", lambda: "other")
    with pytest.raises(UserError, match="another biloom"):
        call(5)


def test_the_version_is_that_of_every_python_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(worker_call.__file__).parents[2]
    for name in ("pipeline", "preprocess", "lightning_modules"):
        shutil.copytree(own / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    here = source_version()
    fresh = source_version.__wrapped__
    for package in worker_call.PACKAGES:
        monkeypatch.setattr(package, "__path__", [str(tmp_path / package.__name__)])
    assert fresh() == here, "where it lies does not matter"
    (tmp_path / "lightning_modules" / "nn" / "new.py").touch()
    assert fresh() != here


def test_workers_that_fail_at_once_are_all_told_and_each_mistake_once(tmp_path: Path) -> None:
    call = WorkerCall(str(tmp_path), refuse, [])
    begin = threading.Barrier(8)

    def fail(item: int) -> None:
        begin.wait()
        with pytest.raises(UserError):
            call(item)

    def run() -> None:
        threads = [threading.Thread(target=fail, args=(number % 2,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raise RuntimeError("as the engine tells it")

    with pytest.raises(UserError) as caught, user_errors(str(tmp_path)):
        run()
    assert str(caught.value) == "item 0 is nothing to work on\nitem 1 is nothing to work on"


def test_a_mistake_of_a_former_run_is_not_told_again(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        WorkerCall(str(tmp_path), refuse, [])(2)
    with pytest.raises(ZeroDivisionError), user_errors(str(tmp_path)):
        raise ZeroDivisionError
