"""Read, write and list files by path or URL; the only module that imports fsspec.

Writes are atomic: a file appears complete or not at all. A local file is written under a temporary
name, flushed and renamed; an object is uploaded in one put. A path without a protocol is local.

For remote paths every function may raise `StoreError` if the store fails, and `StorageError` if the
package for the URL's protocol is not installed.
"""

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from preprocess.files.archive import Archive
from preprocess.files.chained import ARCHIVES, Chained, has_protocol, split_chain
from preprocess.files.durability import sync_data, sync_name
from preprocess.files.errors import (
    ReportingStore,
    StorageError,
    archive_errors,
    report_write_errors,
)

TEMPORARY = ".biloom-tmp-"
"""Prefix of the names of files that are being written."""


def is_remote(path: str) -> bool:
    """Return True if ``path`` is a URL that is not, or not only, on the local disk."""
    if path.startswith(("file://", "local://")):
        return False
    return has_protocol(path) or ("::" in path and split_chain(path) is not None)


def local_path(path: str) -> Path:
    """Return a local path or ``file://`` URL as a `Path`; ``~`` and ``~user`` are expanded."""
    # Unlike Path.expanduser, it keeps a name such as `~a.txt`, which is no user's.
    return Path(os.path.expanduser(path.removeprefix("file://").removeprefix("local://")))  # noqa: PTH111


def absolute(path: str) -> str:
    """Return a local path as an absolute one, which all workers can open; URLs are unchanged."""
    return path if is_remote(path) else str(local_path(path).absolute())


def join(folder: str, *parts: str) -> str:
    """Return the path or URL of ``parts``, nested names, below ``folder``."""
    return "/".join([folder.rstrip("/"), *parts]) if folder != "/" else "/" + "/".join(parts)


def open_remote(path: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    The file system is fsspec's, with errors that name the URL.
    """
    import fsspec

    chain = split_chain(path)
    if chain and chain.protocol in ARCHIVES:
        return ReportingStore(open_archive(chain), path), chain.member
    try:
        # fsspec would take `::` in a key for a chain.
        folder = path if chain else path[: path.rfind("/", 0, path.find("::")) + 1] or path
        fs, inner = fsspec.core.url_to_fs(folder)
        if folder != path:
            inner = join(inner, path.removeprefix(folder))
        return ReportingStore(fs, path), str(inner)
    except (ImportError, ValueError) as error:
        protocol = path.split("://", 1)[0]
        extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hf": "hf"}.get(protocol)
        hint = f"; pip install 'biloom[{extra}]'" if extra else ""
        raise StorageError(f"{path}: cannot open a '{protocol}' URL ({error}){hint}") from error


# Kept open, because opening an archive reads its index, and a worker may read many members.
@lru_cache(maxsize=4)
def _archive(chain: Chained, process: int, thread: int) -> Archive:
    return Archive(chain, open_read(chain.outer))


def open_archive(chain: Chained, reopen: bool = False) -> Archive:
    """Return the archive of a chained URL, which this thread may have open already.

    Args:
        chain: the URL; its member does not count.
        reopen: open it again, because the file may have changed.

    Raises:
        DamagedArchive: the file cannot be read as an archive.
        FileNotFoundError: the file does not exist.
    """
    if reopen:
        _archive.cache_clear()
    with archive_errors(str(chain)):
        return _archive(chain._replace(member=""), os.getpid(), threading.get_ident())


def exists(path: str) -> bool:
    """Return True if ``path`` is an existing file or folder."""
    if is_remote(path):
        fs, inner = open_remote(path)
        fs.invalidate_cache()
        return bool(fs.exists(inner))
    return local_path(path).exists()


def read_bytes(path: str, start: int = 0, end: int | None = None) -> bytes:
    """Return the bytes ``[start, end)`` of a file; None means to its end.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if is_remote(path):
        fs, inner = open_remote(path)
        return bytes(fs.cat_file(inner, start=start, end=end))
    with open(local_path(path), "rb") as file:
        file.seek(start)
        return file.read() if end is None else file.read(end - start)


def open_read(path: str) -> BinaryIO:
    """Open a file as a seekable binary stream, which the caller closes.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if is_remote(path):
        fs, inner = open_remote(path)
        return cast(BinaryIO, ReportingStore(fs.open(inner, "rb"), path))
    return open(local_path(path), "rb")


def _temporary(target: Path) -> Path:
    return target.with_name(f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{target.name}")


@contextmanager
def atomic_writer(path: str) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes ``path`` when the block ends, unless the block raises.

    Raises:
        StorageError: the disk is full, permissions are missing, or the bucket does not exist.
    """
    if is_remote(path):
        fs, inner = open_remote(path)
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            fs.put_finished(inner, lambda: fs.put_file(file.name, inner))
        return
    target = local_path(path)
    temporary = _temporary(target)
    with report_write_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                sync_data(file)
            temporary.replace(target)
            sync_name(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file atomically; errors as in `atomic_writer`."""
    if is_remote(path):
        fs, inner = open_remote(path)
        fs.put_finished(inner, lambda: fs.pipe_file(inner, data))
        return
    with atomic_writer(path) as file:
        file.write(data)


def create_exclusive(path: str, data: bytes) -> bool:
    """Create a file only if it does not exist; return True if it was created, otherwise False.

    On a remote store two writers may both succeed, because the check and the write are two calls.
    """
    if is_remote(path):
        if exists(path):
            return False
        write_bytes(path, data)
        return True
    target = local_path(path)
    with report_write_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    return True


def copy(source: str, target: str) -> None:
    """Copy a file within one store; a local copy is a hard link if the disk supports it."""
    if is_remote(source):
        fs, inner = open_remote(source)
        fs.cp_file(inner, open_remote(target)[1])
        return
    old, new = local_path(source), local_path(target)
    temporary = _temporary(new)
    with report_write_errors(target):
        new.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            try:
                os.link(old, temporary)
            except OSError:
                shutil.copyfile(old, temporary)
            temporary.replace(new)
        finally:
            # Also after success: a rename onto another link of the same file leaves both names.
            temporary.unlink(missing_ok=True)


def remove(path: str) -> None:
    """Remove a file if it exists."""
    if is_remote(path):
        fs, inner = open_remote(path)
        if fs.exists(inner):
            fs.rm_file(inner)
        return
    local_path(path).unlink(missing_ok=True)


def remove_tree(folder: str) -> None:
    """Remove a folder and everything below it, if it exists."""
    if is_remote(folder):
        fs, inner = open_remote(folder)
        fs.invalidate_cache()
        if fs.exists(inner):
            fs.rm(inner, recursive=True)
        return
    shutil.rmtree(local_path(folder), ignore_errors=True)


def remove_temporary(folder: str) -> None:
    """Remove temporary files that killed writers left in a local folder and below."""
    if not is_remote(folder):
        for orphan in local_path(folder).rglob(f"{TEMPORARY}*"):
            orphan.unlink(missing_ok=True)


def move_aside(folder: str) -> str:
    """Rename ``folder`` to the first free ``folder.old-N`` and return the new name."""
    folder = folder.rstrip("/")
    number = 1
    while exists(f"{folder}.old-{number}"):
        number += 1
    aside = f"{folder}.old-{number}"
    if is_remote(folder):
        fs, inner = open_remote(folder)
        _move_objects(fs, inner.rstrip("/"), open_remote(aside)[1])
    else:
        local_path(folder).rename(local_path(aside))
    return aside


def _move_objects(fs: Any, source: str, target: str) -> None:
    """Move objects one by one, because stores have no rename and some cannot copy a folder."""
    fs.invalidate_cache()
    # A folder with a manifest must be complete, so the manifest is copied last and removed first.
    names = sorted(fs.find(source), key=lambda name: name.endswith("/manifest.json"))
    for name in names:
        fs.cp_file(name, target + name.removeprefix(source))
    for name in reversed(names):
        fs.rm_file(name)


def list_names(folder: str) -> list[str]:
    """Return the names of the files directly in ``folder``, sorted; empty if it does not exist.

    Temporary names, which a running or killed writer leaves, are not listed.
    """
    if is_remote(folder):
        fs, inner = open_remote(folder)
        fs.invalidate_cache()
        if not fs.exists(inner):
            return []
        found = fs.ls(inner, detail=True)
        names = [PurePosixPath(f["name"]).name for f in found if f["type"] == "file"]
    else:
        path = local_path(folder)
        names = [f.name for f in path.iterdir() if f.is_file()] if path.is_dir() else []
    return sorted(name for name in names if not name.startswith(TEMPORARY))


def check_writable(folder: str) -> None:
    """Create a local folder and check that files can be created in it.

    Does nothing for a remote folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    if is_remote(folder):
        return
    path = local_path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=path, prefix=TEMPORARY)
        os.close(handle)
        # Another process may have removed it as a temporary file.
        Path(probe).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{folder}: cannot write here ({reason}); choose another run.output"
        ) from error
