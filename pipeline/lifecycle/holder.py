"""The holder of a lock file, and whether it has ended."""

import errno
import json
from typing import Any, NamedTuple

from preprocess.files import storage
from preprocess.files.processes import ProcessIdentity, has_ended, this_process

LENGTH = 512
"""Minimum bytes of a lock file; shorter content is padded with spaces."""


class Holder(NamedTuple):
    """A process that holds a lock file.

    Attributes:
        identity: the process; its place is empty if version 0.1 of biloom wrote the file.
        has_heartbeat: True if the process renews its lock file every few seconds.
    """

    identity: ProcessIdentity
    has_heartbeat: bool

    def __str__(self) -> str:
        return str(self.identity)

    def has_ended(self) -> bool | None:
        """Return True if the process has ended, False if it runs, None if this process cannot see it.

        It cannot see processes of another host or container, even if the host name is the same.
        """
        me = this_process()
        if self.has_heartbeat:
            can_judge = bool(me.place) and me.place == self.identity.place
        else:
            can_judge = me.host == self.identity.host
        return has_ended(self.identity.process, self.identity.began) if can_judge else None


def write_holder(identity: ProcessIdentity, token: str, beat: int) -> bytes:
    """Return the content of a lock file, of the same length at each beat.

    Args:
        identity: the holder.
        token: unique for each holder.
        beat: number of times that the holder has renewed the file.
    """
    record = json.dumps({"holder": token, **identity._asdict(), "beat": beat})
    return record.ljust(LENGTH).encode()


def read_holder(content: bytes) -> Holder | None:
    """Return the holder from the content of a lock file; None if it is damaged."""
    try:
        record: Any = json.loads(content)
        found = [record["host"], record["process"], record["began"], record.get("place", "")]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if list(map(type, found)) != [str, int, str, str] or found[1] <= 0:
        return None
    return Holder(ProcessIdentity(*found), "holder" in record)


def read_lock(path: str) -> bytes | None:
    """Return the content of a lock file; None if there is none."""
    try:
        try:
            return storage.read_bytes(path)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            # On a network file system, the holder has replaced the file between opening and reading.
            return storage.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
