"""A Flink cluster's REST API: its version and slots, the page of a job, and cancelling a job."""

import json
import re
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pipeline.beam.remote_job import CANCEL_SECONDS, NOT_CANCELLED
from pipeline.beam.requirements import CONNECT_SECONDS, RunnerError

ENDED = ("CANCELED", "FINISHED", "FAILED")
"""States of a job that needs no cancelling."""
APPEAR_SECONDS = 3.0
"""How long after the end of the job server a job that it sent may be missing in Flink's list."""
POLL_SECONDS = 0.2
_VERSION = re.compile(r"\d+\.\d+")
_IN_NAME = re.compile(r"flink[-_]?(\d+\.\d+)")
_POM = "META-INF/maven/org.apache.flink/flink-core/pom.properties"
_IN_POM = re.compile(r"^version=(\d+\.\d+)", re.MULTILINE)
_IN_MANIFEST = re.compile(r"flink-(?:core|runtime)-(\d+\.\d+)")


class FlinkCluster(NamedTuple):
    """Version and size of a cluster, from its REST API.

    Attributes:
        version: major and minor version, such as "1.20"; empty if the cluster does not report it.
        slots: slots of all TaskManagers.
        largest: most slots of one TaskManager.
        task_managers: number of TaskManagers.
    """

    version: str
    slots: int
    largest: int
    task_managers: int

    @property
    def parallelism(self) -> int:
        """Number of slots with which a job continues even if the largest TaskManager is lost.

        All slots of a single TaskManager are used, because the job must wait for its replacement anyway.
        """
        return self.slots if self.task_managers == 1 else max(1, self.slots - self.largest)


def flink_cluster(master: str) -> FlinkCluster:
    """Return the version and the slots of a cluster, from Flink's REST API.

    Args:
        master: host:port or URL of the REST API.

    Raises:
        RunnerError: the cluster does not answer or has no slots.
    """
    try:
        overview = _answer(master, "overview")
        slots, managers = int(overview["slots-total"]), int(overview["taskmanagers"])
        full = str(overview.get("flink-version") or _answer(master, "config")["flink-version"])
        each = [int(one["slotsNumber"]) for one in _answer(master, "taskmanagers")["taskmanagers"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunnerError(
            f"runner.options.master: no Flink answers at {master} ({error}){_proxy_of(master)}; start it, "
            "or correct the address"
        ) from error
    if not slots:
        raise RunnerError(
            f"runner.options.master: {master} has no TaskManager slots; start a TaskManager"
        )
    found = _VERSION.match(full)
    return FlinkCluster(found[0] if found else "", slots, max(each, default=slots), managers)


def jar_version(jar: str) -> str:
    """Return the Flink version of a job server's jar, such as "1.20"; empty if the jar does not state it."""
    if found := _IN_NAME.search(Path(jar).name):
        return found[1]
    try:
        with zipfile.ZipFile(jar) as archive:
            if _POM in archive.namelist():
                found = _IN_POM.search(archive.read(_POM).decode())
            else:
                # A jar may only list the files that it consists of.
                lines = archive.read("META-INF/MANIFEST.MF").decode().replace("\r\n", "\n")
                found = _IN_MANIFEST.search(lines.replace("\n ", ""))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return ""
    return found[1] if found else ""


def check_version(asked: str | None, jar: str | None, cluster: FlinkCluster, master: str) -> None:
    """Refuse a Flink version or a job server that differs from the cluster's, because jobs would fail.

    Args:
        asked: version in the config.
        jar: job server's jar.
        cluster: the cluster.
        master: its address.

    Raises:
        RunnerError: they differ.
    """
    if not cluster.version:
        return
    of_jar = jar_version(jar) if jar else ""
    for key, version in (
        ("runner.options.version is", asked),
        (f"the job server {jar} is for", of_jar),
    ):
        if version and version != cluster.version:
            raise RunnerError(
                f"{key} Flink {version}, but the cluster at {master} runs Flink {cluster.version}; "
                "leave runner.options.version unset and use a job server for the cluster's version"
            )


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


def job_page(master: str, name: str, seconds: float, ended: threading.Event) -> str:
    """Return the URL of a job's page in Flink's web interface (Flink 1.16 or later); or an empty text.

    Args:
        master: host:port or URL of the REST API, which also serves the web interface.
        name: name of the job.
        seconds: how long to wait until the cluster lists the job.
        ended: set when the job has ended, after which its page is not looked for.
    """
    end = time.monotonic() + seconds
    while not ended.wait(POLL_SECONDS) and time.monotonic() < end:
        with suppress(OSError, ValueError, LookupError, TypeError):
            for job in _answer(master, "jobs/overview")["jobs"]:
                if job["name"] == name:
                    return f"{_url(master).rstrip('/')}/#/job/running/{job['jid']}/overview"
    return ""


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


def _proxy_of(master: str) -> str:
    """Return a part of a message if requests to the cluster pass through a proxy, else ""."""
    host = urlsplit(_url(master)).hostname or ""
    if not urllib.request.getproxies() or urllib.request.proxy_bypass(host):
        return ""
    return (
        f", through the proxy of the environment (http_proxy); to avoid it, add {host} to no_proxy"
    )


def _url(master: str) -> str:
    return master if "://" in master else f"http://{master}"


def _answer(master: str, path: str, method: str = "GET") -> Any:
    request = urllib.request.Request(f"{_url(master).rstrip('/')}/{path}", method=method)
    with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:
        return json.load(answer)
