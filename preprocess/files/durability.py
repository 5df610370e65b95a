"""When written local files are flushed to disk (fsync): one by one, together, or never.

An fsync takes a millisecond or more, and flushing ten files together takes hardly longer than one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

_waiting: ContextVar[list[Path] | None] = ContextVar("_waiting", default=None)


@contextmanager
def synced_together() -> Iterator[None]:
    """Flush the local files written in the block to disk once, when the block ends."""
    with never_synced() as written:
        yield
    for path in written:
        _sync(path)
    for folder in dict.fromkeys(path.parent for path in written):
        _sync(folder)


@contextmanager
def never_synced() -> Iterator[list[Path]]:
    """Write local files in the block without fsync, so that a machine crash may lose them.

    Yields:
        The paths of the files written so far; the list grows as the block writes.
    """
    written: list[Path] = []
    token = _waiting.set(written)
    try:
        yield written
    finally:
        _waiting.reset(token)


def sync_data(file: IO[bytes]) -> None:
    """Flush an open file to disk, unless `synced_together` or `never_synced` encloses the call."""
    file.flush()
    if _waiting.get() is None:
        os.fsync(file.fileno())


def sync_name(path: Path) -> None:
    """Flush the directory entry of a file that has just been created or renamed.

    Within `synced_together` or `never_synced`, register the file for that block instead.
    """
    waiting = _waiting.get()
    if waiting is None:
        _sync(path.parent)
    else:
        waiting.append(path)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk, unless `never_synced` encloses the call."""
    if _waiting.get() is None:
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
