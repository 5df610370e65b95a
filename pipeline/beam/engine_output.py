"""The last output of an engine, kept to explain a failure."""

import io
import logging
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.exhaustion import exhausted_in

LAST_LINES, LINE_CHARACTERS = 40, 300
"""Lines of the engine's output that are kept, and the length to which each is cut."""


class EngineOutput(io.TextIOBase):
    """Keeps the last lines that Beam and the engine wrote, to explain a failure.

    Attributes:
        lines: the lines.
        exhausted: what ran out, if a line says so, else "".
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self.exhausted = ""
        self._over = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._over and threading.current_thread() is self._thread:
            return self._former.write(text)
        self.exhausted = self.exhausted or exhausted_in(text)
        self.lines += [line[:LINE_CHARACTERS] for line in text.splitlines() if line.strip()]
        return len(text)

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Capture logs and standard error, which would bury our message."""
        self._former, self._thread = sys.stderr, threading.current_thread()
        root, threads = logging.getLogger(), set(threading.enumerate())
        handlers, root.handlers = root.handlers, [logging.StreamHandler(self)]
        sys.stderr = self
        failed = True
        try:
            yield
            failed = False
        finally:
            # Workers that are threads of this process still write about the failure. Keep capturing
            # their output, so that only our message is seen.
            self._over = failed and bool(set(threading.enumerate()) - threads)
            if not self._over:
                sys.stderr, root.handlers = self._former, handlers
