"""Stop a command by a signal, such as SIGINT (Ctrl-C) or SIGTERM: it cleans up, and can be resumed."""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

from pipeline.exit_codes import ExitCode
from pipeline.log import is_json, tell

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""In this order: sent by Ctrl-C, by schedulers and container engines, by a terminal that closes, and by
clusters some time before they kill a job."""
STOPPED_MESSAGE = "stopped; the same command continues from what is saved"
NUDGES, NUDGE_SECONDS = 10, 0.2
"""How many times the main thread is woken to run the handler, and the seconds in between."""
ENTER_SECONDS = 10.0
"""How long the main thread may run code that is not Python, such as SentencePiece's training."""
LEAVE_SECONDS = 60.0
"""How long a stopped command may clean up."""
RESEND_SECONDS = 0.05
"""How long after an exception was lost its signal is sent again."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the command.

    Args:
        number: the signal; None means the one that `stoppable` received.

    Attributes:
        code: the exit code of the command.
    """

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        self.code = exit_code(number or (_active.number if _active else signal.SIGINT))


class JobStopped(Stopped):
    """A signal stopped a Beam job, whose engine may have left threads in this process."""


def exit_code(number: int) -> ExitCode:
    """Return the exit code of a command that one of `STOP_SIGNALS` stopped."""
    return ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.STOPPED


def tell_stop(code: ExitCode, notes: Sequence[str] = (), stream: TextIO | None = None) -> None:
    """Tell that the command was stopped, with further lines."""
    stream = stream or sys.stderr
    if not is_json():
        print(file=stream)  # below the ^C that a terminal shows
    tell("\n".join([STOPPED_MESSAGE, *notes]), "warning", stream, exit_code=code)


class Resender:
    """Sends a signal again if the exception that its handler raised was lost.

    A handler may run inside a finaliser or a weak reference's callback. Python prints an exception that
    is raised there, and ignores it.

    Args:
        lost: called with an ignored exception; returns the signal to send again to the main thread, or
            None for an exception of another origin.
    """

    def __init__(self, lost: Callable[[BaseException | None], int | None]) -> None:
        self._lost, self._ended = lost, False
        self._lock = threading.Lock()
        # Its methods may be called again while they run, by a finaliser.
        self._numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def begin(self) -> None:
        # Started now, because later there may be no memory for a thread.
        threading.Thread(target=self._send, daemon=True).start()
        self._former = sys.unraisablehook
        sys.unraisablehook = self._see

    def end(self) -> None:
        sys.unraisablehook = self._former
        with self._lock:
            self._ended = True
        self._numbers.put(None)

    def _see(self, ignored: Any) -> None:
        number = self._lost(ignored.exc_value)
        if number is None:
            self._former(ignored)
        else:
            self._numbers.put(number)

    def _send(self) -> None:
        """Send signals from a thread of its own: in the main thread, the exception would be lost again."""
        main = threading.main_thread().ident
        assert main is not None
        while (number := self._numbers.get()) is not None:
            time.sleep(RESEND_SECONDS)
            with self._lock:
                if not self._ended:
                    signal.pthread_kill(main, number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let each of `STOP_SIGNALS` raise `Stopped` in the block; a second one kills the process.

    A signal that is ignored when the block begins, as SIGHUP is under `nohup`, stays ignored. SIGUSR2 is
    ignored in the block and in the processes that it starts. The process exits if the block does not
    end soon after the signal. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = _Stop()
    stop.begin()
    try:
        yield
    finally:
        stop.end()


class _Stop:
    """Handles the signals, and watches in a thread that the main thread reacts to them."""

    def __init__(self) -> None:
        self._entered, self._left = threading.Event(), threading.Event()
        self._former: dict[signal.Signals, Any] = {}
        self._resender = Resender(self._lost)
        self.number: int = signal.SIGINT

    def begin(self) -> None:
        global _active
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._raise)
        # A Python handler runs only between two instructions of the main thread. The watcher learns of
        # the signal at once, from the pipe. It wakes the main thread by SIGURG, which does nothing else:
        # the system may deliver a signal to another thread while the main thread waits for a lock.
        self._former[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self._former[signal.SIGURG] = signal.signal(signal.SIGURG, lambda number, frame: None)
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._former_pipe = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._resender.begin()
        _active = self

    def end(self) -> None:
        global _active
        # First, so that no signal is sent again to a process without the handlers.
        self._resender.end()
        self.forget()
        _active = None
        self._left.set()
        os.close(self._pipe[1])
        self._watcher.join()
        os.close(self._pipe[0])

    def forget(self) -> None:
        """Restore the former handlers."""
        signal.set_wakeup_fd(self._former_pipe)
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._entered.set()
        for other in self._former.keys() & STOP_SIGNALS:
            signal.signal(other, signal.SIG_DFL)
        raise Stopped(number)

    def _lost(self, error: BaseException | None) -> int | None:
        if not isinstance(error, Stopped):
            return None
        signal.signal(self.number, self._raise)
        return self.number

    def _watch(self) -> None:
        while byte := os.read(self._pipe[0], 1):
            if (number := byte[0]) in STOP_SIGNALS:
                # A stage may have a handler of its own, as training has, and restore ours at its end.
                is_ours = signal.getsignal(number) in (self._raise, signal.SIG_DFL)
                self._nudge()
                if is_ours:
                    self._leave(number)

    def _nudge(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        for _ in range(NUDGES):
            if self._entered.wait(NUDGE_SECONDS) or self._left.is_set():
                return
            signal.pthread_kill(main, signal.SIGURG)

    def _leave(self, number: int) -> None:
        if self._entered.wait(ENTER_SECONDS):
            self._left.wait(LEAVE_SECONDS)
        if not self._left.is_set():
            tell_stop(exit_code(number), stream=sys.__stderr__)
            os._exit(exit_code(number))


_active: _Stop | None = None


def _forget_in_child() -> None:
    # A forked child has the parent's pipe: its signals would stop the parent.
    if _active:
        _active.forget()


os.register_at_fork(after_in_child=_forget_in_child)
