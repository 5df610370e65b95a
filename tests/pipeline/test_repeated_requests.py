"""A store that does not answer is told before its requests are given up."""

import logging

import pytest

from pipeline import repeated_requests
from pipeline.repeated_requests import LOGGER, MESSAGE, REPEATED, repeated_requests_told


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(repeated_requests.time, "monotonic", lambda: now[0])
    return now


def test_repeats_are_told_after_five_seconds_and_once_a_minute(clock: list[float]) -> None:
    told: list[tuple[float, str]] = []
    logger = logging.getLogger(LOGGER)
    with repeated_requests_told(lambda message: told.append((clock[0], message))):
        for clock[0] in (100, 102, 104, 106, 115, 130, 150, 165, 167):
            logger.debug(f"{REPEATED} request after delay of: %s", 1.0)
    assert told == [(106, MESSAGE), (167, MESSAGE)]


def test_repeats_between_requests_that_succeed_are_not_told(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    logger = logging.getLogger(LOGGER)
    former = logger.level, logger.propagate
    with caplog.at_level(logging.DEBUG), repeated_requests_told(told.append):
        for clock[0] in (100, 103, 106, 220):
            logger.debug(REPEATED)
            logger.debug("Not retrying request.")
    assert (told, caplog.text) == ([], "")
    assert (logger.level, logger.propagate) == former
    assert not logger.handlers


def test_s3fs_repeats_requests_with_that_record(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(repeated_requests, "PATIENCE_SECONDS", 0.0)
    from botocore.exceptions import EndpointConnectionError

    store = s3fs.S3FileSystem(
        key="test",
        secret="test",
        endpoint_url="http://127.0.0.1:1",
        skip_instance_cache=True,
        config_kwargs={"retries": {"mode": "standard"}},
    )
    told: list[str] = []
    with repeated_requests_told(told.append), pytest.raises(EndpointConnectionError):
        store.ls("bucket")
    assert told == [MESSAGE]
