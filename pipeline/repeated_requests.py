"""Tell when requests to an object store fail again and again, because botocore repeats them in silence."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOGGER = "botocore.retries.standard"
"""Logger of botocore, which s3fs also uses, with a record for each attempt of a request."""
REPEATED = "Retry needed, retrying"
"""Start of the record if the request is repeated."""
PATIENCE_SECONDS = 5.0
"""How long no request succeeds before the user is told. A busy store often refuses a few."""
AGAIN_SECONDS = 60.0
"""Pause between two messages."""
MESSAGE = (
    "waiting for an object store: it does not answer, or it refuses requests, which are repeated for "
    "about a minute. If that does not end, check its address and that it is running"
)


class _Watch(logging.Handler):
    """Calls ``tell`` if no request has succeeded for some seconds."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.DEBUG)
        self._tell = tell
        self._told, self._first = float("-inf"), float("inf")

    def emit(self, record: logging.LogRecord) -> None:
        if not str(record.msg).startswith(REPEATED):
            self._first = float("inf")
            return
        now = time.monotonic()
        self._first = min(self._first, now)
        if now - self._first >= PATIENCE_SECONDS and now - self._told >= AGAIN_SECONDS:
            self._told = now
            self._tell(MESSAGE)


@contextmanager
def repeated_requests_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Call ``tell`` with a message, at most once a minute, while no request to a store succeeds."""
    logger, watch = logging.getLogger(LOGGER), _Watch(tell)
    former = logger.level, logger.propagate
    logger.addHandler(watch)
    # Otherwise the handlers of all libraries would get each record.
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(watch)
        logger.setLevel(former[0])
        logger.propagate = former[1]
