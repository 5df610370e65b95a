"""Read, write and list files by path or URL; the only module that imports fsspec.

Writes are atomic: a file appears complete or not at all. A local file is written under a temporary
name, flushed and renamed; an object is uploaded in one put. A path without a protocol is local.

For remote paths every function may raise `StoreError` if the store fails, `DiskFull` if it is full, and
`StorageError` if it refuses access or the package for the URL's protocol is not installed.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from preprocess.errors import without_secrets_of
from preprocess.files.durability import sync_data, sync_folder, sync_name
from preprocess.files.errors import (
    ReportingStore,
    StorageError,
    report_write_errors,
    store_failed,
)
from preprocess.files.paths import ARCHIVES, client_settings, open_local, split_chain
from preprocess.files.paths import absolute as absolute
from preprocess.files.paths import is_remote as is_remote
from preprocess.files.paths import join as join
from preprocess.files.paths import local_path as local_path
from preprocess.files.paths import overlap as overlap
from preprocess.files.remote.archive import open_archive
from preprocess.files.remote.objects import (
    is_folder_marker,
    move_below,
    remove_all,
)
from preprocess.files.remote.ranged_file import Part as Part
from preprocess.files.remote.ranged_file import RangedFile
from preprocess.files.remote.ranges import may_ignore_ranges, read_range
from preprocess.files.temporary import TEMPORARY as TEMPORARY
from preprocess.files.temporary import remove_orphans, temporary_folder, temporary_name
from preprocess.files.write_checks import check_no_folder, check_write


def open_remote(path: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    The file system is fsspec's, with errors that name the URL.
    """
    import fsspec

    chain = split_chain(path)
    if chain and chain.protocol in ARCHIVES:
        return ReportingStore(open_archive(chain, open_read), path), chain.member
    try:
        # fsspec would take `::` in a key for a chain.
        folder = path if chain else path[: path.rfind("/", 0, path.find("::")) + 1] or path
        fs, inner = fsspec.core.url_to_fs(folder, **client_settings(folder, fsspec.config.conf))
        if folder != path:
            inner = join(inner, path.removeprefix(folder))
        return ReportingStore(fs, path), str(inner)
    except OSError as error:
        # Some clients connect here.
        raise store_failed(path, error) from error
    except Exception as error:
        protocol = path.split("://", 1)[0]
        extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hf": "hf"}.get(protocol)
        hint = f"; pip install 'biloom[{extra}]'" if extra else ""
        reason = without_secrets_of(path, str(error))
        raise StorageError(f"{path}: cannot open a '{protocol}' URL ({reason}){hint}") from error


def exists(path: str) -> bool:
    """Return True if ``path`` is an existing file or folder."""
    if is_remote(path):
        fs, inner = open_remote(path)
        fs.invalidate_cache()
        return bool(fs.exists(inner))
    return local_path(path).exists()


def read_bytes(path: str, start: int = 0, end: int | None = None) -> bytes:
    """Return the bytes ``[start, end)`` of a file; None means to its end.

    A range that begins at or after the end of the file is empty.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if is_remote(path):
        return read_range(*open_remote(path), start, end)
    with open_local(path) as file:
        file.seek(start)
        return file.read() if end is None else file.read(max(end - start, 0))


def open_read(path: str, size: int | None = None, part: Part | None = None) -> BinaryIO:
    """Open a file as a seekable binary stream, which the caller closes.

    Args:
        path: path or URL.
        size: size of the file in bytes, if it is known; otherwise a store is asked.
        part: the part that will be read, see `RangedFile`; None: all of the file.

    Raises:
        FileNotFoundError: the file does not exist; for a store whose file has a known size, the first
            read raises it.
    """
    if not is_remote(path):
        return open_local(path)
    fs, inner = open_remote(path)
    if may_ignore_ranges(path):
        file = fs.open(inner, "rb")
        if getattr(file, "size", None) == 0:
            # Some clients open it as a stream, which cannot seek.
            file.close()
            return io.BytesIO()
        return cast(BinaryIO, ReportingStore(file, path))
    if size is None:
        size = int(fs.info(inner)["size"])
    return cast(BinaryIO, RangedFile(partial(read_range, fs, inner), size, part))


@contextmanager
def atomic_writer(path: str) -> Iterator[IO[bytes]]:
    """Yield a binary file that becomes ``path`` when the block ends, unless the block raises.

    Raises:
        StorageError: the disk is full, permissions are missing, the path is a folder, a folder of the
            path is a file, or the bucket does not exist.
    """
    check_no_folder(path)
    if is_remote(path):
        fs, inner = open_remote(path)
        with temporary_folder("biloom-") as folder, open(f"{folder}/upload", "wb") as file:
            name, unnamed = file.name, f"/proc/self/fd/{file.fileno()}"
            if Path(unnamed).exists():
                Path(name).unlink()  # Linux still reads it, and a killed process leaves no file
                name = unnamed
            yield file
            file.flush()
            check_write(path)
            fs.put_finished(inner, lambda: fs.put_file(name, inner))
        return
    target = local_path(path)
    temporary = temporary_name(target)
    with report_write_errors(path):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(
                f"{path}: cannot be written, because a folder of its path is a file; name another folder"
            ) from error
        try:
            with open(temporary, "wb") as file:
                yield file
                sync_data(file)
            check_write(absolute(path))
            temporary.replace(target)
            sync_name(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole file atomically; errors as in `atomic_writer`."""
    if is_remote(path):
        check_write(path)
        fs, inner = open_remote(path)
        fs.put_finished(inner, lambda: fs.pipe_file(inner, data))
        return
    with atomic_writer(path) as file:
        file.write(data)


def copy(source: str, target: str) -> None:
    """Copy a file within one store; a local copy is a hard link if the disk supports it."""
    check_write(absolute(target))
    if is_remote(source):
        fs, inner = open_remote(source)
        fs.cp_file(inner, open_remote(target)[1])
        return
    old, new = local_path(source), local_path(target)
    temporary = temporary_name(new)
    with report_write_errors(target):
        new.parent.mkdir(parents=True, exist_ok=True)
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
    check_write(absolute(path))
    if is_remote(path):
        fs, inner = open_remote(path)
        fs.invalidate_cache()
        with suppress(FileNotFoundError):  # Another process may remove it at the same time.
            if fs.exists(inner):
                fs.rm_file(inner)
        return
    local_path(path).unlink(missing_ok=True)


def remove_tree(folder: str) -> None:
    """Remove a folder and everything below it, if it exists."""
    check_write(absolute(folder))
    if is_remote(folder):
        fs, inner = open_remote(folder)
        fs.invalidate_cache()
        with suppress(FileNotFoundError):  # Another process may remove it at the same time.
            if fs.exists(inner):
                remove_all(fs, inner)
        return
    shutil.rmtree(local_path(folder), ignore_errors=True)


def remove_temporary(folder: str) -> None:
    """Remove temporary files that ended writers left in a local folder and below."""
    if not is_remote(folder):
        remove_orphans(local_path(folder))


def list_names(folder: str) -> list[str]:
    """Return the names of the files directly in ``folder``, sorted; empty if it does not exist.

    Temporary names, which a running or killed writer leaves, are not listed.
    """
    try:
        if is_remote(folder):
            fs, inner = open_remote(folder)
            fs.invalidate_cache()
            found = [f["name"] for f in fs.ls(inner, detail=True) if f["type"] == "file"]
            names = [PurePosixPath(name).name for name in found if not is_folder_marker(name)]
        else:
            names = [file.name for file in local_path(folder).iterdir() if file.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        names = []
    return sorted(name for name in names if not name.startswith(TEMPORARY))


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders directly in ``folder``, sorted; empty if it does not exist."""
    try:
        if is_remote(folder):
            fs, inner = open_remote(folder)
            fs.invalidate_cache()
            found = [f["name"] for f in fs.ls(inner, detail=True) if f["type"] == "directory"]
            return sorted(PurePosixPath(name.rstrip("/")).name for name in found)
        return sorted(file.name for file in local_path(folder).iterdir() if file.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def move_entries(
    folder: str, target: str, names: Sequence[str], moved: Callable[[int], None] = lambda _: None
) -> None:
    """Move files and folders of ``folder`` into the folder ``target``, replacing files of equal name.

    A local disk renames them. A store copies all files, then removes them, so that a killed call can
    be repeated; ``names`` that no longer exist are ignored.

    Args:
        folder: path or URL.
        target: path or URL in the same place.
        names: names of files and folders in ``folder``.
        moved: called with the number of files that were moved, or copied in a store, since the last call.
    """
    check_write(absolute(target))
    if is_remote(folder):
        fs, inner = open_remote(folder)
        move_below(fs, inner.rstrip("/"), open_remote(target)[1].rstrip("/"), {*names}, moved)
        return
    old, new = local_path(folder), local_path(target)
    with report_write_errors(target):
        new.mkdir(parents=True, exist_ok=True)
    present = {entry.name for entry in os.scandir(old)} if old.is_dir() else set()
    for name in names:
        if name in present:
            with report_write_errors(join(target, name)), suppress(FileNotFoundError):
                (old / name).replace(new / name)
        moved(1)
    sync_folder(new)


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
        # Named after its writer, so that a later process removes it if this one is killed here.
        probe = temporary_name(path / "probe")
        probe.touch(exist_ok=False)
        # Another process may have removed it as a temporary file.
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot write here ({error.strerror or error}); name another output folder"
        ) from error
