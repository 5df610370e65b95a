"""A worker runs calls of the same biloom only, and reports user errors through files."""

import pickle
import shutil
import threading
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.beam import worker_call
from pipeline.beam.worker_call import (
    JobEnded,
    WorkerCall,
    failures,
    job_runs,
    running_job,
    source_version,
    user_errors,
)
from preprocess.errors import JobError, UserError
from preprocess.files.errors import DiskFull, StorageError, StoreError


def add(first: int, second: int) -> int:
    return first + second


def refuse(item: int) -> int:
    raise UserError(f"item {item} is nothing to work on")


def test_a_call_is_pickled_and_runs(tmp_path: Path) -> None:
    call = pickle.loads(pickle.dumps(WorkerCall(str(tmp_path), add, [10])))
    assert call(5) == 15
    assert failures(str(tmp_path)) == []


def test_a_worker_with_another_source_refuses_with_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, driver = WorkerCall(str(tmp_path), add, [10]), source_version()
    monkeypatch.setattr(worker_call, "source_version", lambda: "0.0.9 (source abc)")
    message = (
        f"a worker runs biloom 0.0.9 (source abc), but this process runs biloom {driver}; "
        "install the same versions on every worker"
    )
    with pytest.raises(UserError) as caught:
        call(5)
    assert str(caught.value) == message
    assert failures(str(tmp_path)) == [message]


@pytest.mark.parametrize(
    ("package", "difference"),
    [
        ("chardet", "find other encodings"),
        ("resiliparse", "extract other text"),
        ("tokenizers", "find other tokens"),
    ],
)
def test_a_worker_with_another_version_of_an_optional_package_refuses(
    package: str, difference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = WorkerCall(str(tmp_path), add, [10])
    own = worker_call.optional_versions()[package]
    monkeypatch.setattr(worker_call, "optional_versions", lambda: {package: "0.1"})
    with pytest.raises(UserError) as caught:
        call(5)
    assert str(caught.value) == (
        f"a worker has another version of {package} (0.1) than this process ({own}), so that it may "
        f"{difference}; install the same version on every worker"
    )
    # A worker without the package raises an error of its own if a file needs it.
    monkeypatch.setattr(worker_call, "optional_versions", dict)
    assert call(5) == 15


def test_a_call_pickled_by_another_version_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = WorkerCall(str(tmp_path), add, [10])
    call._packed = b"of a class that is not here"
    monkeypatch.setattr(worker_call, "source_version", lambda: "other")
    with pytest.raises(UserError, match="a worker runs biloom other, but"):
        call(5)


def test_the_source_version_covers_every_python_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(worker_call.__file__).parents[2]
    for name in ("pipeline", "preprocess", "lightning_modules"):
        shutil.copytree(own / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    here = source_version()
    fresh = source_version.__wrapped__
    for package in worker_call.PACKAGES:
        monkeypatch.setattr(package, "__path__", [str(tmp_path / package.__name__)])
    assert fresh() == here, "the folder does not matter"
    (tmp_path / "lightning_modules" / "nn" / "new.py").touch()
    assert fresh() != here


def test_errors_of_workers_that_fail_at_once_are_each_reported_once(tmp_path: Path) -> None:
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
        raise RuntimeError("the error of the engine")

    with pytest.raises(UserError) as caught, user_errors(str(tmp_path)):
        run()
    assert str(caught.value) == "item 0 is nothing to work on\nitem 1 is nothing to work on"


def test_an_error_of_an_earlier_run_is_not_reported_again(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        WorkerCall(str(tmp_path), refuse, [])(2)
    with pytest.raises(ZeroDivisionError), user_errors(str(tmp_path)):
        raise ZeroDivisionError


@pytest.mark.parametrize("kind", [StorageError, StoreError, DiskFull])
def test_a_storage_error_is_found_in_the_text_of_an_engine(
    kind: type[StorageError], tmp_path: Path
) -> None:
    error = kind("s3://bucket/a: no room; make room [while running 'x']")
    text = "".join(traceback.format_exception(error)) + "\nsome words of the engine"
    with pytest.raises(UserError) as caught, user_errors(str(tmp_path)):
        raise RuntimeError(text)
    assert str(caught.value) == "s3://bucket/a: no room; make room"
    assert isinstance(caught.value, JobError) == (kind is DiskFull)


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((DiskFull("no room"),), JobError),
        ((DiskFull("no room"), UserError("a bad file")), UserError),
    ],
)
def test_a_job_failed_if_all_its_workers_say_so(
    errors: tuple[UserError, ...], kind: type[UserError], tmp_path: Path
) -> None:
    def work() -> None:
        for error in errors:
            with suppress(UserError):
                WorkerCall(str(tmp_path), fail, (error,))(0)
        raise RuntimeError("of the engine")

    with pytest.raises(UserError) as caught, user_errors(str(tmp_path)):
        work()
    assert type(caught.value) is kind


def fail(error: UserError, item: int) -> None:
    raise error


def test_calls_of_a_job_that_ended_or_was_started_again_do_nothing(tmp_path: Path) -> None:
    work = str(tmp_path)
    call = WorkerCall(work, add, [10])
    with job_runs(work):
        call.job = running_job(work)
        assert call(5) == 15
    for _ in range(2):
        with pytest.raises(JobEnded):
            call(5)
    with job_runs(work), pytest.raises(JobEnded):
        call(5)
    assert failures(work) == [], "a later job would take it for its own"
