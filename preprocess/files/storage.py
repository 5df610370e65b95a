"""Files by path or URL; the only module that knows fsspec.

What is finished appears under its name whole or not at all: on a local disk through a temporary
name, fsync and rename, on an object store through one put of a finished file. A path without a
protocol is local.
"""

import glob as globbing
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from preprocess.files.durability import sync_data, sync_name
from preprocess.files.errors import StorageError, StoreError, ToldStore, told_writes

__all__ = ["FileInfo", "StorageError", "StoreError"]

TEMPORARY = ".biloom-tmp-"


@dataclass(frozen=True, order=True)
class FileInfo:
    """A raw file: ``name`` is its path below the fixed part of the pattern that found it."""

    name: str
    path: str
    bytes: int
    version: str
    """mtime in nanoseconds or ETag: a hint that the content may have changed."""


def is_remote(path: str) -> bool:
    """Whether ``path`` is a URL of anything but the local disk."""
    return "://" in path and not path.startswith(("file://", "local://"))


def local_path(path: str) -> Path:
    """The local file or folder that ``path`` names."""
    return Path(path.removeprefix("file://").removeprefix("local://")).expanduser()


def absolute(path: str) -> str:
    """``path`` as every worker can open it, whatever its current folder."""
    return path if is_remote(path) else str(local_path(path).absolute())


def join(folder: str, *parts: str) -> str:
    return "/".join([folder.rstrip("/"), *parts]) if folder != "/" else "/" + "/".join(parts)


def _remote(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        fs, inner = fsspec.core.url_to_fs(path)
        return ToldStore(fs, path), str(inner)
    except (ImportError, ValueError) as error:
        protocol = path.split("://", 1)[0]
        extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hf": "hf"}.get(protocol)
        hint = f"; pip install 'biloom[{extra}]'" if extra else ""
        raise StorageError(f"{path}: cannot open a '{protocol}' URL ({error}){hint}") from error


def exists(path: str) -> bool:
    if is_remote(path):
        fs, inner = _remote(path)
        fs.invalidate_cache()
        return bool(fs.exists(inner))
    return local_path(path).exists()


def read_bytes(path: str, start: int = 0, end: int | None = None) -> bytes:
    """The bytes from ``start`` up to ``end`` (none: all).

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_remote(path):
        fs, inner = _remote(path)
        return bytes(fs.cat_file(inner, start=start, end=end))
    with open(local_path(path), "rb") as file:
        file.seek(start)
        return file.read() if end is None else file.read(end - start)


def open_read(path: str) -> BinaryIO:
    """A seekable stream of the file's bytes, to be closed by the caller."""
    if is_remote(path):
        fs, inner = _remote(path)
        return cast(BinaryIO, ToldStore(fs.open(inner, "rb"), path))
    return open(local_path(path), "rb")


@contextmanager
def atomic_writer(path: str) -> Iterator[IO[bytes]]:
    """A file that appears as ``path`` when the block ends, and not at all when it raises."""
    if is_remote(path):
        fs, inner = _remote(path)
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            fs.put_finished(inner, lambda: fs.put_file(file.name, inner))
        return
    target = local_path(path)
    temporary = target.with_name(f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{target.name}")
    with told_writes(path):
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
    """Put ``data`` under ``path``, whole or not at all."""
    if is_remote(path):
        fs, inner = _remote(path)
        fs.put_finished(inner, lambda: fs.pipe_file(inner, data))
        return
    with atomic_writer(path) as file:
        file.write(data)


def create_exclusive(path: str, data: bytes) -> bool:
    """Create ``path`` unless it exists; whether it was created (an object store cannot promise it)."""
    if is_remote(path):
        if exists(path):
            return False
        write_bytes(path, data)
        return True
    target = local_path(path)
    with told_writes(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    return True


def copy(source: str, target: str) -> None:
    """``target`` becomes the same bytes as ``source``, both on one store; a hard link where it can be."""
    if is_remote(source):
        fs, inner = _remote(source)
        fs.cp_file(inner, _remote(target)[1])
        return
    old, new = local_path(source), local_path(target)
    temporary = new.with_name(f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{new.name}")
    with told_writes(target):
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
    """Remove a file; none there is fine."""
    if is_remote(path):
        fs, inner = _remote(path)
        if fs.exists(inner):
            fs.rm_file(inner)
        return
    local_path(path).unlink(missing_ok=True)


def remove_tree(folder: str) -> None:
    """Remove a folder and all below it; none there is fine."""
    if is_remote(folder):
        fs, inner = _remote(folder)
        fs.invalidate_cache()
        if fs.exists(inner):
            fs.rm(inner, recursive=True)
        return
    shutil.rmtree(local_path(folder), ignore_errors=True)


def remove_temporary(folder: str) -> None:
    """Remove what a killed writer left under a temporary name in ``folder`` and below."""
    if not is_remote(folder):
        for orphan in local_path(folder).rglob(f"{TEMPORARY}*"):
            orphan.unlink(missing_ok=True)


def move_aside(folder: str) -> str:
    """Give ``folder`` the first free name ``folder.old-N``; returns that name."""
    folder = folder.rstrip("/")
    number = 1
    while exists(f"{folder}.old-{number}"):
        number += 1
    aside = f"{folder}.old-{number}"
    if is_remote(folder):
        fs, inner = _remote(folder)
        _move_objects(fs, inner.rstrip("/"), _remote(aside)[1])
    else:
        local_path(folder).rename(local_path(aside))
    return aside


def _move_objects(fs: Any, source: str, target: str) -> None:
    """File by file: a store has no rename, and some fail to copy a "folder" as such."""
    fs.invalidate_cache()
    # A folder is whole while it holds its manifest, so that one is the last to come, first to go.
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
        fs, inner = _remote(folder)
        fs.invalidate_cache()
        if not fs.exists(inner):
            return []
        found = fs.ls(inner, detail=True)
        names = [PurePosixPath(f["name"]).name for f in found if f["type"] == "file"]
    else:
        path = local_path(folder)
        names = [f.name for f in path.iterdir() if f.is_file()] if path.is_dir() else []
    return sorted(name for name in names if not name.startswith(TEMPORARY))


def find_files(pattern: str) -> list[FileInfo]:
    """The files that a path, folder-free glob (``*``, ``**``) or URL names, ordered by name.

    Raises:
        StorageError: nothing matches, or the path is a folder or not readable.
    """
    fixed = pattern.split("*")[0].split("?")[0].split("[")[0]
    found = _find_remote(pattern) if is_remote(pattern) else _find_local(pattern)
    if not found:
        what = "no file matches" if fixed != pattern else "no such file"
        raise StorageError(f"{pattern}: {what}; check the path (a glob must be quoted in a shell)")
    return sorted(found)


def _fixed_folder(pattern: str) -> str:
    """The folders of ``pattern`` before its first wildcard, with a slash at the end."""
    wild = min((pattern.find(c) for c in "*?[" if c in pattern), default=len(pattern))
    return pattern[: pattern.rfind("/", 0, wild) + 1]


def _folder_message(folder: str) -> str:
    return f"{folder}: this is a folder; name its files, as in '{folder.rstrip('/')}/*.txt'"


def _find_local(pattern: str) -> list[FileInfo]:
    path = str(local_path(pattern))
    if Path(path).is_dir():
        raise StorageError(_folder_message(pattern))
    # A file whose own name holds a wildcard is meant as itself.
    literal = Path(path).is_file()
    paths = [path] if literal else globbing.glob(path, recursive=True)  # noqa: PTH207
    base = path[: path.rfind("/") + 1] if literal else _fixed_folder(path)
    files = []
    for one in paths:
        # One look at each: of a million files every call counts.
        try:
            status = os.stat(one)  # noqa: PTH116
        except OSError as error:
            raise StorageError(f"{one}: unreadable ({error.strerror}); mend or drop it") from error
        if stat.S_ISREG(status.st_mode):
            if not os.access(one, os.R_OK):
                raise StorageError(f"{one}: no right to read this file; change its permissions")
            name = one.removeprefix(base)
            # Without "..", so that a file found by two patterns has one path.
            full = os.path.abspath(one)  # noqa: PTH100
            files.append(FileInfo(name, full, status.st_size, str(status.st_mtime_ns)))
    return files


def _find_remote(pattern: str) -> list[FileInfo]:
    fs, inner = _remote(pattern)
    protocol = pattern.split("://", 1)[0]
    # In a web address a question mark begins the query.
    wild = any(c in pattern for c in ("*" if protocol in ("http", "https") else "*?["))
    if wild:
        details = list(fs.glob(inner, detail=True).values())
    else:
        try:
            details = [fs.info(inner)]
        except FileNotFoundError:
            details = []
        if details and details[0]["type"] == "directory":
            raise StorageError(_folder_message(pattern))
    base = _fixed_folder(inner)
    files = []
    for info in details:
        if info["type"] != "file":
            continue
        web = protocol in ("http", "https")
        full = info["name"] if web else fs.unstrip_protocol(info["name"])
        if info.get("size") is None:
            raise StorageError(f"{full}: the server does not tell its size; download the file")
        version = next(
            (str(info[k]) for k in ("ETag", "etag", "mtime", "created") if k in info), ""
        )
        files.append(FileInfo(info["name"].removeprefix(base), full, int(info["size"]), version))
    return files


def check_writable(folder: str) -> None:
    """Make ``folder`` and write a byte below it.

    Raises:
        StorageError: it cannot be written.
    """
    if is_remote(folder):
        return
    path = local_path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=path, prefix=TEMPORARY)
        os.close(handle)
        # Another process may have tidied it away.
        Path(probe).unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{folder}: cannot write here ({reason}); choose another run.output"
        ) from error
