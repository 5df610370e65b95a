"""Worker processes end with their job, and a dead worker ends the job with its last output."""

import signal
import subprocess
import sys
import threading
import time

import apache_beam as beam
import pytest

from pipeline.beam import direct_worker
from pipeline.beam.direct_worker import WORKER, WorkerDied, raise_worker_deaths
from pipeline.beam.engines import make_pipeline
from pipeline.config.runners import DirectOptions, DirectRunner

TWO = DirectRunner(options=DirectOptions(mode="multi_processing", workers=2))


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        ("import sys; sys.exit('no such library')", "with exit code 1"),
        ("import os; print('no such library', flush=True); os.abort()", "by SIGABRT"),
    ],
)
def test_a_worker_that_cannot_start_is_reported_with_its_last_output(
    program: str, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_worker, "WORKER", program)
    began = time.monotonic()
    with pytest.raises(WorkerDied) as caught, make_pipeline(TWO, 0) as pipeline:
        _ = pipeline | beam.Create([1, 2]) | beam.Map(print)
    assert str(caught.value) == (
        f"a worker process ended {ended}. Run the same command again to resume. Its last output:\n"
        "no such library"
    )
    assert time.monotonic() - began < 20


def test_an_error_of_the_work_is_not_reported_as_a_death() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"), make_pipeline(TWO, 0) as pipeline:
        _ = pipeline | beam.Create([1, 0]) | beam.Map(lambda number: 1 / number)


def test_a_worker_ends_when_its_standard_input_closes() -> None:
    program = WORKER.partition("from apache_beam")[0] + "import time; time.sleep(60)"
    run = [sys.executable, "-P", "-c", program]
    with subprocess.Popen(run, stdin=subprocess.PIPE) as worker:
        assert worker.stdin
        worker.stdin.close()
        assert worker.wait(10) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_only_errors_of_broken_connections_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.thread.name))

    def fail() -> None:
        raise RuntimeError

    with raise_worker_deaths():
        for name in ("beam_control_read", "our own"):
            thread = threading.Thread(target=fail, name=name)
            thread.start()
            thread.join()
    assert told == ["our own"]


def test_a_kill_is_explained_by_its_most_likely_cause() -> None:
    message = direct_worker._death_message(-signal.SIGKILL, "")
    assert message.startswith("a worker process was killed, most likely because memory ran out. ")
