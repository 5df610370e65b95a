"""Search for files by a path, a glob or a URL."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from preprocess.files.errors import DamagedArchive, StorageError
from preprocess.files.paths import ARCHIVES, Chained, split_chain
from preprocess.files.remote.archive import open_archive
from preprocess.files.search.folders import (
    Entry,
    EntryKey,
    EntryKeys,
    Excluded,
    Folders,
    LocalFolders,
    RemoteFolders,
    join_name,
)
from preprocess.files.search.found import FileInfo, local_file, remote_file
from preprocess.files.search.pattern import (
    FOLDERS,
    is_hidden,
    is_wild,
    matches_name,
    matches_path,
    may_be_a_name,
)
from preprocess.files.storage import is_remote, local_path, open_read, open_remote


def _exclude_none(folder: str, names: Collection[str]) -> bool:
    return False


def find_files(
    pattern: str, excluded: Excluded = _exclude_none, seen: Callable[[], None] = lambda: None
) -> list[FileInfo]:
    """Return the files that match a path, glob or URL, ordered by name.

    `preprocess.files.search.pattern` defines the wildcards. If a component is the exact name of an existing
    file or folder, it matches only this one, even if it has wildcards; so a folder named ``[D] x``
    needs no escape. Links are followed. A file that is reached through several links to folders is
    returned once. A link to a file counts as a file, as a hard link does.

    Args:
        pattern: the path, glob or URL. It may be chained: ``zip://*.txt::FILE`` finds the members of
            an archive. FILE may also be a glob.
        excluded: returns True for a folder that wildcards must not match.
        seen: called for each file that wildcards match.

    Raises:
        StorageError: nothing matches, the path is a folder, or a file or folder cannot be read.
    """
    if is_remote(pattern):
        chain = split_chain(pattern)
        if chain:
            found = _find_chained(chain, excluded, seen)
        else:
            found = _find_remote(pattern, excluded, seen)
    else:
        found = _find_local(pattern, excluded, seen)
    if not found:
        raise StorageError(f"{pattern}: {_nothing_found(pattern)}")
    return sorted(found)


def _nothing_found(pattern: str) -> str:
    if "[" in pattern:
        return (
            "no file matches; '[' begins a class of characters, write [[] for the character itself"
        )
    if is_wild(pattern):
        return "no file matches; check the path (a glob must be quoted in a shell)"
    if "{" in pattern:
        return "no such file; braces are not a pattern, give a list of patterns instead"
    return "no such file; check the path (a glob must be quoted in a shell)"


def _folder_message(folder: str) -> str:
    return f"{folder}: this is a folder; name its files, as in '{folder.rstrip('/')}/*.txt'"


def _search(
    folders: Folders, start: str, parts: Sequence[str], seen: Callable[[], None]
) -> tuple[str, list[Entry]]:
    """Return the last folder before the first wildcard, with a slash, and the files that match.

    Args:
        folders: where to search.
        start: where the path begins: a slash, nothing, or the host of a web address.
        parts: the components of the pattern; at least one.
        seen: called for each file that matches.
    """
    folder = start
    rest = [*parts]
    while len(rest) > 1 and _is_exact(folders, folder, rest[0]):
        folder = join_name(folder, rest.pop(0))
    base = folder if not folder or folder.endswith("/") else f"{folder}/"
    found = []
    for entry in _matching(folders, folder, rest):
        found.append(entry)
        seen()
    return base, found


def _is_exact(folders: Folders, folder: str, part: str) -> bool:
    if not is_wild(part, folders.wildcards):
        return True
    return may_be_a_name(part) and folders.has(folder, part)


def _matching(folders: Folders, folder: str, parts: Sequence[str]) -> Iterator[Entry]:
    first, *rest = parts
    if first == FOLDERS:
        enters = (
            (lambda name: True) if any(map(is_hidden, rest)) else (lambda name: not is_hidden(name))
        )
        for names, entry in folders.tree(folder, enters):
            if matches_path(names, parts, folders.wildcards):
                yield entry
    elif rest and not is_wild(first, folders.wildcards):
        yield from _matching(folders, join_name(folder, first), rest)
    else:
        entries = folders.entries(folder)
        exact = [e for e in entries if e.name == first and may_be_a_name(first)]
        for entry in exact or entries:
            if not (exact or matches_name(entry.name, first, folders.wildcards)):
                continue
            if not rest and not entry.is_folder:
                yield entry
            elif rest and entry.is_folder and (exact or not folders.is_excluded(entry.path)):
                yield from _matching(folders, entry.path, rest)


def _find_local(pattern: str, excluded: Excluded, seen: Callable[[], None]) -> list[FileInfo]:
    path = str(local_path(pattern))
    if os.path.isdir(path):  # noqa: PTH112
        raise StorageError(_folder_message(pattern))
    folders = LocalFolders(excluded)
    if os.path.lexists(path):
        base, paths = path[: path.rfind("/") + 1], [path]
    else:
        start = "/" if path.startswith("/") else ""
        parts = [part for part in path.split("/") if part]
        base, entries = _search(folders, start, parts, seen)
        paths = [entry.path for entry in entries]
    files = [file for path in paths if (file := local_file(path, base))]
    if not files and paths:
        raise StorageError(f"{paths[0]}: this is not a file whose size is known, such as a pipe")
    return _each_once(files) if folders.have_links else files


def _each_once(files: Iterable[FileInfo]) -> list[FileInfo]:
    """Leave out files that are found a second time through a link to a folder."""
    by_key: dict[EntryKey, list[FileInfo]] = {}
    keys = EntryKeys()
    for file in files:
        by_key.setdefault(keys.of(file.path), []).append(file)
    # If the file was also found without a link, it keeps that name.
    return [
        min(same, key=lambda file: (_is_below_link(file), file.name)) if len(same) > 1 else same[0]
        for same in by_key.values()
    ]


def _is_below_link(file: FileInfo) -> bool:
    folder = os.path.dirname(file.path)  # noqa: PTH120
    return folder != os.path.realpath(folder)


def _find_remote(pattern: str, excluded: Excluded, seen: Callable[[], None]) -> list[FileInfo]:
    web = re.match(r"https?://[^/]*", pattern)
    if web and "#" in pattern:
        raise StorageError(
            f"{pattern}: '#' in a web address begins a part that no server gets; write %23"
        )
    fs, inner = open_remote(pattern)
    # Another process may have written since this one listed the store.
    fs.invalidate_cache()
    folders = RemoteFolders(fs, web is not None, excluded)
    if is_wild(inner, folders.wildcards):
        start = web[0] if web else "/" if inner.startswith("/") else ""
        parts = [part for part in inner.removeprefix(start).split("/") if part]
        base, entries = _search(folders, start, parts, seen)
        infos = [entry.info or fs.info(entry.path) for entry in entries]
    else:
        base = inner[: inner.rfind("/") + 1]
        try:
            infos = [fs.info(inner)]
        except FileNotFoundError:
            return []
        if infos[0]["type"] == "directory":
            raise StorageError(_folder_message(pattern))
    if web:
        # A listing has neither sizes nor versions.
        infos = [info if info.get("size") else fs.info(info["name"]) for info in infos]
    return [remote_file(info, base, folders) for info in infos if info["type"] == "file"]


def _find_chained(chain: Chained, excluded: Excluded, seen: Callable[[], None]) -> list[FileInfo]:
    outer = find_files(chain.outer, excluded, seen)
    if chain.protocol not in ARCHIVES:
        return [replace(file, path=str(chain._replace(outer=file.path))) for file in outer]
    found = []
    for archive in outer:
        for file in _members(chain._replace(outer=archive.path), archive):
            name = f"{archive.name}/{file.name}" if len(outer) > 1 else file.name
            found.append(replace(file, name=name))
    return found


def _members(chain: Chained, archive: FileInfo) -> list[FileInfo]:
    """Return the members of an archive that match ``chain.member``.

    Raises:
        StorageError: the file is not such an archive, or the name of a member cannot be part of a URL.
    """
    try:
        sizes = open_archive(chain, open_read, reopen=True).sizes
    except DamagedArchive as error:
        raise StorageError(
            f"{archive.path}: cannot be read as a {chain.protocol} archive ({error.strerror}); "
            "replace it with an intact copy, or unpack it"
        ) from error
    # Names in a tar file often begin with "./".
    paths = {name: [part for part in name.split("/") if part not in ("", ".")] for name in sizes}
    rest = [part for part in chain.member.split("/") if part not in ("", ".")]
    start: list[str] = []
    while len(rest) > 1 and (not is_wild(rest[0]) or _has_folder(paths.values(), start, rest[0])):
        start.append(rest.pop(0))
    inside = {
        name: path[len(start) :] for name, path in paths.items() if path[: len(start)] == start
    }
    exact = [name for name, path in inside.items() if path == rest]
    found = exact or [name for name, path in inside.items() if matches_path(path, rest)]
    if unusable := [name for name in found if "::" in name]:
        raise StorageError(
            f"{archive.path}: the name of '{unusable[0]}' in it has '::', which ends a name in a "
            "chained URL; unpack the archive"
        )
    return [
        FileInfo(
            "/".join(inside[name]), str(chain._replace(member=name)), sizes[name], archive.version
        )
        for name in found
    ]


def _has_folder(paths: Iterable[list[str]], above: list[str], name: str) -> bool:
    folder = [*above, name]
    return any(path[: len(folder)] == folder and path != folder for path in paths)
