"""Temporary names of files that are being written, and removal of files that killed writers left."""

import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from preprocess.files import processes

TEMPORARY = ".biloom-tmp-"
"""Prefix of the names of files that are being written."""
_WRITER = re.compile(r"(?P<place>[0-9a-f]{16})-(?P<process>\d+)-(?P<began>\d+)-[0-9a-f]{8}-")


def temporary_name(target: Path) -> Path:
    """Return a name beside ``target`` that no other writer has, on any host and in any thread."""
    me = processes.this_process()
    writer = f"{me.place or me.host}-{me.process}-{me.began}-{secrets.token_hex(4)}"
    # The end of the name is for people, and short because the length of names is limited.
    return target.with_name(f"{TEMPORARY}{writer}-{target.name[-40:]}")


def remove_orphans(folder: Path) -> None:
    """Remove temporary files in ``folder`` and below whose writers have ended.

    If it is not known whether the writer has ended, for example because it is on another host, the
    file is removed if it is older than `processes.SILENCE_SECONDS`.
    """
    oldest: float | None = None
    for path in folder.rglob(f"{TEMPORARY}*"):
        is_orphan = _writer_has_ended(path.name)
        if is_orphan is None:
            # By the clock of the file system, which may be another machine's.
            oldest = oldest or _time_written_now(folder) - processes.SILENCE_SECONDS
            with suppress(FileNotFoundError):
                is_orphan = path.stat().st_mtime < oldest
        if is_orphan:
            with suppress(OSError):  # It may be another user's.
                path.unlink()


def _writer_has_ended(name: str) -> bool | None:
    writer = _WRITER.match(name.removeprefix(TEMPORARY))
    if not writer or writer["place"] != processes.this_process().place:
        return None
    return processes.has_ended(int(writer["process"]), writer["began"])


def _time_written_now(folder: Path) -> float:
    probe = temporary_name(folder / "time")
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # The disk may be full.
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
