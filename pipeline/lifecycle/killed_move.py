"""Ends the move of an old result that a killed process began."""

from pipeline.console import Console
from pipeline.lifecycle.lock import lock
from preprocess.errors import one_line
from preprocess.work.aside import end_move, has_move
from preprocess.work.folder import lock_file


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
