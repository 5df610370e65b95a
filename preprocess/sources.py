"""The files of a source, by name and size alone, and how each is read."""

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from preprocess import installed_docs, storage
from preprocess.config import Source
from preprocess.storage import FileInfo

Format = Literal["text", "jsonl", "docstrings"]
INSTALLED_DOCS = "installed-docs:"


def is_compressed_name(name: str) -> bool:
    """Whether a file of this name is expected to be compressed (the content decides at reading)."""
    return PurePosixPath(name.lower()).suffix in (".gz", ".bz2", ".xz", ".zst", ".zip")


def resolve_format(source: Source, name: str) -> Format:
    """How the file ``name`` of ``source`` is read."""
    if source.format != "auto":
        return source.format
    lower = name.lower()
    plain = PurePosixPath(PurePosixPath(lower).stem if is_compressed_name(lower) else lower)
    if plain.suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if INSTALLED_DOCS in source.paths and plain.suffix == ".py":
        return "docstrings"
    return "text"


def list_source(source: Source) -> list[FileInfo]:
    """The files of a source ordered by name, each once, no two of one name.

    Files of one name found by two patterns (``a/*.txt`` and ``b/*.txt``) are told apart by as many
    of their folders as it takes, so names do not change when all of the input is moved.

    Raises:
        StorageError: nothing matches a path, or it cannot be read.
    """
    found: dict[str, FileInfo] = {}
    for path in source.paths:
        files = installed_docs.list_files() if path == INSTALLED_DOCS else storage.find_files(path)
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
