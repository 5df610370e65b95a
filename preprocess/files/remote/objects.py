"""Moving and removing many objects of a store at once.

fsspec's ``rm`` takes a name with one of ``*?[`` for a pattern, which may match objects of another folder.
"""

from collections.abc import Sequence
from typing import Any


def move_objects(fs: Any, source: str, target: str) -> None:
    """Copy and remove the objects of a folder, many at once, because stores have no rename."""
    fs.invalidate_cache()
    # A folder with a manifest must be complete, so manifests are copied last and removed first.
    names = fs.find(source)
    files = [name for name in names if not is_folder_marker(name)]
    groups = [[n for n in files if n.endswith("/manifest.json") == last] for last in (False, True)]
    for group in filter(None, groups):
        fs.copy(group, [target + name.removeprefix(source) for name in group])
    for group in reversed(groups):
        remove_objects(fs, group)
    for name in filter(is_folder_marker, names):
        fs.rm_file(name)


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
    return name.endswith("/")


def _is_plain(name: str) -> bool:
    """Return True if fsspec does not take the name for a pattern."""
    return not {*"*?["}.intersection(name)
