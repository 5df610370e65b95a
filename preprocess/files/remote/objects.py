"""Copying and removing many objects of a store at once.

fsspec's ``rm`` takes a name with one of ``*?[`` for a pattern, which may match objects of another folder.
"""

from collections.abc import Sequence
from typing import Any


def find_objects(fs: Any, folder: str) -> list[str]:
    """Return the names of the objects below a folder, relative to it, in order; folder markers too."""
    fs.invalidate_cache()
    start = len(folder.rstrip("/")) + 1
    return [name[start:] for name in fs.find(folder)]


def copy_objects(fs: Any, folder: str, target: str, names: Sequence[str]) -> None:
    """Copy objects from one folder to another, many at once; names are relative to the folder."""
    if names:
        fs.copy([f"{folder}/{name}" for name in names], [f"{target}/{name}" for name in names])


def remove_objects(fs: Any, names: Sequence[str]) -> None:
    """Remove objects, many at once."""
    if plain := [*filter(_is_plain, names)]:
        fs.rm(plain)
    for name in {*names}.difference(plain):
        fs.rm_file(name)


def remove_all(fs: Any, folder: str) -> None:
    """Remove a folder and everything below it."""
    if _is_plain(folder):
        fs.rm(folder, recursive=True)
    else:
        remove_objects(fs, fs.find(folder))


def is_folder_marker(name: str) -> bool:
    """Return True for an empty object that stands for a folder, as consoles of stores make them."""
    # The folder's own marker has no name relative to it.
    return not name or name.endswith("/")


def _is_plain(name: str) -> bool:
    """Return True if fsspec does not take the name for a pattern."""
    return not {*"*?["}.intersection(name)
