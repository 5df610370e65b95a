"""Listing the files of a source."""

from dataclasses import replace

from preprocess.config import Source
from preprocess.files.find import FileInfo, find_files
from preprocess.reading import installed_docs
from preprocess.reading.formats import INSTALLED_DOCS


def list_source(source: Source) -> list[FileInfo]:
    """Return the files of a source ordered by name, with unique names and each file once.

    If two patterns (``a/*.txt`` and ``b/*.txt``) find files of equal name, their names are extended
    by as many parent folders as necessary. No more of the path is used, so that names stay the same
    if the whole input is moved.

    Raises:
        StorageError: no file matches a path, or a file cannot be read.
    """
    found: dict[str, FileInfo] = {}
    for path in source.paths:
        files = installed_docs.list_files() if path == INSTALLED_DOCS else find_files(path)
        for file in files:
            found.setdefault(file.path, file)
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
