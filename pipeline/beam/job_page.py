"""The web page on which an engine shows a job."""

import threading
from contextlib import suppress
from typing import Any

from pipeline.beam.flink_cluster import job_page as page_of_flink
from pipeline.config.runners import RunnerConfig

WAIT_SECONDS = 60.0
"""How long the page of a job is looked for."""


def job_page(config: RunnerConfig, name: str, result: Any, ended: threading.Event) -> str:
    """Return the URL of a job's page; empty if the engine has none, or does not tell it.

    Args:
        config: the engine.
        name: name of the job.
        result: Beam's result of the pipeline.
        ended: set when the job has ended; the search then ends.
    """
    # The page is only shown, so no error of the engine's answers matters.
    with suppress(Exception):
        if config.kind == "flink" and config.options.cluster:
            return page_of_flink(config.options.cluster, name, WAIT_SECONDS, ended)
        if config.kind == "portable":  # a job service does not tell which engine it sends jobs to
            return config.options.web_page or ""
        if config.kind == "dask":
            return str(result.client.dashboard_link)
        if config.kind == "dataflow":
            options = config.options
            return (
                f"https://console.cloud.google.com/dataflow/jobs/{options.region}/"
                f"{result.job_id()}?project={options.project}"
            )
    return ""
