"""The job server ends with the process that started it, and is out of reach of Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.beam.job_server import LAUNCHER

DRIVER = """
import os, subprocess, sys
from pipeline.beam.job_server import LAUNCHER
launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
server = subprocess.Popen([*launcher, "sleep", "60"])
print(server.pid, flush=True)
server.wait()
"""


def command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def wait_until_command(process: int, line: bytes) -> None:
    end = time.monotonic() + 20
    while command(process) != line:
        assert time.monotonic() < end, command(process)
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux kills the children of a killed process")
def test_the_server_of_a_killed_driver_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE) as driver:
        assert driver.stdout
        server = int(driver.stdout.readline())
        wait_until_command(server, b"sleep\0" + b"60\0")
        assert os.getpgid(server) == server, "Ctrl-C is for the driver alone"
        driver.kill()
    wait_until_command(server, b"")


def test_the_server_does_not_start_if_its_driver_has_ended() -> None:
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, "1" if os.getpid() != 1 else "2"]
    assert subprocess.run([*launcher, "false"], check=False, timeout=20).returncode == 0


def test_a_signal_that_the_driver_ignores_ends_the_server() -> None:
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server = subprocess.Popen([*launcher, "sleep", "60"])
    finally:
        signal.signal(signal.SIGINT, former)
    with server:
        wait_until_command(server.pid, b"sleep\0" + b"60\0")
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == -signal.SIGINT
