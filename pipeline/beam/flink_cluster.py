"""A Flink cluster's REST API: the number of its slots, and cancelling a job."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.beam.remote_job import CANCEL_SECONDS, NOT_CANCELLED
from pipeline.beam.requirements import CONNECT_SECONDS, RunnerError

ENDED = ("CANCELED", "FINISHED", "FAILED")
"""States of a job that needs no cancelling."""
APPEAR_SECONDS = 3.0
"""How long after the end of the job server a job that it sent may be missing in Flink's list."""
POLL_SECONDS = 0.2


def flink_slots(master: str) -> int:
    """Return the number of slots of a cluster, from Flink's REST API (`/overview`).

    Args:
        master: host:port or URL of the REST API.

    Raises:
        RunnerError: the cluster does not answer or has no slots.
    """
    try:
        slots = int(_answer(master, "overview")["slots-total"])
    except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
        raise RunnerError(
            f"runner.options.master: no Flink answers at {master} ({error}); start it, or correct "
            "the address"
        ) from error
    if not slots:
        raise RunnerError(
            f"runner.options.master: {master} has no TaskManager slots; start a TaskManager"
        )
    return slots


@contextmanager
def cancel_flink_job_on_error(master: str, name: str) -> Iterator[None]:
    """Cancel the jobs called ``name`` if the block raises; if that fails, add a note to the exception.

    Beam's job server stops waiting for a cancelled job, but does not cancel it on the cluster. Enter
    this block before the job server starts, because the server can send the job until it has ended.

    Args:
        master: host:port or URL of the REST API.
        name: name of the job.
    """
    try:
        yield
    except BaseException as error:
        try:
            ended = _cancel(master, name)
        except (OSError, ValueError, KeyError):
            ended = False
        if not ended and NOT_CANCELLED not in getattr(error, "__notes__", ()):
            error.add_note(NOT_CANCELLED)
        raise


def _cancel(master: str, name: str) -> bool:
    """Return True if all jobs called ``name`` have ended within `CANCEL_SECONDS`."""
    began, seen, cancelled = time.monotonic(), False, set[str]()
    while (waited := time.monotonic() - began) < CANCEL_SECONDS:
        jobs = [job for job in _answer(master, "jobs/overview")["jobs"] if job["name"] == name]
        running = {job["jid"] for job in jobs if job["state"] not in ENDED}
        for job in running - cancelled:
            _answer(master, f"jobs/{job}?mode=cancel", "PATCH")
            cancelled.add(job)
        seen = seen or bool(jobs)
        if not running and (seen or waited > APPEAR_SECONDS):
            return True
        time.sleep(POLL_SECONDS)
    return False


def _answer(master: str, path: str, method: str = "GET") -> Any:
    url = master if "://" in master else f"http://{master}"
    request = urllib.request.Request(f"{url.rstrip('/')}/{path}", method=method)
    with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:
        return json.load(answer)
