"""Temporary names of files that are being written, and files and folders below TMPDIR.

A file that is being written has a temporary name beside its target. If the writer is killed, the file is
removed later. Files that are needed only while a process runs are below TMPDIR.
"""

import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from preprocess.files import processes
from preprocess.files.errors import NO_SPACE, DiskFull, StorageError

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


_ADVICE = "set TMPDIR to a writable folder on a disk with enough space"


def temporary_root() -> str:
    """Return the folder of temporary files: TMPDIR, or, if it is not set, the system's.

    Raises:
        StorageError: the folder cannot be written. Python would silently use another one instead of
            TMPDIR, such as the current folder.
    """
    wanted = os.environ.get("TMPDIR")
    if wanted:
        try:
            next(Path(wanted).iterdir(), None)
        except OSError as error:
            raise StorageError(f"TMPDIR is {wanted} ({error.strerror}); {_ADVICE}") from error
        if not os.access(wanted, os.W_OK | os.X_OK):
            raise StorageError(f"TMPDIR is {wanted}, which cannot be written; {_ADVICE}")
        return str(Path(wanted).absolute())
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise StorageError(f"no folder for temporary files can be written; {_ADVICE}") from error


@contextmanager
def temporary_file() -> Iterator[IO[bytes]]:
    """Yield a temporary file without a name; errors as in `temporary_folder`."""
    with _reported() as place, tempfile.TemporaryFile(dir=place[0]) as file:
        yield file


@contextmanager
def temporary_folder(prefix: str) -> Iterator[str]:
    """Yield a temporary folder, which is removed when the block ends.

    Raises:
        StorageError: the folder cannot be made, or the block fills its disk.
    """
    with (
        _reported() as place,
        tempfile.TemporaryDirectory(dir=place[0], prefix=prefix) as folder,
    ):
        # Results may be written beside the folder, because TMPDIR can hold them, too.
        place[0] = folder
        yield folder


@contextmanager
def _reported() -> Iterator[list[str]]:
    """Name the folder of temporary files in the errors of a block that writes to it.

    Yields:
        A list of that folder alone. The block may replace it by the part of it that it writes to.
    """
    root = temporary_root()
    place = [root]
    try:
        yield place
    # Errors about other files already name them.
    except OSError as error:
        if not _concerns(error, place[0]):
            raise
        reason = error.strerror or str(error)
        kind = DiskFull if error.errno in NO_SPACE else StorageError
        raise kind(f"{root}: temporary files cannot be written ({reason}); {_ADVICE}") from error
    except StorageError as error:
        cause = error.__cause__
        if not (isinstance(cause, OSError) and str(error).startswith(f"{place[0]}/")):
            raise
        raise type(error)(
            f"{root}: temporary files cannot be written ({cause.strerror}); {_ADVICE}"
        ) from error


def _concerns(error: OSError, place: str) -> bool:
    name: Any = error.filename
    if name is None:
        return error.errno in NO_SPACE
    return isinstance(name, str) and (name == place or name.startswith(f"{place}/"))
