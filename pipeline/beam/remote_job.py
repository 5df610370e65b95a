"""Run a Beam job on an engine outside this process; if this process stops waiting, cancel the job."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import apache_beam as beam

CANCEL_SECONDS = 15.0
"""How long an engine may take to cancel a job."""
NOT_CANCELLED = (
    "The engine did not confirm that it cancelled the job; look for it there, and cancel it"
)


Begun = Callable[[Any, threading.Event], None]
"""Function that is called in a thread with Beam's result and an event that is set when the job ends."""


def run_remote_job(
    pipeline: beam.Pipeline, cleanup: ExitStack, begun: Begun = lambda *_: None
) -> None:
    """Run ``pipeline`` to its end.

    On any exception, such as an interrupt or an error of the engine, the job is cancelled first. If
    the engine does not confirm it in time, a note of the exception says so.

    Args:
        pipeline: the pipeline.
        cleanup: gets the functions that close the connection to the engine.
        begun: called once the job is submitted.
    """
    job = _Job(pipeline, cleanup, begun)
    try:
        job.wait()
    except BaseException as error:
        if not job.cancel():
            error.add_note(NOT_CANCELLED)
        raise


class _Job:
    """A job that a thread submits and waits for, so that a signal never interrupts the submission.

    If the submission were interrupted, the job might run, but could not be cancelled.
    """

    def __init__(self, pipeline: beam.Pipeline, cleanup: ExitStack, begun: Begun) -> None:
        self._pipeline, self._cleanup, self._begun = pipeline, cleanup, begun
        self._submitted, self._ended = threading.Event(), threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._pipeline.run()
            if hasattr(self._result, "client"):  # of Dask
                self._cleanup.callback(self._result.client.close)
            self._submitted.set()
            call = (self._result, self._ended)
            threading.Thread(target=self._begun, args=call, daemon=True).start()
            self._result.wait_until_finish()
        except BaseException as error:
            self._error = error
        finally:
            self._submitted.set()
            self._ended.set()

    def wait(self) -> None:
        """Wait for the end of the job, and raise its error."""
        self._ended.wait()
        if self._error:
            raise self._error

    def cancel(self) -> bool:
        """Cancel the job; return True if it ended within `CANCEL_SECONDS`."""
        thread = threading.Thread(target=self._cancel, daemon=True)
        thread.start()
        thread.join(CANCEL_SECONDS)
        return not thread.is_alive()

    def _cancel(self) -> None:
        self._submitted.wait()
        if self._result:
            with suppress(Exception):
                self._result.cancel()
        self._ended.wait()
