"""Files found by a path, a glob or a URL."""

import glob as globbing
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from preprocess.files.errors import StorageError
from preprocess.files.storage import is_remote, local_path, open_remote


@dataclass(frozen=True, order=True)
class FileInfo:
    """A file found by `find_files`; instances sort by name.

    Attributes:
        name: path relative to the last folder before the pattern's first wildcard; without a
            wildcard, the file name.
        path: absolute path or URL.
        bytes: size in bytes.
        version: mtime in nanoseconds, ETag or similar; empty if the store has none. If it changes,
            the content may have changed.
    """

    name: str
    path: str
    bytes: int
    version: str


def find_files(pattern: str) -> list[FileInfo]:
    """Return the files that match a path, glob or URL, ordered by name.

    In a glob, ``**`` matches any number of folders.

    Raises:
        StorageError: nothing matches, the path is a folder, or a file cannot be read.
    """
    found = _find_remote(pattern) if is_remote(pattern) else _find_local(pattern)
    if not found:
        reason = "no file matches" if any(c in pattern for c in "*?[") else "no such file"
        raise StorageError(
            f"{pattern}: {reason}; check the path (a glob must be quoted in a shell)"
        )
    return sorted(found)


def _fixed_folder(pattern: str) -> str:
    """Return the folders before the first wildcard, with a slash at the end."""
    wild = min((pattern.find(c) for c in "*?[" if c in pattern), default=len(pattern))
    return pattern[: pattern.rfind("/", 0, wild) + 1]


def _folder_message(folder: str) -> str:
    return f"{folder}: this is a folder; name its files, as in '{folder.rstrip('/')}/*.txt'"


def _find_local(pattern: str) -> list[FileInfo]:
    path = str(local_path(pattern))
    if Path(path).is_dir():
        raise StorageError(_folder_message(pattern))
    # An existing file may have wildcard characters in its name.
    literal = Path(path).is_file()
    paths = [path] if literal else globbing.glob(path, recursive=True)  # noqa: PTH207
    base = path[: path.rfind("/") + 1] if literal else _fixed_folder(path)
    files = []
    for path in paths:
        # os functions and one stat per file, because there may be a million files.
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be read ({error.strerror}); repair or remove it"
            ) from error
        if stat.S_ISREG(status.st_mode):
            if not os.access(path, os.R_OK):
                raise StorageError(f"{path}: no permission to read it; change its permissions")
            name = path.removeprefix(base)
            # Without "..", so that a file found by two patterns has one path.
            full = os.path.abspath(path)  # noqa: PTH100
            files.append(FileInfo(name, full, status.st_size, str(status.st_mtime_ns)))
    return files


def _find_remote(pattern: str) -> list[FileInfo]:
    fs, inner = open_remote(pattern)
    web = pattern.startswith(("http://", "https://"))
    # In a web address a question mark starts the query string.
    if any(c in pattern for c in ("*" if web else "*?[")):
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
        full = info["name"] if web else fs.unstrip_protocol(info["name"])
        if info.get("size") is None:
            raise StorageError(
                f"{full}: the server does not report the file's size; download the file and use the "
                "copy"
            )
        version = next(
            (str(info[k]) for k in ("ETag", "etag", "mtime", "created") if k in info), ""
        )
        files.append(FileInfo(info["name"].removeprefix(base), full, int(info["size"]), version))
    return files
