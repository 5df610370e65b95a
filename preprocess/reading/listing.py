"""Listing the files of a source."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from preprocess.config import Source
from preprocess.errors import one_line
from preprocess.files import manifest, storage
from preprocess.files.errors import StorageError
from preprocess.files.search.below import Kind, find_below, is_folder
from preprocess.files.search.find import find_files
from preprocess.files.search.folders import EntryKeys
from preprocess.files.search.found import FileInfo
from preprocess.reading import installed_docs
from preprocess.reading.formats.detection import INSTALLED_DOCS
from preprocess.reading.kinds.by_name import STAGE_FOLDER, kind_of_file, kind_of_folder
from preprocess.work import folder as work

STAGES = ("tokenizer", "prepare", "train", "evaluate", "export", "embed")
"""Names of the folders of stages in the folder of a run."""
NAMED_KINDS = 12
"""Maximum number of kinds that `describe_left_out` names."""


class Listing(NamedTuple):
    """The files of a source.

    Attributes:
        files: the files, as `list_source` returns them.
        left_out: number of files and folders inside input folders that were left out, by kind.
    """

    files: list[FileInfo]
    left_out: Counter[Kind]


def list_source(source: Source, seen: Callable[[], None] = lambda: None) -> list[FileInfo]:
    """Return the files of a source ordered by name, with unique names and each file once.

    A path is a file, a pattern, or a folder, of which all files are taken that may be text by their
    names. If two paths (``a/*.txt`` and ``b/*.txt``) find files of equal name, their names are extended
    by as many parent folders as necessary. No more of the path is used, so that names stay the same
    if the whole input is moved.

    Neither wildcards nor folders contain the files of stages, so that a run does not read its own output
    if its folder is below its input. To read from such a folder, a path must name it.

    Args:
        source: the source.
        seen: called for each file that is found, read or not.

    Raises:
        StorageError: no file matches a path, or a file cannot be read.
    """
    return survey(source, seen).files


def survey(source: Source, seen: Callable[[], None] = lambda: None) -> Listing:
    """Return the files of a source, and what was left out of its folders; arguments as in `list_source`.

    Raises:
        StorageError: as in `list_source`.
    """
    found: dict[object, FileInfo] = {}
    left_out: Counter[Kind] = Counter()
    keys = EntryKeys()
    for path in source.paths:
        for file in _files_of(path, left_out, seen):
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
    files = [file for group in groups.values() for file in group]
    return Listing(sorted(files, key=lambda file: file.name), left_out)


def _files_of(path: str, left_out: Counter[Kind], seen: Callable[[], None]) -> Iterable[FileInfo]:
    if path == INSTALLED_DOCS:
        return installed_docs.list_files()
    if not is_folder(path):
        return find_files(path, _is_of_a_stage, seen)

    def kind_of_seen(name: str) -> Kind | None:
        seen()
        return kind_of_file(name)

    below = find_below(path, kind_of_seen, kind_of_folder, _is_of_a_run, STAGE_FOLDER)
    left_out.update(below.left_out)
    if not below.files:
        there = describe_left_out(below.left_out) or "it is empty"
        raise StorageError(
            f"{one_line(path)}: no file in this folder may be text ({there}); name a folder with text"
        )
    return below.files


def by_kind(left_out: Mapping[Kind, int]) -> dict[str, int]:
    """Return the number of what was left out for each kind, as JSON types, most frequent first."""
    return {plural: number for (_, plural), number in _ordered(left_out)}


def describe_left_out(left_out: Mapping[Kind, int]) -> str:
    """Return what was left out as a list, such as "12 images (.png), 1 hidden file"."""
    named = [f"{number:,} {kind[number != 1]}" for kind, number in _ordered(left_out)]
    if len(named) > NAMED_KINDS:
        more = sum(number for _, number in _ordered(left_out)[NAMED_KINDS - 1 :])
        named[NAMED_KINDS - 1 :] = [f"{more:,} of other kinds"]
    return ", ".join(named)


def _ordered(left_out: Mapping[Kind, int]) -> list[tuple[Kind, int]]:
    return sorted(left_out.items(), key=lambda item: (-item[1], item[0]))


def _is_of_a_run(folder: str, names: Collection[str]) -> bool:
    """Return True if a folder has a stage's result or work, or is the folder of a run, with reports."""
    return _is_of_a_stage(folder, names) or any(
        _is_of_a_stage(inner, [*storage.list_names(inner), *storage.list_folders(inner)])
        for inner in (storage.join(folder, stage) for stage in STAGES if stage in names)
    )


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
