"""A remote job is cancelled on any exception, even while it is being submitted."""

import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from pipeline.beam import remote_job
from pipeline.beam.remote_job import NOT_CANCELLED, run_remote_job


class Job:
    """A pipeline and its result, which ends when it is cancelled."""

    def __init__(self, submission: float = 0.0, obeys: bool = True) -> None:
        self._submission, self._obeys = submission, obeys
        self.ended, self.calls = threading.Event(), list[str]()

    def run(self) -> "Job":
        time.sleep(self._submission)
        self.calls.append("run")
        return self

    def wait_until_finish(self) -> None:
        self.ended.wait()

    def cancel(self) -> None:
        self.calls.append("cancel")
        if self._obeys:
            self.ended.set()


class Failed(Job):
    def wait_until_finish(self) -> None:
        raise ZeroDivisionError("of the engine")


def interrupted(job: Job, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Interrupt the wait for a job, and return the notes of the exception."""

    def interrupt(self: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote_job._Job, "wait", interrupt)
    with ExitStack() as cleanup, pytest.raises(KeyboardInterrupt) as caught:
        run_remote_job(job, cleanup)
    return getattr(caught.value, "__notes__", [])


def test_an_interrupted_job_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job()
    assert interrupted(job, monkeypatch) == []
    assert job.calls == ["run", "cancel"]


def test_a_job_is_cancelled_after_its_submission_that_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = Job(submission=0.3)
    assert interrupted(job, monkeypatch) == []
    assert job.calls == ["run", "cancel"]


def test_a_job_whose_end_is_not_confirmed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_job, "CANCEL_SECONDS", 0.2)
    job = Job(obeys=False)
    assert interrupted(job, monkeypatch) == [NOT_CANCELLED]
    job.ended.set()


def test_an_error_of_the_engine_is_raised_and_its_job_cancelled() -> None:
    job = Failed()
    with ExitStack() as cleanup, pytest.raises(ZeroDivisionError, match="of the engine"):
        run_remote_job(job, cleanup)
    assert job.calls == ["run", "cancel"]


def test_a_job_that_ends_is_not_cancelled() -> None:
    job = Job()
    job.ended.set()
    with ExitStack() as cleanup:
        run_remote_job(job, cleanup)
    assert job.calls == ["run"]


def test_the_beginning_of_a_job_is_told_with_its_result_and_its_end() -> None:
    job, told = Job(), list[tuple[Any, bool]]()

    def begun(result: Any, ended: threading.Event) -> None:
        told.append((result, ended.is_set()))
        job.ended.set()

    with ExitStack() as cleanup:
        run_remote_job(job, cleanup, begun)
    assert told == [(job, False)]
