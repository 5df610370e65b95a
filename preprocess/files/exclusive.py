"""Create, change or remove a file that other processes may write at the same time.

On a local disk, the folder is locked by the kernel (flock); if the file system has no such locks, as
on some networks, a guard file replaces them. On a store, conditional writes are used. If the store
has none, the file is read again after `SETTLE_SECONDS`, to see which of several writers was last.
"""

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from preprocess.files import processes, storage
from preprocess.files.errors import StoreError, report_write_errors
from preprocess.files.temporary import TEMPORARY, temporary_name

SETTLE_SECONDS = 2.0
"""Time for the writers of one file to finish, on a store without conditional writes."""
GUARD = f"{TEMPORARY}guard"
"""Name of the guard file."""

_POLL_SECONDS = 0.02
# Stores whose create-only put is one request; other clients look first and then write.
_CREATE_PROTOCOLS = ("s3", "s3a", "gs", "gcs", "memory")
# Stores whose client passes on the condition that the object still has a tag.
_TAG_PROTOCOLS = ("s3", "s3a")
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK)
_Change = Callable[[bytes], bytes | None]


def create_exclusive(path: str, data: bytes) -> bool:
    """Create a file only if it does not exist; return True if it was created, otherwise False.

    ``data`` must differ between writers, so that a writer can recognise its own.

    Raises:
        StorageError: the file cannot be written.
    """
    if storage.is_remote(path):
        return _create_object(path, data)
    target = storage.local_path(path)
    with report_write_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        try:
            temporary.write_bytes(data)
            os.link(temporary, target)
        except FileExistsError:
            # A network file system may have made the link and repeated the call.
            return temporary.stat().st_nlink > 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_without_link(target, data)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _create_without_link(target: Path, data: bytes) -> bool:
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return True


def update_exclusive(path: str, change: _Change, in_place: bool = False) -> bool:
    """Replace the content of a file unless another writer changes it in the meantime.

    Args:
        path: the file. If it does not exist, it is not created.
        change: takes the present content and returns the new content, or None to leave the file.
        in_place: overwrite a local file instead of replacing it, which also works on a full disk. The
            length of the content must not change. A reader may see a mixture of both contents.

    Returns:
        True if the file was replaced.

    Raises:
        StorageError: the file cannot be read or written.
    """
    if storage.is_remote(path):
        return _update_object(path, change)
    target = storage.local_path(path)
    with report_write_errors(path), _locked_parent(target) as is_there:
        if in_place:
            return is_there and _overwrite(target, change)
        old = _content(path) if is_there else None
        new = change(old) if old is not None else None
        if new is None:
            return False
        temporary = temporary_name(target)
        try:
            temporary.write_bytes(new)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _overwrite(target: Path, change: _Change) -> bool:
    # One handle to read and write: if another host replaces the file, its file is not changed.
    with suppress(FileNotFoundError), open(target, "r+b") as file:
        new = change(file.read())
        if new is not None:
            file.seek(0)
            file.write(new)
            return True
    return False


def remove_exclusive(path: str, is_own: Callable[[bytes], bool]) -> None:
    """Remove a file if it exists and ``is_own`` returns True for its content.

    On a store, the check and the removal are two requests, so another process may write in between.
    """
    if storage.is_remote(path):
        with suppress(FileNotFoundError):
            if is_own(storage.read_bytes(path)):
                storage.remove(path)
        return
    target = storage.local_path(path)
    with _locked_parent(target) as is_there:
        old = _content(path) if is_there else None
        if old is not None and is_own(old):
            target.unlink(missing_ok=True)


def _content(path: str) -> bytes | None:
    """Return the content of a file or object, or None if there is none."""
    try:
        return storage.read_bytes(path)
    except FileNotFoundError:
        return None


@contextmanager
def _locked_parent(target: Path) -> Iterator[bool]:
    """Run the block with the parent folder locked; yield False if there is no such folder."""
    try:
        handle = os.open(target.parent, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    with _locked(handle, target.parent):
        yield True


@contextmanager
def one_at_a_time(folder: str) -> Iterator[str]:
    """Let one process or thread at a time run the block, for a local folder; not reentrant.

    Does nothing for a remote folder.

    Yields:
        Why the file system cannot lock the folder, so that a guard file takes the lock's place; empty
        if it can.
    """
    if storage.is_remote(folder):
        yield ""
        return
    path = storage.local_path(folder)
    with _locked(os.open(path, os.O_RDONLY), path) as reason:
        yield reason


@contextmanager
def _locked(handle: int, folder: Path) -> Iterator[str]:
    try:
        try:
            processes.flock(handle)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            try:
                yield ""
            finally:
                # Closing is not enough: a process forked meanwhile has a copy of the handle.
                processes.unlock(handle)
            return
        with _guarded(str(folder / GUARD)):
            yield reason
    finally:
        os.close(handle)


@contextmanager
def _guarded(path: str) -> Iterator[None]:
    """Hold a guard file while the block runs, after waiting for its present holder.

    A guard file that has not changed for `processes.SILENCE_SECONDS` is that of a killed process, and
    is removed.
    """
    mine = secrets.token_hex(8).encode()
    target = storage.local_path(path)
    seen: bytes | None = None
    since = time.monotonic()
    while not create_exclusive(path, mine):
        if (now := _content(path)) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > processes.SILENCE_SECONDS:
            target.unlink(missing_ok=True)
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if _content(path) == mine:
            target.unlink(missing_ok=True)


def _create_object(path: str, data: bytes) -> bool:
    fs, inner = storage.open_remote(path)

    def put(**condition: Any) -> None:
        fs.put_finished(inner, lambda: fs.pipe_file(inner, data, **condition))

    # Some stores and clients ignore the condition, so look for the file first.
    if _content(path) is not None:
        return False
    if _protocol(path) not in _CREATE_PROTOCOLS:
        put()
        return _is_settled(path, data)
    try:
        put(mode="create")
    except StoreError as error:
        now = _content(path)
        if now is not None:
            # It may be the caller's own: the client repeats a request without an answer.
            return now == data
        if not _is_unknown_to_store(error):
            raise
        put()
        return _is_settled(path, data)
    return _fails(lambda: put(mode="create")) or _is_settled(path, data)


def _update_object(path: str, change: _Change) -> bool:
    fs, inner = storage.open_remote(path)
    fs.invalidate_cache()
    try:
        # The tag before the content: if the tag is too old, the condition fails.
        tag = fs.info(inner).get("ETag") if _protocol(path) in _TAG_PROTOCOLS else None
        old = storage.read_bytes(path)
    except FileNotFoundError:
        return False
    new = change(old)
    if new is None:
        return False

    def put(**condition: Any) -> None:
        fs.pipe_file(inner, new, **condition)

    is_atomic = False
    if tag:
        try:
            put(IfMatch=tag)
            is_atomic = _fails(lambda: put(IfMatch=tag))
        except FileNotFoundError:
            return False
        except StoreError as error:
            now = _content(path)
            if now != old:
                return now == new
            if not _is_unknown_to_store(error):
                raise
            put()
    else:
        put()
    return is_atomic or _is_settled(path, new)


def _fails(put: Callable[[], None]) -> bool:
    """Return True if the store refuses a put whose condition does not hold."""
    try:
        put()
    except (StoreError, FileNotFoundError):
        return True
    return False


def _protocol(path: str) -> str:
    return path.split("://", 1)[0]


def _is_unknown_to_store(error: StoreError) -> bool:
    """Return True if the store does not implement conditional writes."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSYS


def _is_settled(path: str, data: bytes) -> bool:
    """Return True if ``data`` is what the last of several writers wrote."""
    time.sleep(SETTLE_SECONDS)
    return _content(path) == data
