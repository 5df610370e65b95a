"""Weights & Biases in a process of its own, so that none of its failures costs a training."""

import atexit
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from preprocess.errors import UserError
from preprocess.files.temporary import temporary_root

CHILD = Path(__file__).with_name("wandb_child.py")
ROWS = 100_000
"""Requests that may wait for a process that does not read them."""
FINISH_SECONDS = 110.0
"""How long to wait for the upload of a finished run, without that of its checkpoint."""
UPLOADED_BYTES_A_SECOND = 1 << 20
"""Lowest expected speed of uploading a checkpoint, which determines how long to wait."""
STOP_SECONDS = 10.0
"""How long to wait for the end of a run whose training was stopped or failed."""
TOLD_SECONDS = 5.0
"""A longer wait is announced."""
POLL_SECONDS = 0.05


class WandbProcess:
    """A running child process (`pipeline.training.wandb_child`); no method raises or waits.

    Args:
        start: the first request, without ``do``.

    Attributes:
        run: id of the run and its folder, once wandb has started.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        self.run: dict[str, str] = {}
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue(ROWS)
        self._failed = ""
        self._finished = False
        self._maker = os.getpid()
        # Started by file name and with -P, so that no module of the user is imported. In its own
        # session, so that Ctrl-C does not reach it, and it can be killed with its children.
        command = [sys.executable, "-P", str(CHILD)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._scratch = ""
        try:
            # wandb's own exit handlers, which remove its temporary folders, may not run.
            self._scratch = tempfile.mkdtemp(prefix="biloom-wandb-", dir=temporary_root())
            self._process = subprocess.Popen(
                command,
                **pipes,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "TMPDIR": self._scratch},
            )
            for work in (self._write, self._read):
                thread = threading.Thread(target=work, daemon=True)
                thread.start()
                self._threads.append(thread)
        # No temporary folder, no more processes, or no more threads.
        except (UserError, OSError, RuntimeError) as error:
            self._failed = str(error)
        atexit.register(self.end, 1, STOP_SECONDS)
        self.send(process=os.getpid(), argv=sys.argv, **start)

    def send(self, **request: Any) -> None:
        """Pass a request on, unless the process has ended."""
        if self._failed or self._finished:
            return
        try:
            self._requests.put_nowait(request)
        except queue.Full:
            self._failed = "it does not answer"

    def notes(self) -> list[str]:
        """Return the notes of the process since the last call, one line each."""
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._notes.get_nowait())
        return found

    @property
    def failed(self) -> str:
        """Why nothing is logged any more; empty while all is well."""
        return self._failed

    def end(
        self, exit_code: int, seconds: float, still_waiting: Callable[[], None] = lambda: None
    ) -> None:
        """Finish the run, wait for ``seconds`` at most, and end the process.

        Does nothing in a process that was forked from the one that made the object.

        Args:
            exit_code: 0 if the training succeeded.
            seconds: the limit.
            still_waiting: called once if it takes longer than `TOLD_SECONDS`.
        """
        if os.getpid() != self._maker or self._finished:
            return
        self.send(do="finish", exit_code=exit_code)
        self._finished = True
        atexit.unregister(self.end)
        process = self._process
        if process is None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            return
        try:
            began, is_told = time.monotonic(), False
            while process.poll() is None and not self._failed:
                waited = time.monotonic() - began
                if waited > seconds:
                    break
                if waited > TOLD_SECONDS and not is_told:
                    is_told = True
                    still_waiting()
                time.sleep(POLL_SECONDS)
            if process.poll() is None and not self._failed:
                self._failed = f"it has not answered for {seconds:.0f} seconds"
        finally:
            # Its whole session: wandb's own service is a child of it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            with suppress(queue.Full):
                self._requests.put_nowait(None)
            for thread in self._threads:
                thread.join(1.0)
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _write(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # Closing tells the process that the training has ended; it fails if the process has ended.
        with suppress(OSError), self._process.stdin as pipe:
            while (request := self._requests.get()) is not None:
                pipe.write(json.dumps(request).encode() + b"\n")
                pipe.flush()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        has_finished = False
        with self._process.stdout as pipe:
            for line in pipe:
                answer = json.loads(line)
                has_finished = has_finished or "finished" in answer
                self._failed = self._failed or answer.get("failed", "")
                if "note" in answer:
                    self._notes.put(answer["note"])
                if "id" in answer:
                    self.run = {name: answer[name] for name in ("id", "folder")}
        if not has_finished:
            self._failed = self._failed or "its process ended"
