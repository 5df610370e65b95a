"""Folders of a local disk, a store or a web server, as `preprocess.files.search.find` searches them."""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from preprocess.files.errors import StorageError

Excluded = Callable[[str, Collection[str]], bool]
"""Function of the path or URL of a folder and the names in it; returns True to skip the folder."""

Enters = Callable[[str], bool]
"""Function of the name of a folder or file; returns True to search the folder, or to take the file."""


class Entry(NamedTuple):
    """A file or folder.

    Attributes:
        name: last component of its path.
        path: its path, in the form that the `Folders` use.
        is_folder: whether it is a folder, or a link to one.
        info: what a store reports about it.
    """

    name: str
    path: str
    is_folder: bool
    info: dict[str, Any] | None = None


def join_name(folder: str, name: str) -> str:
    """Return the path of ``name`` in a folder, which may be "" (the current one) or "/"."""
    return f"{folder}{name}" if not folder or folder.endswith("/") else f"{folder}/{name}"


class Folders(Protocol):
    """The folders of a disk or store.

    Attributes:
        wildcards: characters that are wildcards in its paths.
    """

    wildcards: str

    def has(self, folder: str, name: str) -> bool:
        """Return True if a folder has an entry of this name."""

    def entries(self, folder: str) -> list[Entry]:
        """Return the entries of a folder, ordered by name; empty if it does not exist."""

    def tree(self, folder: str, enters: Enters) -> Iterator[tuple[list[str], Entry]]:
        """Yield the files in a folder and below, each with the components of its relative path.

        Args:
            folder: where to start.
            enters: returns True for the name of a folder below it that is searched.
        """

    def is_excluded(self, folder: str) -> bool:
        """Return True if a folder must not be searched although it matches a wildcard."""


class LocalFolders:
    """Folders of the local disk. Links to folders are followed, but `tree` enters no folder twice.

    Attributes:
        have_links: True if a folder that was listed so far contains a link.
    """

    wildcards = "*?["

    def __init__(self, excluded: Excluded) -> None:
        self._excluded = excluded
        self.have_links = False

    def has(self, folder: str, name: str) -> bool:
        return os.path.lexists(join_name(folder, name))

    def entries(self, folder: str) -> list[Entry]:
        return [
            Entry(e.name, join_name(folder, e.name), _leads_to_folder(e))
            for e in self._scan(folder)
        ]

    def tree(self, folder: str, enters: Enters) -> Iterator[tuple[list[str], Entry]]:
        entered: set[tuple[int, int]] = set()
        # Links come last, so that a file is found by its path without links if that is in the tree.
        waiting: deque[tuple[str, list[str]]] = deque([(folder, [])])
        links: list[tuple[str, list[str]]] = []
        while waiting or links:
            if not waiting:
                waiting.extend(sorted(links))
                links.clear()
            path, names = waiting.popleft()
            try:
                status = os.stat(path or ".")  # noqa: PTH116
            except OSError:
                continue  # a link to nothing
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            inside = self._scan(path)
            if names and self._excluded(path, {entry.name for entry in inside}):
                continue
            for entry in inside:
                below, full = [*names, entry.name], join_name(path, entry.name)
                if not _leads_to_folder(entry):
                    yield below, Entry(entry.name, full, False)
                elif enters(entry.name):
                    (links if entry.is_symlink() else waiting).append((full, below))

    def is_excluded(self, folder: str) -> bool:
        return self._excluded(folder, {entry.name for entry in self._scan(folder)})

    def _scan(self, folder: str) -> "list[os.DirEntry[str]]":
        try:
            with os.scandir(folder or ".") as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(
                f"{folder}: this folder cannot be listed ({error.strerror}); change its "
                "permissions, or write a pattern that does not match it"
            ) from error
        self.have_links = self.have_links or any(entry.is_symlink() for entry in entries)
        return entries


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


class RemoteFolders:
    """Folders of a store or of a web server's listings.

    Args:
        fs: fsspec's file system.
        is_web: whether paths are web addresses, in which names are percent-encoded.
        excluded: called with the URL of a folder.
    """

    def __init__(self, fs: Any, is_web: bool, excluded: Excluded) -> None:
        self._fs, self._is_web, self._excluded = fs, is_web, excluded
        # In a web address a question mark starts the query string.
        self.wildcards = "*" if is_web else "*?["
        self._listed: dict[str, list[Entry]] = {}

    def has(self, folder: str, name: str) -> bool:
        return any(entry.name == name for entry in self.entries(folder))

    def entries(self, folder: str) -> list[Entry]:
        if folder not in self._listed:
            try:
                found = self._fs.ls(join_name(folder, "") if self._is_web else folder, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                found = []
            entries = [self._entry(info) for info in found]
            # Stores list the marker of a folder as a file in it, and a file as an entry of itself.
            itself = folder.strip("/")
            inside = [e for e in entries if e.path.strip("/") != itself and e.name]
            self._listed[folder] = sorted(inside, key=lambda entry: entry.name)
        return self._listed[folder]

    def tree(self, folder: str, enters: Enters) -> Iterator[tuple[list[str], Entry]]:
        start = join_name(folder, "")
        try:
            infos = self._fs.find(start if self._is_web else folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            infos = {}
        found = []
        inside: dict[str, set[str]] = {}
        for path, info in sorted(infos.items()):
            # Keys with a slash at the end are the folders that web consoles make.
            if path.startswith(start) and not path.endswith("/"):
                entry = self._entry(info)
                names = [self._shown(name) for name in path.removeprefix(start).split("/")]
                found.append((names, entry))
                for depth in range(1, len(names)):
                    inside.setdefault("/".join(names[:depth]), set()).add(names[depth])
        closed: set[str] = set()
        # A folder comes after the one that it is in.
        for name in sorted(inside):
            above, _, last = name.rpartition("/")
            if (
                above in closed
                or not enters(last)
                or self._excluded(self.url(start + name), inside[name])
            ):
                closed.add(name)
        for names, entry in found:
            if "/".join(names[:-1]) not in closed:
                yield names, entry

    def is_excluded(self, folder: str) -> bool:
        return self._excluded(self.url(folder), {entry.name for entry in self.entries(folder)})

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return path if self._is_web else str(self._fs.unstrip_protocol(path))

    def _entry(self, info: dict[str, Any]) -> Entry:
        path = str(info["name"])
        is_folder = info["type"] != "file" or path.endswith("/")
        return Entry(
            self._shown(path.rstrip("/").rpartition("/")[2]), path.rstrip("/"), is_folder, info
        )

    def _shown(self, name: str) -> str:
        # The links of a listing that sort it begin with a question mark.
        return unquote(name.partition("?")[0]) if self._is_web else name


EntryKey = tuple[int, int, str]
"""Device and inode of a folder, and the name of an entry in it."""


class EntryKeys:
    """Keys of local files, equal if two paths lead to the same entry of the same folder."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[int, int]] = {}

    def of(self, path: str) -> EntryKey:
        """Return the key of a file. A link to a file has a key of its own, as a hard link has."""
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            status = os.stat(folder or "/")  # noqa: PTH116
            self._folders[folder] = (status.st_dev, status.st_ino)
        return *self._folders[folder], name
