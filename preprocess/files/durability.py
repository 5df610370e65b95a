"""When a file that was written is on the disk: at once, or together with others.

To wait for the disk costs a millisecond or more, and almost the same for one file as for ten.
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
    """Local files written in the block are on the disk when it ends, and not before."""
    with never_synced() as written:
        yield
    for path in written:
        _sync(path)
    for folder in dict.fromkeys(path.parent for path in written):
        _sync(folder)


@contextmanager
def never_synced() -> Iterator[list[Path]]:
    """Local files written in the block may be lost with the machine; gives which they are."""
    written: list[Path] = []
    token = _waiting.set(written)
    try:
        yield written
    finally:
        _waiting.reset(token)


def sync_data(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk, where nobody waits for it later."""
    file.flush()
    if _waiting.get() is None:
        os.fsync(file.fileno())


def sync_name(path: Path) -> None:
    """The same for the name of a file, once it has it."""
    waiting = _waiting.get()
    if waiting is None:
        _sync(path.parent)
    else:
        waiting.append(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
