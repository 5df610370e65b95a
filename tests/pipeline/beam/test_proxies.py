"""A proxy of the user's is not used for connections within this machine."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.beam.engines import FLINK_JAR
from pipeline.beam.proxies import EXCEPTIONS, HERE, bypass_proxies

Tiny = Any  # of conftest.py
Command = Any


def listed(monkeypatch: pytest.MonkeyPatch, **given: str) -> list[str]:
    """Return the values of `EXCEPTIONS` in an environment with the given ones."""
    for name in EXCEPTIONS:
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    bypass_proxies(*HERE)
    return [os.environ[name] for name in EXCEPTIONS]


def test_this_machine_is_added_to_what_the_user_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(monkeypatch) == ["localhost,127.0.0.1,::1"] * 3
    assert listed(monkeypatch, no_proxy="") == ["localhost,127.0.0.1,::1"] * 3
    assert listed(monkeypatch, no_proxy="*") == ["*"] * 3
    assert listed(monkeypatch, NO_PROXY="a.org, localhost") == [
        "a.org,localhost,127.0.0.1,::1",
        "a.org,localhost,127.0.0.1,::1",
        "a.org,localhost,127.0.0.1,::1",
    ]
    assert listed(monkeypatch, no_grpc_proxy="a", no_proxy="b") == [
        "a,localhost,127.0.0.1,::1",
        "b,localhost,127.0.0.1,::1",
        "a,localhost,127.0.0.1,::1",
    ]


PROXIES = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "grpc_proxy",
)


@pytest.mark.parametrize(
    "runner",
    [
        ("runner.options.mode=multi_processing", "runner.options.workers=2"),
        ("runner.options.mode=multi_threading", "runner.options.workers=2"),
        pytest.param(
            ("runner.kind=flink", "runner.options.sdk_worker_parallelism=1"),
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(FLINK_JAR not in os.environ, reason=f"{FLINK_JAR} is not set"),
            ],
        ),
    ],
)
def test_workers_of_this_machine_are_reached_without_the_proxy(
    runner: tuple[str, ...], tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {
            **os.environ,
            **dict.fromkeys(PROXIES, proxy),
            "no_proxy": "",
            "NO_PROXY": "",
        }
        arguments = tiny.arguments(tmp_path, *runner, "runner.stall_seconds=120")
        answer = biloom.run("prepare", *arguments, env=environment)
    assert (answer.returncode, answer.stderr) == (0, "")
