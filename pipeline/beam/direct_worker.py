"""Worker processes of the direct runner: none outlives its job, and no job waits for a dead one.

Beam's own handler waits for ever for a worker that died before it connected, or that connects when
its job has failed. It also hands workers Ctrl-C and the driver's standard error, and lets them
import what lies in the current folder.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    GrpcWorkerHandler,
    WorkerHandler,
)

from preprocess.errors import UserError

LOG_BYTES = 2000
ABORT_SECONDS = 0.5
DYING_SECONDS = 0.2
BROKEN_CONNECTIONS = ("beam_control_read", "read_grpc_client_inputs")
"""Threads of Beam that end in an exception where a worker does."""


class WorkerDied(UserError):  # noqa: N818
    """A worker process ended before its work; the message says how."""


WORKER = """\
import os, sys, threading

def end_with_the_driver():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=end_with_the_driver, daemon=True).start()
from apache_beam.runners.worker import sdk_worker_main
sdk_worker_main.main(sys.argv)
"""
"""What a worker runs; its standard input ends when the driver does, however that ends."""


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)  # type: ignore[untyped-decorator, unused-ignore]
class WorkerProcess(GrpcWorkerHandler):  # type: ignore[misc, unused-ignore]
    """One worker; made by Beam in the place of its own, for `multi_processing`."""

    deaths: ClassVar[list[str]] = []
    """What became of workers that ended too early: Beam has no other way to hand it on."""

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
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: without it a `pipeline` of the current folder is imported.
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
        self._tell_death()
        self._close_data()
        # Again and again: the runner may be about to send it one more instruction.
        while not self._closing.wait(ABORT_SECONDS):
            # It also may be adding to the instructions that are gone through here.
            with suppress(RuntimeError):
                self.control_conn.abort(WorkerDied(self.deaths[0]))

    def _tell_death(self) -> None:
        self._log.seek(max(self._log.seek(0, os.SEEK_END) - LOG_BYTES, 0))
        last_words = self._log.read().decode(errors="replace").strip()
        self.deaths.append(_how(self._process.returncode, last_words))

    def close(self) -> None:
        self._closing.set()
        self.control_conn.close()
        self._close_data()
        self.stop_worker()

    def _close_data(self) -> None:
        # Where its worker is gone it raises what it broke with.
        with suppress(Exception):
            self.data_conn.close()

    def stop_worker(self) -> None:
        # What it did lies on disk; what it is still doing belongs to a job that has failed. If
        # that is because it died, its connection broke a moment before its end can be seen.
        failed = sys.exc_info()[0] is not None
        with suppress(subprocess.TimeoutExpired):
            if failed and self._process.wait(DYING_SECONDS):
                self._tell_death()
        self._process.kill()
        self._process.communicate()
        self._watcher.join()
        self._log.close()


@contextmanager
def told_deaths() -> Iterator[None]:
    """Raise the death of a worker as what it is, and not as Beam's trouble with it.

    Raises:
        WorkerDied: a worker ended before its work.
    """
    WorkerProcess.deaths.clear()
    former = threading.excepthook
    threading.excepthook = _but_for_broken_connections(former)
    try:
        yield
    except Exception as error:
        if WorkerProcess.deaths:
            raise WorkerDied(WorkerProcess.deaths[0]) from error
        raise
    finally:
        threading.excepthook = former


def _but_for_broken_connections(hook: Any) -> Any:
    def told(args: threading.ExceptHookArgs) -> None:
        if not args.thread or args.thread.name not in BROKEN_CONNECTIONS:
            hook(args)

    return told


def _how(code: int, last_words: str) -> str:
    again = "the same command goes on from here"
    if code == -signal.SIGKILL:
        return (
            "a worker process was killed, most likely for want of memory; "
            f"fewer runner.options.workers need less, and {again}"
        )
    ended = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"a worker process ended {ended}; {again}. Its last words:\n{last_words}"
