"""Copying and removing many objects of a store at once.

fsspec's ``rm`` takes a name with one of ``*?[`` for a pattern, which may match objects of another folder.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import Any

COPIED_AT_ONCE = 1000
"""Objects that are copied between two reports of the progress; a file system copies some of them at a time."""


def find_objects(fs: Any, folder: str) -> list[str]:
    """Return the names of the objects below a folder, relative to it, in order; folder markers too."""
    fs.invalidate_cache()
    start = len(folder.rstrip("/")) + 1
    return [name[start:] for name in fs.find(folder)]


def copy_objects(
    fs: Any, folder: str, target: str, names: Sequence[str], copied: Callable[[int], None]
) -> None:
    """Copy objects from one folder to another, many at once.

    Args:
        fs: the file system.
        folder: the folder.
        target: the other folder.
        names: names of the objects, relative to the folder.
        copied: called with the number of objects that were copied since the last call.
    """
    rest = iter(names)
    while part := [*islice(rest, COPIED_AT_ONCE)]:
        fs.copy([f"{folder}/{name}" for name in part], [f"{target}/{name}" for name in part])
        copied(len(part))


def move_below(
    fs: Any, source: str, target: str, names: Collection[str], moved: Callable[[int], None]
) -> None:
    """Copy and remove the objects with these names in a folder, and those in folders with these names.

    Arguments as in `copy_objects`.
    """
    found = [
        name
        for name in find_objects(fs, source)
        if not is_folder_marker(name) and name.partition("/")[0] in names
    ]
    if found:
        copy_objects(fs, source, target, found, moved)
        remove_objects(fs, [f"{source}/{name}" for name in found])


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
