"""Moving the folder of a stage or task aside, so that its command can make it again.

A local folder is renamed. A store has no rename, so its objects are copied and then removed. A record in
``_work`` has the names of the objects and whether all are copied. If the process is killed, the next one
completes or undoes the move (`end_move`): otherwise it would take files of the old result for its own.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from preprocess.files.manifest import NAME
from preprocess.files.remote.objects import (
    copy_objects,
    find_objects,
    is_folder_marker,
    remove_objects,
)
from preprocess.files.storage import (
    absolute,
    exists,
    is_remote,
    join,
    local_path,
    open_remote,
    remove,
)
from preprocess.files.write_checks import check_write
from preprocess.work.damage import damaged_work
from preprocess.work.folder import ASKED, LOCK, work_root
from preprocess.work.folder import NAME as WORK
from preprocess.work.records import read_record, write_record

RECORD = "move.json"
"""Name of the record of a move, in ``_work``."""
REMOVED_AT_ONCE = 1000
"""Objects that are removed between two checks of the lock."""
_STAY = (f"{WORK}/{LOCK}", f"{WORK}/{RECORD}")


def move_aside(folder: str, moved: Callable[[int], None] = lambda _: None) -> str:
    """Rename ``folder`` to the first free ``folder.old-N`` and return the new name.

    The caller must hold its lock. The lock file of a local folder moves too; that on a store stays.

    Args:
        folder: path or URL.
        moved: called with the number of objects that were copied since the last call, in a store.
    """
    folder = folder.rstrip("/")
    check_write(absolute(folder))
    number = next(n for n in count(1) if _is_free(_aside(folder, n)))
    aside = _aside(folder, number)
    if not is_remote(folder):
        local_path(folder).rename(local_path(aside))
        return aside
    fs, inner = open_remote(folder)
    found = [name for name in find_objects(fs, inner) if name not in _STAY]
    names = [name for name in found if not is_folder_marker(name)]
    move = {"number": number, "names": names, "copied": False}
    write_record(_record(folder), move)
    for group in _in_order(names):
        copy_objects(fs, inner, open_remote(aside)[1], group, moved)
    write_record(_record(folder), {**move, "copied": True})
    end_move(folder)
    return aside


def has_move(folder: str) -> bool:
    """Return True if a killed process has begun to move a folder aside; `end_move` ends the move."""
    return is_remote(folder) and exists(_record(folder))


def end_move(folder: str) -> str | None:
    """Complete the move of a folder if all was copied, else remove the copies; the caller holds the lock.

    Returns:
        The folder to which the move was completed; "" if it was undone; None if there is none.

    Raises:
        DamagedWork: the record of the move is damaged.
    """
    folder = folder.rstrip("/")
    path = _record(folder)
    if not exists(path):
        return None
    move = read_record(path)
    _check(path, move)
    aside = _aside(folder, move["number"])
    # Of an incomplete copy, only what was copied is removed, and of the folder only what was moved.
    place = folder if move["copied"] else aside
    fs, inner = open_remote(place)
    there = find_objects(fs, inner)
    names = sorted({*move["names"]}.intersection(there))
    for group in reversed(_in_order(names)):
        for begin in range(0, len(group), REMOVED_AT_ONCE):
            # If this process was suspended, another one may have written files with the same names.
            check_write(absolute(folder))
            part = group[begin : begin + REMOVED_AT_ONCE]
            remove_objects(fs, [f"{inner}/{name}" for name in part])
    check_write(absolute(folder))
    for name in filter(is_folder_marker, there):
        fs.rm_file(f"{inner}/{name}")
    remove(path)
    return aside if move["copied"] else ""


def _aside(folder: str, number: int) -> str:
    return f"{folder}.old-{number}"


def _is_free(aside: str) -> bool:
    if not (is_remote(aside) and exists(aside)):
        return not exists(aside)
    # Some stores keep a folder whose objects were removed.
    return all(map(is_folder_marker, find_objects(*open_remote(aside))))


def _record(folder: str) -> str:
    return join(work_root(folder), RECORD)


def _in_order(names: Sequence[str]) -> list[list[str]]:
    """Return the names in the order of copying; they are removed in the reverse order.

    A folder with a manifest must be complete, and so must unfinished work with a request.
    """
    groups: list[list[str]] = [[], [], []]
    for name in names:
        is_request = name.rpartition("/")[2] == ASKED
        groups[2 if name == NAME else int(is_request)].append(name)
    return groups


def _check(path: str, move: Any) -> None:
    """Check a record, because a folder may come from an untrusted source, and its names are removed."""
    if (
        not isinstance(move, dict)
        or [type(move.get(key)) for key in ("number", "names", "copied")] != [int, list, bool]
        or not all(type(name) is str and ".." not in name.split("/") for name in move["names"])
    ):
        raise damaged_work(path, "it is not the record of a move")
