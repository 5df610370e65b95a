"""A store that is killed in the middle of a stage and comes back after ten seconds."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.repeated_requests import MESSAGE
from preprocess.files import storage
from tests.stored_run import StoredRun

pytestmark = pytest.mark.slow

Command, SeaweedFS = Any, Any  # of conftest.py
OUTAGE_SECONDS = 10.0
BEFORE = {
    "prepare": ("tokenizer",),
    "train": ("tokenizer", "prepare"),
    "embed": ("tokenizer", "prepare", "train", "export"),
}
BEGUN = {"prepare": ("/units", ""), "train": ("", "step-"), "embed": ("/progress", "")}
"""Folder in the unfinished work of a running stage, and start of the names of files there."""


@pytest.fixture(scope="module")
def server(start_seaweedfs: Any, tmp_path_factory: pytest.TempPathFactory) -> SeaweedFS:
    """A store that only this module uses."""
    return start_seaweedfs(tmp_path_factory.mktemp("outages"))


@pytest.fixture(scope="module")
def bucket(server: SeaweedFS, bucket_at: Any) -> Iterator[str]:
    with bucket_at(server.address) as url:
        yield url


def has_begun(folder: str, below: str, start: str) -> bool:
    works = storage.list_folders(f"{folder}/_work")
    names = (name for work in works for name in storage.list_names(f"{folder}/_work/{work}{below}"))
    return any(name.startswith(start) for name in names)


@pytest.mark.parametrize("stage", BEFORE)
def test_a_stage_continues_after_an_outage(
    stage: str, job: StoredRun, server: SeaweedFS, bucket: str, biloom: Command
) -> None:
    output = f"{bucket}/{stage}"
    for former in BEFORE[stage]:
        answer = biloom.run(former, *job.arguments(output))
        assert (answer.returncode, answer.stderr) == (0, "")
    with biloom.start(stage, *job.arguments(output)) as driver:
        end = time.monotonic() + 120
        while not has_begun(f"{output}/{stage}", *BEGUN[stage]):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < end
        server.kill()
        time.sleep(OUTAGE_SECONDS)
        running = driver.poll() is None
        server.start()
        _, err = driver.communicate(timeout=240)
    assert running, err
    assert driver.returncode == 0, err
    # At most once, because this process may not need the store during the outage.
    assert err.removeprefix(f"biloom: {MESSAGE}\n") == ""
    assert job.equals_disk(output, stage)
