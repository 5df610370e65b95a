"""A job on a Flink cluster is cancelled through the REST API if its driver stops."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.beam import flink_cluster
from pipeline.beam.flink_cluster import cancel_flink_job_on_error, job_page
from pipeline.beam.remote_job import NOT_CANCELLED
from pipeline.beam.requirements import RunnerError


class Flink(http.server.ThreadingHTTPServer):
    """Answers as Flink's REST API; `obeys` decides whether a job can be cancelled."""

    def __init__(self) -> None:
        super().__init__(("localhost", 0), Answers)
        self.jobs: dict[str, dict[str, str]] = {}
        self.obeys = True

    def add(self, jid: str, name: str, state: str = "RUNNING") -> None:
        self.jobs[jid] = {"jid": jid, "name": name, "state": state}

    @property
    def states(self) -> list[str]:
        return [job["state"] for job in self.jobs.values()]


class Answers(http.server.BaseHTTPRequestHandler):
    server: Flink

    def answer(self, content: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def do_GET(self) -> None:
        assert self.path == "/jobs/overview"
        self.answer({"jobs": [*self.server.jobs.values()]})

    def do_PATCH(self) -> None:
        path, _, query = self.path.partition("?")
        assert query == "mode=cancel"
        if self.server.obeys:
            self.server.jobs[path.removeprefix("/jobs/")]["state"] = "CANCELED"
        self.answer({})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flink]:
    monkeypatch.setattr(flink_cluster, "CANCEL_SECONDS", 1.0)
    monkeypatch.setattr(flink_cluster, "APPEAR_SECONDS", 0.4)
    monkeypatch.setattr(flink_cluster, "POLL_SECONDS", 0.02)
    with Flink() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def stop(flink: Flink) -> KeyboardInterrupt:
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        cancel_flink_job_on_error(f"localhost:{flink.server_port}", "ours"),
    ):
        raise KeyboardInterrupt
    return caught.value


def notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def test_our_job_is_cancelled_and_no_other(flink: Flink) -> None:
    flink.add("1", "ours", "RESTARTING")
    flink.add("2", "another")
    flink.add("3", "ours", "FINISHED")
    assert notes(stop(flink)) == []
    assert flink.states == ["CANCELED", "RUNNING", "FINISHED"]


def test_a_job_that_appears_late_is_cancelled(flink: Flink) -> None:
    timer = threading.Timer(0.2, flink.add, ("1", "ours"))
    timer.start()
    assert notes(stop(flink)) == []
    timer.join()
    assert flink.states == ["CANCELED"]


def test_a_job_that_is_done_is_not_looked_for(flink: Flink) -> None:
    flink.add("1", "ours")
    with cancel_flink_job_on_error(f"localhost:{flink.server_port}", "ours"):
        pass
    assert flink.states == ["RUNNING"]


def test_a_job_that_cannot_be_cancelled_is_reported(flink: Flink) -> None:
    flink.obeys = False
    flink.add("1", "ours")
    assert notes(stop(flink)) == [NOT_CANCELLED]


def test_a_cluster_that_does_not_answer_is_reported() -> None:
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        cancel_flink_job_on_error("localhost:9", "ours"),
    ):
        raise KeyboardInterrupt
    assert notes(caught.value) == [NOT_CANCELLED]


def test_a_proxy_between_us_and_the_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(RunnerError, match=r"through the proxy .* add flink.invalid to no_proxy"):
        flink_cluster.flink_cluster("flink.invalid:8081")
    with pytest.raises(RunnerError, match=r"^((?!proxy).)*$"):
        flink_cluster.flink_cluster("localhost:9")


@pytest.mark.parametrize("prefix", ["", "http://"])
def test_the_page_of_a_job_is_found_once_the_cluster_lists_it(flink: Flink, prefix: str) -> None:
    flink.add("1", "another")
    master = f"{prefix}localhost:{flink.server_port}"
    timer = threading.Timer(0.1, flink.add, ("2", "ours"))
    timer.start()
    page = job_page(master, "ours", 10.0, threading.Event())
    timer.join()
    assert page == f"http://localhost:{flink.server_port}/#/job/running/2/overview"


def test_a_page_is_not_looked_for_after_the_job_or_for_long(flink: Flink) -> None:
    ended = threading.Event()
    master = f"localhost:{flink.server_port}"
    assert job_page(master, "ours", 0.1, ended) == ""
    assert job_page("localhost:1", "ours", 0.1, ended) == ""
    ended.set()
    assert job_page(master, "ours", 60.0, ended) == ""
