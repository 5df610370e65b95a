"""Unfinished work: what is recorded when it begins, and the end of a move that a killed process began."""

from collections.abc import Mapping
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.lock import lock
from pipeline.lifecycle.stage import Stage
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.text.versions import differing_versions, recorded_versions
from preprocess.work.aside import end_move, has_move
from preprocess.work.folder import (
    is_begun,
    lock_file,
    read_record_if_written,
    switches_file,
    versions_file,
    write_record,
)


def record_begin(stage: Stage, config: Config, work: str) -> None:
    """Record the versions and the switches with which work begins, in its folder ``work``.

    The first record of the versions counts, because it tells how the bytes made so far were made. A switch is
    recorded as off if any part may have been made without it. Switches that a former version did not record
    stay unknown.
    """
    versions = stage.versions(config)
    if versions and not storage.exists(path := versions_file(work)):
        write_record(path, versions)
    switches = stage.switches(config)
    if not switches:
        return
    recorded = read_record_if_written(switches_file(work)) or {}
    if is_begun(work):
        switches = {name: was_on and switches.get(name, False) for name, was_on in recorded.items()}
    if switches != recorded:
        write_record(switches_file(work), switches)


def other_versions(work: str, asked: Mapping[str, Any]) -> list[str]:
    """Return a line for each table of another version than when the work was begun.

    Args:
        work: folder of the work.
        asked: its request.
    """
    recorded = read_record_if_written(versions_file(work)) or {}
    return differing_versions(recorded_versions(recorded, asked))


def turned_on(stage: Stage, config: Config, work: str) -> list[str]:
    """Return a line for each switch that is on now, but was off when a part of the work was done."""
    switches = [name for name, is_on in stage.switches(config).items() if is_on]
    if not switches or not is_begun(work):
        return []
    recorded = read_record_if_written(switches_file(work)) or {}
    return [f"{name}: false -> true" for name in switches if recorded.get(name) is False]


def end_killed_move(folder: str, console: Console) -> None:
    """Complete or undo the move of a folder aside if a process was killed while it moved it.

    Args:
        folder: folder of a stage or task.
        console: where this is shown.

    Raises:
        LockedError: another process is writing the folder; it may be moving it.
        DamagedWork: the record of the move is damaged.
    """
    if not has_move(folder):
        return
    with lock(folder, lock_file(folder), console):
        aside = end_move(folder)
    if aside:
        console.line(
            f"moved the rest of the old result, which a killed process left, to {one_line(aside)}"
        )
    elif aside == "":
        console.line("removed the incomplete copy of this result that a killed process left")
