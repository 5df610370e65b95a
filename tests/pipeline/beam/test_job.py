"""A job without progress is stopped with an explanation; a slow job is not stopped."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from rich.console import Console as RichConsole

from pipeline.beam import guard as beam_guard
from pipeline.beam import job as beam_job
from pipeline.beam import unit_bar
from pipeline.beam.engine_output import EngineOutput
from pipeline.beam.job import Stalled, run_job
from pipeline.beam.requirements import RunnerError
from pipeline.beam.transforms import ForEach
from pipeline.beam.unit_bar import Look
from pipeline.config.runners import (
    DaskRunner,
    DataflowRunner,
    DirectOptions,
    DirectRunner,
    FlinkOptions,
    FlinkRunner,
    PortableRunner,
)
from pipeline.console import Console
from pipeline.stopping import Stopped, stoppable
from preprocess.errors import UserError
from preprocess.files import storage


def in_memory(stall_seconds: float = 60.0) -> DirectRunner:
    options = DirectOptions(mode="in_memory")
    return DirectRunner.model_construct(kind="direct", stall_seconds=stall_seconds, options=options)


class Work(beam.PTransform):
    """A job of one unit that calls ``function``."""

    def __init__(self, function: object, *arguments: object) -> None:
        super().__init__()
        self._call = ForEach(str(arguments[0]), function, *arguments)  # type: ignore[arg-type]

    def expand(self, begin: Any) -> Any:
        return begin | "one" >> beam.Create([0]) | "call" >> self._call


def run(function: object, work: Path, stall_seconds: float = 60.0) -> None:
    console = Console(RichConsole(file=StringIO()))
    run_job(in_memory(stall_seconds), str(work), console, "prepare", 10, 1, Work(function, work))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_bar, "POLL_SECONDS", 0.02)


def sleep(work: Path, item: int) -> int:
    time.sleep(30)
    return item


def finish_and_sleep(work: Path, item: int) -> int:
    storage.write_bytes(str(work / "finished" / "000000.json"), b"{}")
    return sleep(work, item)


def fail_and_sleep(work: Path, item: int) -> int:
    storage.write_bytes(str(work / "failures" / "1.txt"), b"a cut file")
    return sleep(work, item)


def count_slowly(work: Path, item: int) -> int:
    for number in range(15):
        storage.write_bytes(str(work / "units" / f"{number:06d}.json"), b"{}")
        time.sleep(0.2)
    return item


def write_to_standard_error(work: Path, item: int) -> int:
    print("a line of the engine", file=sys.stderr)
    raise ZeroDivisionError("ours")


def test_a_job_without_progress_is_stopped_with_an_explanation(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stalled) as caught:
        run(sleep, tmp_path, stall_seconds=0.3)
    assert str(caught.value) == (
        "no progress for 0:00 (runner.stall_seconds), so the job was stopped; 0B read, 0 of 1 units "
        "through the first pass, 0 finished. Check that input and output can be reached. Run the "
        "same command to resume"
    )
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_slow_job_is_not_stopped_while_a_record_changes(tmp_path: Path) -> None:
    run(count_slowly, tmp_path, stall_seconds=2.0)


def test_a_job_that_does_not_return_after_its_last_unit_counts_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beam_guard, "FINISHED_SECONDS", 0.2)
    began = time.monotonic()
    run(finish_and_sleep, tmp_path)
    assert time.monotonic() - began < 10


def test_a_user_error_of_a_worker_stops_an_engine_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beam_guard, "FAILED_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"^a cut file$"):
        run(fail_and_sleep, tmp_path)


def test_an_interrupt_by_the_user_stays_one(tmp_path: Path) -> None:
    main = threading.main_thread().ident
    assert main
    timer = threading.Timer(0.5, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(Stopped), stoppable():
        run(sleep, tmp_path)
    timer.join()


class Finalised:
    """An object whose finaliser calls ``function``."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def __del__(self) -> None:
        self.function()


def test_an_interrupt_by_the_user_that_arrives_in_a_finaliser_stops_the_job() -> None:
    guard = beam_guard.Guard(DirectRunner(), 1, EngineOutput())

    def job() -> None:
        with guard:
            Finalised(lambda: signal.raise_signal(signal.SIGINT))
            time.sleep(30)

    with pytest.raises(Stopped), stoppable():
        job()
    assert guard.interrupted
    assert guard.reason is None


def test_the_interrupt_of_the_guard_is_not_lost_in_a_finaliser() -> None:
    guard = beam_guard.Guard(DirectRunner(), 1, EngineOutput())

    def job() -> None:
        with guard:
            Finalised(lambda: guard._interrupt("stalled"))
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        job()
    assert guard.interrupted
    assert guard.reason == "stalled"


def test_output_of_threads_that_outlive_a_failed_job_is_hidden_and_ours_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, stay = EngineOutput(), threading.Event()

    def complain() -> None:
        stay.wait()
        print("the connection broke", file=sys.stderr)
        logging.error("the connection broke")

    thread = threading.Thread(target=complain)

    def fail() -> None:
        thread.start()
        raise RuntimeError

    handlers = logging.getLogger().handlers
    try:
        with pytest.raises(RuntimeError), output.captured():
            fail()
        stay.set()
        thread.join()
        print("the message", file=sys.stderr)
    finally:
        logging.getLogger().handlers = handlers
    assert capsys.readouterr().err == "the message\n"
    assert [*output.lines] == ["the connection broke"] * 2


def test_output_of_the_engine_is_noted_on_a_bug_and_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(write_to_standard_error, tmp_path)
    assert "a line of the engine" in caught.value.__notes__
    assert "of the engine" not in capfd.readouterr().err


HELD = """
import subprocess, threading, time
from pipeline.beam import guard as beam_guard
from pipeline.beam.engine_output import EngineOutput
from pipeline.config.runners import DirectRunner

def swallow():
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass

def leave_a_thread():
    threading.Thread(target=swallow).start()
    time.sleep(60)

subprocess.Popen(["sleep", "60"])
beam_guard.LEAVE_SECONDS = 0.5
guard = beam_guard.Guard(DirectRunner(), 1, EngineOutput())
try:
    with guard:
        threading.Timer(0.5, guard._interrupt, ("stalled",)).start()
        {hold}()
except KeyboardInterrupt:
    print("unwound", flush=True)
"""


@pytest.mark.parametrize(
    ("hold", "out", "message"),
    [("leave_a_thread", "unwound\n", ""), ("swallow", "", "biloom: no progress for 0:0")],
)
def test_the_process_and_its_children_end_even_if_the_engine_holds_them(
    hold: str, out: str, message: str
) -> None:
    # The child has our pipes: they close when it ends.
    answer = subprocess.run(
        [sys.executable, "-c", HELD.format(hold=hold)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (3, out)
    assert message in answer.stderr


# Where to look


def describe(config: object, **counts: int) -> str:
    guard = beam_guard.Guard(config, 40, EngineOutput())  # type: ignore[arg-type]
    guard._output.write("an old line\n" * 50 + "line 1\nline 2\n\nline 3\n")
    guard.see(Look(Counter(bytes=2_000_000), **counts))
    return guard._describe()


def test_a_stall_shows_the_progress_and_the_last_output() -> None:
    message = describe(DaskRunner(), tokenised=7, compared=0, finished=0)
    assert message == (
        "no progress for 0:00 (runner.stall_seconds), so the job was stopped; 2MB read, 7 of 40 "
        "units through the first pass, 0 finished. Check that the cluster has workers, and read "
        "their logs. Run the same command to resume. Last output of the engine:\\n"
        "    an old line\\n    an old line\\n    line 1\\n    line 2\\n    line 3"
    ).replace("\\n", "\n")


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (PortableRunner(), "the log of the worker pool (localhost:50000), whose `python` needs"),
        (DataflowRunner.model_construct(), "the job's log in the Google Cloud console"),
        (FlinkRunner(), "the logs of the engine and of its workers."),
        (
            FlinkRunner(options=FlinkOptions(master="h:1", environment_type="LOOPBACK")),
            "The cluster needs as many free slots as the job's parallelism.",
        ),
    ],
)
def test_a_stall_says_where_to_look(config: object, advice: str) -> None:
    assert advice in describe(config, tokenised=0, compared=0, finished=0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("Traceback\n  x\nModuleNotFoundError: No module named 'pipeline' [while]"),
            "a worker cannot import biloom (ModuleNotFoundError: No module named 'pipeline' [while])",
        ),
        (
            RuntimeError("Traceback\n  x\nImportError: a.py has the name of a package of biloom"),
            "a worker cannot import biloom (ImportError: a.py has the name of a package of biloom)",
        ),
        (
            RuntimeError("Traceback\nstatus = StatusCode.UNAVAILABLE\n\tdetails = 'refused'\n>"),
            "the engine could not run the job (details = 'refused'). Read the log",
        ),
        (RuntimeError("java: no slot"), "the engine could not run the job (java: no slot). Read"),
        (
            RuntimeError("failed in state FAILED: CANCELLED: client cancelled"),
            "the engine could not run the job (failed in state FAILED: CANCELLED: client cancelled). The "
            "process of a worker ended while it worked: memory ran out, or two TaskManagers share a worker "
            "pool, and one stopped the worker of the other. Read the log of the worker pool",
        ),
    ],
)
def test_errors_of_the_engine_are_reported_as_such(error: Exception, message: str) -> None:
    with pytest.raises(RunnerError) as caught:
        beam_job._raise_engine_error(PortableRunner(), error)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("error", [RuntimeError("Traceback\nKeyError: 3"), KeyError("a fault")])
def test_a_bug_is_not_reported_as_an_error_of_the_engine(error: Exception) -> None:
    beam_job._raise_engine_error(PortableRunner(), error)
