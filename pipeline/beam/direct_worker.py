"""Worker processes of the direct runner, which end with their job and whose death ends the job.

Beam's handler waits forever for a worker that died before it connected, or that connects after its
job failed. Its workers also receive Ctrl-C, write to the driver's standard error, and import modules
from the current folder.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, ClassVar

from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)

from pipeline.exhaustion import exhausted, exhausted_in
from pipeline.failures import RESUME
from preprocess.errors import JobError
from preprocess.files.temporary import temporary_root
from preprocess.work.resources import check_threads

LOG_BYTES = 2000
"""How much of a dead worker's output the message shows."""
ABORT_SECONDS = 0.5
DYING_SECONDS = 0.2
"""How long to wait for the exit code of a worker that may have died."""
BROKEN_CONNECTIONS = ("beam_control_read", "read_grpc_client_inputs")
"""Beam's threads that end with an exception when a worker dies."""


THREADS = {"multi_threading": (10, 20), "multi_processing": (10, 9)}
FILES = {"multi_threading": (8, 1), "multi_processing": (6, 5)}
WORKER_THREADS = 20
"""Measured needs of Beam and gRPC, rounded down. `THREADS` and `FILES` have for each mode the number in the
driver and the additional number for each worker. `WORKER_THREADS` is the number in a worker process."""
SMALL_STACK = 1 << 16
FEWER_WORKERS = "Lower runner.options.workers or prepare.unit_bytes"
NO_DETAILS = f"a worker process ended. {RESUME}"


class WorkerDied(JobError):  # noqa: N818
    """A worker process ended before its work was done; the message says how."""


class NoRoom(JobError):  # noqa: N818
    """The threads of a job cannot be started, or its files opened; the message says how many."""


def check_room(mode: str, workers: int) -> None:
    """Check that the threads of a job can be started, and its files and sockets opened.

    gRPC aborts the process or hangs if a thread or file is missing. The mode in_memory does not use it.

    Args:
        mode: mode of the direct runner, other than "auto".
        workers: number of worker processes or threads.

    Raises:
        NoRoom: there are too few threads or open files.
    """
    if mode not in THREADS:
        return
    own, each = THREADS[mode]
    mine = own + workers * each
    total = mine + (workers * WORKER_THREADS if mode == "multi_processing" else 0)
    own, each = FILES[mode]
    files = own + workers * each
    stack = threading.stack_size()
    try:
        check_threads(mine)  # their stacks need address space
        threading.stack_size(SMALL_STACK)
        check_threads(total)  # with small stacks, to test the limit of the user's threads
        with ExitStack() as opened:
            for _ in range(files):
                opened.enter_context(open(os.devnull, "rb"))
    except (RuntimeError, MemoryError, OSError) as error:
        raise NoRoom(
            f"{exhausted(error)}. The job needs about {total} threads and {files} more open files for "
            f"{workers} workers (runner.options.workers, runner.options.mode={mode}); the mode "
            f"in_memory needs none. {RESUME}"
        ) from error
    finally:
        threading.stack_size(stack)


WORKER = """\
import os, sys, threading

def end_with_the_driver():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=end_with_the_driver, daemon=True).start()
from apache_beam.runners.worker import sdk_worker_main
sdk_worker_main.main(sys.argv)
"""
"""Program of a worker; its standard input closes when the driver ends for any reason."""


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)  # type: ignore[untyped-decorator, unused-ignore]
class WorkerProcess(GrpcWorkerHandler):  # type: ignore[misc, unused-ignore]
    """A worker process; registered so that Beam uses it for `multi_processing`."""

    deaths: ClassVar[list[str]] = []
    """Messages about workers that ended too early; Beam offers no other way to pass them on."""

    def __init__(self, command: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._closing = threading.Event()

    def start_worker(self) -> None:
        options = {"options": {"default_sdk_harness_log_level": "ERROR"}}
        environment = {
            **os.environ,
            "CONTROL_API_SERVICE_DESCRIPTOR": f'url: "{self.control_address}"',
            "PIPELINE_OPTIONS": json.dumps(options),
            "WORKER_ID": self.worker_id,
        }
        self._log = tempfile.TemporaryFile(dir=temporary_root())  # noqa: SIM115
        self._process = subprocess.Popen(
            # Without -P, a folder `pipeline` in the current folder would be imported.
            [sys.executable, "-P", "-c", WORKER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            process_group=0,
        )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        self._process.wait()
        if self._closing.is_set():
            return
        try:
            self._record_death()
        except Exception:  # for instance, no memory for the message
            self.deaths.append(NO_DETAILS)
        self._close_data()
        # Repeatedly, because the runner may be about to send one more instruction.
        while not self._closing.wait(ABORT_SECONDS):
            # The runner may add instructions while abort() iterates over them.
            with suppress(RuntimeError):
                self.control_conn.abort(WorkerDied(self.deaths[0]))

    def _record_death(self) -> None:
        self._log.seek(max(self._log.seek(0, os.SEEK_END) - LOG_BYTES, 0))
        output = self._log.read().decode(errors="replace").strip()
        self.deaths.append(_death_message(self._process.returncode, output))

    def close(self) -> None:
        self._closing.set()
        self.control_conn.close()
        self._close_data()
        self.stop_worker()

    def _close_data(self) -> None:
        # If the worker has died, closing raises the error of the broken connection.
        with suppress(Exception):
            self.data_conn.close()

    def stop_worker(self) -> None:
        # The worker can be killed: finished work is on disk, and running work belongs to a failed
        # job. If the job failed because the worker died, its exit code is available only now.
        failed = sys.exc_info()[0] is not None
        with suppress(subprocess.TimeoutExpired):
            if failed and self._process.wait(DYING_SECONDS):
                self._record_death()
        self._process.kill()
        self._process.communicate()
        self._watcher.join()
        self._log.close()


@contextmanager
def raise_worker_deaths() -> Iterator[None]:
    """Turn Beam's error about a dead worker into `WorkerDied` while the block runs.

    Raises:
        WorkerDied: a worker ended before its work was done.
    """
    WorkerProcess.deaths.clear()
    former = threading.excepthook
    threading.excepthook = _without_broken_connections(former)
    try:
        yield
    except Exception as error:
        if WorkerProcess.deaths:
            raise WorkerDied(WorkerProcess.deaths[0]) from error
        raise
    finally:
        threading.excepthook = former


def _without_broken_connections(hook: Any) -> Any:
    def filtered(args: threading.ExceptHookArgs) -> None:
        if not args.thread or args.thread.name not in BROKEN_CONNECTIONS:
            hook(args)

    return filtered


def _death_message(code: int, output: str) -> str:
    if code == -signal.SIGKILL:
        return (
            f"a worker process was killed, most likely because memory ran out. {FEWER_WORKERS}. "
            f"{RESUME}"
        )
    if reason := exhausted_in(output):
        return f"a worker process ended: {reason}. {FEWER_WORKERS}. {RESUME}"
    ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"a worker process ended {ended}. {RESUME}. Its last output:\n{output}"
