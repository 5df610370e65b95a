"""Files that were found: name, path, size and version."""

import os
import stat
from dataclasses import dataclass, field
from typing import Any

from preprocess.files.errors import StorageError
from preprocess.files.search.folders import RemoteFolders

_VERSIONS = (
    *("ETag", "etag", "mtime"),
    # The names of web servers, the Hugging Face Hub, GitHub, Google, Azure, HDFS, FTP and others.
    *("Last-Modified", "Content-MD5", "Digest", "blob_id", "sha", "md5Hash", "generation", "md5"),
    *("content_md5", "checksum", "content_hash", "md5Checksum", "LastModified", "last_modified"),
    *("modificationTime", "modifiedTime", "modified_at", "updated", "modified", "modify"),
    "created",
)
"""Keys in a store's description of a file whose values change with its content.

The first key that the description has is used.
"""


@dataclass(frozen=True, order=True)
class FileInfo:
    """A file that was found; instances sort by name.

    Attributes:
        name: path relative to the last folder before the pattern's first wildcard; without a
            wildcard, the file name.
        path: absolute path or URL.
        bytes: size in bytes.
        version: mtime in nanoseconds, ETag, Last-Modified, blob id or similar; of a member of an
            archive, the version of the archive. If it changes, the content may have changed. Empty
            if the store reports none; a change then shows only in the content.
        in_folder: True if the file was found because the input is a folder that contains it, so that no
            one has said that it is text.
    """

    name: str
    path: str
    bytes: int
    version: str
    in_folder: bool = field(default=False, compare=False)


def local_file(path: str, base: str, in_folder: bool = False) -> FileInfo | None:
    """Return a file, or None if it is a pipe, a socket or a device; its name is relative to ``base``."""
    # os functions and one stat per file, because there may be a million files.
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be read ({error.strerror}); repair or remove it"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        return None
    if not os.access(path, os.R_OK):
        raise StorageError(f"{path}: no permission to read it; change its permissions")
    name = path.removeprefix(base)
    # Without "..", so that a file found by two patterns has one path; not by the text of the path
    # alone, because ".." after a link is another folder.
    folder = os.path.realpath(os.path.dirname(path)) if "/../" in f"/{path}" else None  # noqa: PTH120
    full = os.path.join(folder, os.path.basename(path)) if folder else os.path.abspath(path)  # noqa: PTH100, PTH118, PTH119
    return FileInfo(name, full, status.st_size, str(status.st_mtime_ns), in_folder)


def remote_file(
    info: dict[str, Any], base: str, folders: RemoteFolders, in_folder: bool = False
) -> FileInfo:
    """Return the file that a store describes; its name is relative to ``base``."""
    path = folders.url(info["name"])
    if info.get("size") is None:
        raise StorageError(
            f"{path}: the server does not report the file's size; download the file and use the copy"
        )
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    return FileInfo(info["name"].removeprefix(base), path, int(info["size"]), version, in_folder)
