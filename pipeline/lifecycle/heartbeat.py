"""Whether the process that holds a lock file runs, as far as another process can tell."""

import time
from typing import NamedTuple

from pipeline.lifecycle.holder import read_holder, read_lock
from pipeline.lifecycle.lease import BEAT_SECONDS
from preprocess.files import processes
from preprocess.files.modified import modified

WATCH_SECONDS = 1.5 * BEAT_SECONDS
"""How long a lock file that looks abandoned is watched."""
POLL_SECONDS = 1.0


class Heartbeat(NamedTuple):
    """The holder of a lock file, and its last sign of life.

    Attributes:
        who: the holder, such as "process 12 on host".
        has_ended: True if the holder has ended, or has not renewed the file for
            `processes.SILENCE_SECONDS` and while it was watched.
        age: seconds since it renewed the file, by the clock of the disk or store; None if not known.
    """

    who: str
    has_ended: bool
    age: float | None


def heartbeat(path: str) -> Heartbeat | None:
    """Return the holder of a lock file; None if there is no lock file, or it is damaged.

    A holder of this machine is judged at once. For another one, the age of the file decides if it is
    plausible; otherwise the clocks may differ, so the file is watched for `WATCH_SECONDS`.

    Args:
        path: path of the lock file.
    """
    seen = read_lock(path)
    holder = read_holder(seen or b"")
    if holder is None:
        return None
    # Version 0.1 does not renew the file.
    age = _age(path) if holder.has_heartbeat else None
    ended = holder.has_ended()
    if ended is None and holder.has_heartbeat:
        if age is not None and 0 <= age <= processes.SILENCE_SECONDS:
            return Heartbeat(str(holder), False, age)
        if _changes(path, seen):
            return Heartbeat(str(holder), False, 0.0)
        ended = True
    return Heartbeat(str(holder), bool(ended), None if age is None else max(age, 0.0))


def _age(path: str) -> float | None:
    try:
        written = modified(path)
    except FileNotFoundError:  # released since it was read
        return None
    return None if written is None else time.time() - written


def _changes(path: str, seen: bytes | None) -> bool:
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(min(POLL_SECONDS, WATCH_SECONDS))
        if read_lock(path) != seen:
            return True
    return False
