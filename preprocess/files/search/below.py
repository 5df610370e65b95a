"""All files in a folder and below."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from preprocess.files.paths import split_chain
from preprocess.files.search.folders import Enters, Excluded, LocalFolders, RemoteFolders
from preprocess.files.search.found import FileInfo, local_file, remote_file
from preprocess.files.search.pattern import is_wild
from preprocess.files.storage import is_remote, local_path, open_remote

BROKEN = "broken link", "broken links"
NO_FILE = "pipe or device", "pipes or devices"
SECOND_LINK = "link to a file that is read anyway", "links to files that are read anyway"
Kind = tuple[str, str]
"""What is left out, in the singular and the plural."""


class Below(NamedTuple):
    """The files in a folder and below.

    Attributes:
        files: the files, ordered by name.
        left_out: number of files and folders that were left out, by kind.
    """

    files: list[FileInfo]
    left_out: Counter[Kind]


def is_folder(path: str) -> bool:
    """Return True if a path or URL is an existing folder. A web address never is one."""
    if not is_remote(path):
        return os.path.isdir(local_path(path))  # noqa: PTH112
    if path.startswith(("http://", "https://")) or split_chain(path):
        return False
    fs, inner = open_remote(path)
    if is_wild(inner):
        return False
    fs.invalidate_cache()
    try:
        return bool(fs.info(inner)["type"] == "directory")
    except FileNotFoundError:
        return False


def find_below(
    folder: str,
    kind_of_file: Callable[[str], Kind | None],
    kind_of_folder: Callable[[str], Kind | None],
    excluded: Excluded,
    excluded_kind: Kind,
) -> Below:
    """Return the files in a folder and below; names are relative to the folder.

    Links to folders are followed, but no folder is entered twice. A link to a file that is in the
    folder too is left out.

    Args:
        folder: path or URL of the folder.
        kind_of_file: returns the kind under which a file of this name is left out, or None.
        kind_of_folder: the same for the name of a folder below it.
        excluded: returns True for the path of a folder below it that is left out.
        excluded_kind: kind under which such a folder is counted.

    Raises:
        StorageError: a file or folder cannot be read.
    """
    left_out: Counter[Kind] = Counter()

    def enters(name: str) -> bool:
        kind = kind_of_folder(name)
        left_out.update([kind] if kind else [])
        return kind is None

    def excludes(path: str, names: Collection[str]) -> bool:
        found = excluded(path, names)
        left_out.update([excluded_kind] if found else [])
        return found

    def is_kept(name: str) -> bool:
        kind = kind_of_file(name)
        left_out.update([kind] if kind else [])
        return kind is None

    find = _remote_files if is_remote(folder) else _local_files
    found = find(folder, excludes, enters, is_kept, left_out)
    return Below(sorted(found, key=lambda file: file.name), left_out)


def _local_files(
    folder: str, excluded: Excluded, enters: Enters, is_kept: Enters, left_out: Counter[Kind]
) -> list[FileInfo]:
    path = str(local_path(folder))
    # The path of a file must be the same whichever pattern finds it.
    start = os.path.realpath(path) if ".." in path.split("/") else os.path.abspath(path)  # noqa: PTH100
    base = start.rstrip("/") + "/"
    folders = LocalFolders(excluded)
    found: list[FileInfo] = []
    links: list[str] = []
    for _, entry in folders.tree(start, enters):
        if not is_kept(entry.name):
            continue
        if folders.have_links and os.path.islink(entry.path):  # noqa: PTH114
            links.append(entry.path)
        elif file := local_file(entry.path, base, in_folder=True):
            found.append(file)
        else:
            left_out[NO_FILE] += 1
    return found + _through_links(links, base, found, left_out) if links else found


def _through_links(
    links: Sequence[str], base: str, found: Sequence[FileInfo], left_out: Counter[Kind]
) -> list[FileInfo]:
    """Return the files behind links, without those that were found and those that do not exist."""
    seen = {_identity(os.stat(file.path)) for file in found}  # noqa: PTH116
    behind: list[FileInfo] = []
    for path in sorted(links):
        try:
            identity = _identity(os.stat(path))  # noqa: PTH116
        except OSError:
            left_out[BROKEN] += 1
            continue
        if identity in seen:
            left_out[SECOND_LINK] += 1
        elif file := local_file(path, base, in_folder=True):
            seen.add(identity)
            behind.append(file)
        else:
            left_out[NO_FILE] += 1
    return behind


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _remote_files(
    folder: str, excluded: Excluded, enters: Enters, is_kept: Enters, left_out: Counter[Kind]
) -> list[FileInfo]:
    fs, inner = open_remote(folder)
    # Another process may have written since this one listed the store.
    fs.invalidate_cache()
    folders = RemoteFolders(fs, False, excluded)
    base = inner.rstrip("/") + "/"
    return [
        remote_file(entry.info or fs.info(entry.path), base, folders, in_folder=True)
        for _, entry in folders.tree(inner.rstrip("/"), enters)
        if is_kept(entry.name)
    ]
