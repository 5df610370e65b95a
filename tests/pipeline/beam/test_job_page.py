"""The page of a job is the engine's own, or there is none."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.beam import job_page as module
from pipeline.beam.job_page import job_page
from pipeline.config.runners import RunnerConfig

DATAFLOW = {"project": "p", "region": "r", "temp_location": "gs://t", "sdk_container_image": "i"}
FLINK = {"master": "flink:8081", "environment_type": "LOOPBACK"}


def page(kind: str, options: dict[str, Any], result: Any = None) -> str:
    config = TypeAdapter(RunnerConfig).validate_python({"kind": kind, "options": options})
    return job_page(config, "ours", result, threading.Event())


def test_flink_s_page_is_that_of_the_job_on_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "page_of_flink", lambda master, name, *_: f"{master} {name}")
    assert page("flink", FLINK) == "flink:8081 ours"
    assert page("flink", {}) == "", "embedded Flink has no page"


def test_dask_s_page_is_its_dashboard() -> None:
    client = SimpleNamespace(dashboard_link="http://dask:8787/status")
    assert page("dask", {}, SimpleNamespace(client=client)) == "http://dask:8787/status"
    assert page("dask", {}, SimpleNamespace()) == "", "a cluster without a dashboard"


def test_dataflow_s_page_is_in_the_console_of_google_cloud() -> None:
    result = SimpleNamespace(job_id=lambda: "2026-1")
    url = "https://console.cloud.google.com/dataflow/jobs/r/2026-1?project=p"
    assert page("dataflow", DATAFLOW, result) == url


def test_the_page_of_a_job_service_s_engine_is_the_one_in_the_config() -> None:
    assert page("portable", {"web_page": "http://localhost:8081"}) == "http://localhost:8081"
    assert page("portable", {}) == ""


@pytest.mark.parametrize("kind", ["spark", "direct"])
def test_other_engines_have_no_page(kind: str) -> None:
    assert page(kind, {}) == ""
