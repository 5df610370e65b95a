"""A proxy of the user's is not used for connections within this machine."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.beam.proxies import EXCEPTIONS, bypass_proxies_here

Tiny = Any  # of conftest.py
Command = Any


def listed(monkeypatch: pytest.MonkeyPatch, **given: str) -> list[str]:
    """Return the values of `EXCEPTIONS` in an environment with the given ones."""
    for name in EXCEPTIONS:
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    bypass_proxies_here()
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


@pytest.mark.parametrize("mode", ["multi_processing", "multi_threading"])
def test_workers_of_this_machine_are_reached_without_the_proxy(
    mode: str, tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""}
        settings = (f"runner.options.mode={mode}", "runner.options.workers=2")
        arguments = tiny.arguments(tmp_path, *settings, "runner.stall_seconds=20")
        answer = biloom.run("prepare", *arguments, env=environment)
    assert (answer.returncode, answer.stderr) == (0, "")
