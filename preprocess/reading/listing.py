"""Listing the files of a source."""

import json
from collections.abc import Collection
from dataclasses import replace

from preprocess.config import Source
from preprocess.files import manifest, storage
from preprocess.files.errors import StorageError
from preprocess.files.search.find import FileInfo, find_files
from preprocess.files.search.folders import EntryKeys
from preprocess.reading import installed_docs
from preprocess.reading.formats.detection import INSTALLED_DOCS
from preprocess.work import folder as work


def list_source(source: Source) -> list[FileInfo]:
    """Return the files of a source ordered by name, with unique names and each file once.

    If two patterns (``a/*.txt`` and ``b/*.txt``) find files of equal name, their names are extended
    by as many parent folders as necessary. No more of the path is used, so that names stay the same
    if the whole input is moved.

    Wildcards do not match files in the folders of stages, so that a run does not read its own output
    if its folder is below its input. To read from such a folder, a path must name it.

    Raises:
        StorageError: no file matches a path, or a file cannot be read.
    """
    found: dict[object, FileInfo] = {}
    keys = EntryKeys()
    for path in source.paths:
        docs = path == INSTALLED_DOCS
        for file in installed_docs.list_files() if docs else find_files(path, _is_of_a_stage):
            local = len(source.paths) > 1 and not storage.is_remote(file.path)
            found.setdefault(keys.of(file.path) if local else file.path, file)
    groups: dict[str, list[FileInfo]] = {file.name: [] for file in found.values()}
    for file in found.values():
        groups[file.name].append(file)
    while clashes := [name for name, group in groups.items() if len(group) > 1]:
        for clash in clashes:
            parts = clash.count("/") + 2
            for file in groups.pop(clash):
                longer = "/".join(file.path.split("/")[-parts:])
                groups.setdefault(longer, []).append(replace(file, name=longer))
    return sorted(file for group in groups.values() for file in group)


def _is_of_a_stage(folder: str, names: Collection[str]) -> bool:
    """Return True if a folder, with these names in it, has a stage's result or unfinished work."""
    if manifest.NAME in names:
        try:
            found = json.loads(storage.read_bytes(storage.join(folder, manifest.NAME)))
        except ValueError:
            found = None
        if isinstance(found, dict) and {"stage", "fingerprint", "content"} <= found.keys():
            return True
    if work.NAME not in names and not folder.endswith(f"/{work.NAME}"):
        return False
    below = folder if work.NAME not in names else storage.join(folder, work.NAME)
    try:
        return bool(find_files(storage.join(below, "**", work.ASKED)))
    except StorageError:
        return False
