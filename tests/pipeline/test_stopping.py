"""SIGINT, SIGTERM, SIGHUP and SIGUSR1 stop a command with one line and an exit code."""

import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from pipeline import stopping
from pipeline.stopping import (
    STOP_SIGNALS,
    STOPPED_MESSAGE,
    JobStopped,
    Stopped,
    exit_code,
    stoppable,
)

PROGRAM = """
import signal, sys, threading, time
from pipeline import stopping
from pipeline.stopping import stoppable

{before}
try:
    with stoppable():
        print("ready", flush=True)
        {block}
except stopping.Stopped as stop:
    print("cleaned up", flush=True)
    sys.exit(stop.code)
"""


def start(block: str, before: str = "", **options: Any) -> "subprocess.Popen[str]":
    program = PROGRAM.format(block=block, before=before)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # until the block has begun
    return process


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_each_signal_interrupts_the_block(number: int) -> None:
    with start("time.sleep(60)") as process:
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("cleaned up\n", "")
    assert process.returncode == (130 if number == signal.SIGINT else 75)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGINT])
def test_a_job_that_a_signal_stopped_ends_with_the_code_of_the_signal(number: int) -> None:
    def engine() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:  # an engine may turn it into another error
            raise JobStopped() from error

    with pytest.raises(JobStopped) as stopped, stoppable():
        engine()
    assert stopped.value.code == exit_code(number)


class Raises:
    """An object whose finaliser receives a signal."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_arrives_in_a_finaliser_stops_the_block(number: int) -> None:
    def sleep() -> None:
        Raises(number)
        time.sleep(30)

    began = time.monotonic()
    with pytest.raises(Stopped) as stopped, stoppable():
        sleep()
    assert stopped.value.code == exit_code(number)
    assert time.monotonic() - began < 20


def test_a_signal_that_was_lost_is_not_sent_after_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "RESEND_SECONDS", 1.0)
    arrived: list[int] = []
    monkeypatch.setattr(signal, "pthread_kill", lambda thread, number: arrived.append(number))
    before = sys.unraisablehook
    with stoppable():
        Raises(signal.SIGTERM)
    time.sleep(1.5)
    assert sys.unraisablehook is before
    assert signal.SIGTERM not in arrived


def test_other_exceptions_in_a_finaliser_are_reported_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Faulty:
        def __del__(self) -> None:
            raise KeyError("a fault")

    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: seen.append(ignored.exc_type))
    with stoppable():
        Faulty()
    assert seen == [KeyError]


def test_sigusr2_stops_neither_a_command_nor_its_processes() -> None:
    block = (
        "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'input()'], "
        "stdin=subprocess.PIPE); time.sleep(0.5); child.send_signal(signal.SIGUSR2); "
        "signal.raise_signal(signal.SIGUSR2); child.communicate(b'end')"
    )
    with start(block) as process:
        process.send_signal(signal.SIGUSR2)
        assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_a_second_signal_kills_a_process_that_does_not_end() -> None:
    block = (
        "while True: exec('try: time.sleep(60)\\nexcept KeyboardInterrupt: print(1, flush=True)')"
    )
    with start(block) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_was_ignored_stays_ignored(number: int) -> None:
    before = f"signal.signal({int(number)}, signal.SIG_IGN)"
    with start("sys.stdin.readline()", before, stdin=subprocess.PIPE) as process:
        process.send_signal(number)
        assert process.communicate("go on\n", timeout=20) == ("", "")
    assert process.returncode == 0


def test_a_signal_that_reaches_another_thread_interrupts_a_wait_of_the_main_thread() -> None:
    # A thread that sends the signal to itself, as the system may choose it.
    before = (
        "def send(): time.sleep(2); signal.pthread_kill(threading.get_ident(), signal.SIGTERM)\n"
        "threading.Thread(target=send, daemon=True).start()"
    )
    with start("threading.Event().wait()", before) as process:
        assert process.communicate(timeout=20) == ("cleaned up\n", "")


HELD = "stopping.ENTER_SECONDS = stopping.LEAVE_SECONDS = 0.5; stopping.NUDGES = 1"


@pytest.mark.parametrize(
    "block",
    [
        "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 1 << 30)",
        "while True: exec('try: time.sleep(60)\\nexcept KeyboardInterrupt: pass')",
    ],
    ids=["code that is not Python", "an interrupt that is swallowed"],
)
def test_a_process_that_does_not_react_ends(block: str) -> None:
    with start(block, HELD) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("", f"\nbiloom: {STOPPED_MESSAGE}\n")
    assert process.returncode == exit_code(signal.SIGTERM) == 75


def test_a_stage_with_its_own_handler_is_not_ended() -> None:
    block = "signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(3)"
    with start(block, HELD) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_a_signal_of_a_forked_child_does_not_stop_the_parent() -> None:
    block = (
        "import os; child = os.fork() or time.sleep(60); time.sleep(1);"
        "os.kill(child, signal.SIGTERM);"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True); time.sleep(2)"
    )
    with start(block, HELD) as process:
        assert process.communicate(timeout=20) == (f"{-signal.SIGTERM}\n", "")
    assert process.returncode == 0


def test_the_former_handlers_are_restored() -> None:
    def handlers() -> list[Any]:
        return [
            signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGUSR2, signal.SIGURG)
        ]

    former = handlers()
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert handlers() == former


def test_another_thread_than_the_main_one_handles_no_signals() -> None:
    seen = []

    def look() -> None:
        with stoppable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
