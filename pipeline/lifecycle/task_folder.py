"""Make the folder of a command unless it is done; its manifest is written last."""

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pipeline.console import Console, clock
from pipeline.lifecycle.lock import LockedError, lock
from pipeline.lifecycle.stage import StageError
from pipeline.lifecycle.unfinished import end_killed_move
from pipeline.phases import CHECKING, MOVING, phase
from pipeline.progress import write_metrics
from pipeline.version import biloom_version
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.fingerprint import differing_keys, fingerprint
from preprocess.files.manifest import (
    NAME,
    DamagedManifest,
    FileRecord,
    Manifest,
    check_files,
    content_hash,
    read_manifest,
    record_of,
    write_manifest,
)
from preprocess.work import folder as work_folder
from preprocess.work.aside import move_aside

CARD = "README.md"
"""Name of the card of a model, as model hubs expect it."""
_HASHES = re.compile(r'"([0-9a-f]{8})[0-9a-f]{24,56}" -> "([0-9a-f]{8})[0-9a-f]{24,56}"')


def make_task(
    out: str,
    request: Mapping[str, Any],
    make: Callable[[str], Manifest],
    console: Console,
    overwrite: bool = False,
) -> Manifest:
    """Make a task folder, or resume or return it if it was begun or finished with the same request.

    Args:
        out: path or URL of the folder.
        request: the settings and inputs that decide the result, as JSON types.
        make: does the work and writes the folder, the manifest last. Its argument is a folder below
            ``out`` for unfinished work. It must give the same bytes if it is called again after it was
            killed.
        console: where progress is shown.
        overwrite: move a result that was made with another request aside, instead of refusing.

    Returns:
        The manifest of the finished folder.

    Raises:
        StageError: the folder holds a result or unfinished work for another request, the result of
            another command, or other files, or is damaged.
        LockedError: another process is writing the folder.
    """
    out = storage.absolute(out)
    asked = dict(request)
    write_metrics()
    end_killed_move(out, console)
    if done := _finished(out, asked, console, overwrite):
        return done
    _check_other_work(out, asked, console, overwrite)
    with lock(out, work_folder.lock_file(out), console) as lease:
        # Another process may have finished it before this one got the lock.
        if done := _finished(out, asked, console, overwrite=False):
            return done
        work = work_folder.work_folder(out, fingerprint(asked))
        storage.remove_temporary(out)
        if storage.exists(work_folder.asked_file(work)):
            console.line("resuming unfinished work")
        else:
            work_folder.write_record(work_folder.asked_file(work), asked)
        start = time.monotonic()
        try:
            manifest = make(work)
        except UserError:
            _forget_if_nothing_made(out, work)
            raise
        lease.check()
        work_folder.remove_work(out, work)
        console.line(f"done in {clock(time.monotonic() - start)}: {one_line(out)}")
    return manifest


def make_result(
    folder: str,
    asked: Mapping[str, Any],
    names: Collection[str],
    what: str,
    make: Callable[[], None],
    console: Console,
) -> bool:
    """Make the folder of a command that writes without a work folder, unless it is made.

    This process holds the lock of the folder meanwhile. The lock file is removed at the end, and so is the
    folder if it is empty.

    Args:
        folder: path or URL of the folder.
        asked: what the command was asked.
        names: names of the files that the command may write.
        what: what these files are of, for the message.
        make: writes the files, and the manifest last.
        console: where it is told that the command is done.

    Returns:
        False if the folder was made before.

    Raises:
        StageError: the folder has another result or other files, or its result is damaged.
        LockedError: another process is writing the folder.
        LeaseLost: another process took the folder over.
    """
    if _is_made(folder, asked, names, what, console):
        _clean(folder, console)
        return False
    try:
        with lock(folder, work_folder.lock_file(folder), console) as lease:
            # Another process may have made it before this one got the lock.
            if _is_made(folder, asked, names, what, console):
                return False
            storage.remove_temporary(folder)
            make()
            lease.check()
    finally:
        if not storage.is_remote(folder):
            with suppress(OSError):
                storage.local_path(folder).rmdir()
    return True


def _is_made(
    folder: str, asked: Mapping[str, Any], names: Collection[str], what: str, console: Console
) -> bool:
    """Return True if a folder holds the result; arguments and errors as in `make_result`."""
    if storage.exists(storage.join(folder, NAME)):
        try:
            manifest = read_manifest(folder)
        except DamagedManifest as error:
            raise _damaged_result(folder, NAME) from error
        if manifest.asked != asked:
            raise StageError(f"{folder} holds another finished result; name another folder")
        if problems := _problems(folder, manifest):
            raise _damaged_result(folder, problems[0])
        console.line(f"{folder}: already done")
        return True
    if others := set(storage.list_names(folder)).difference(names):
        raise StageError(
            f"{folder} holds {one_line(min(others))}, which is not a file of {what}; name another folder"
        )
    return False


def _problems(folder: str, manifest: Manifest) -> list[str]:
    with phase(CHECKING, "files", len(manifest.all_files)) as checked:
        return check_files(folder, manifest, lambda _: checked.add())


def _damaged_result(folder: str, what: str) -> StageError:
    return StageError(
        f"{folder} is damaged ({one_line(what)}); remove this folder and run the command again, or name "
        "another folder"
    )


def write_result(
    folder: str,
    asked: dict[str, Any],
    made: Sequence[FileRecord],
    details: dict[str, Any],
    card: bytes | None = None,
    stage: str = "export",
    version: int = 1,
) -> Manifest:
    """Write the manifest of a folder whose files are written; return it.

    Args:
        folder: the folder.
        asked: what the command was asked.
        made: records of the files, which decide the content.
        details: what the manifest says about the result.
        card: content of `CARD`, which does not decide that of the result; None means that there is none.
        stage: stage of the manifest.
        version: version of the stage.
    """
    files = [*made]
    if card is not None:
        storage.write_bytes(storage.join(folder, CARD), card)
        files.append(record_of(CARD, card))
    manifest = Manifest(
        stage=stage,
        stage_version=version,
        biloom=biloom_version(),
        fingerprint=fingerprint(asked),
        content=content_hash(made),
        asked=asked,
        files=tuple(files),
        details=details,
    )
    write_manifest(folder, manifest)
    return manifest


def _forget_if_nothing_made(out: str, work: str) -> None:
    """Remove a work folder that holds the request only, so that the corrected command is not refused."""
    if _is_empty(work):
        work_folder.remove_work(out, work)


def _is_empty(work: str) -> bool:
    return storage.list_names(work) == [work_folder.ASKED] and not storage.list_folders(work)


def _finished(
    out: str, asked: dict[str, Any], console: Console, overwrite: bool
) -> Manifest | None:
    """Return the manifest of a folder that is finished for the request, or None if it is to be made."""
    if not storage.exists(storage.join(out, NAME)):
        return None
    try:
        manifest = read_manifest(out)
    except DamagedManifest as error:
        if not overwrite:
            raise _damaged(out, NAME) from error
        _move_aside(out, console)
        return None
    if manifest.stage != asked["stage"]:
        # Moving aside what another command made, such as the language model itself, is never wanted.
        raise StageError(
            f"{out} holds a finished '{one_line(manifest.stage):.40}', which this command does not replace; "
            "name another folder with --out"
        )
    differing = differing_keys(manifest.asked, asked)
    if not differing:
        if problems := _problems(out, manifest):
            if not overwrite:
                raise _damaged(out, problems[0])
            _move_aside(out, console)
            return None
        _clean(out, console)
        console.line(f"already done: {one_line(out)}")
        return manifest
    if not overwrite:
        raise _refusal(out, "a result", differing)
    _move_aside(out, console)
    return None


def _clean(out: str, console: Console) -> None:
    """Remove the work folder of a finished task, which a process leaves that is killed at its end."""
    if not storage.exists(work_folder.work_root(out)):
        return
    # The folder may also be read-only.
    with (
        suppress(LockedError, StorageError),
        lock(out, work_folder.lock_file(out), console, wait=False),
    ):
        for work, _ in work_folder.unfinished_work(out):
            work_folder.remove_work(out, work)
        storage.remove_temporary(out)


def _check_other_work(out: str, asked: dict[str, Any], console: Console, overwrite: bool) -> None:
    """Refuse a folder with unfinished work for another request, or with files of something else."""
    works = work_folder.unfinished_work(out)
    names = storage.list_names(out)
    if works and all(differing_keys(request, asked) for _, request in works):
        if not names and all(map(_is_empty, (folder for folder, _ in works))):
            # For example, a command that was stopped while it read its input.
            for folder, _ in works:
                work_folder.remove_work(out, folder)
            return
        if not overwrite:
            raise _refusal(out, "unfinished work", differing_keys(works[0][1], asked))
        _move_aside(out, console)
    elif not works and names:
        raise StageError(
            f"{out} holds {one_line(names[0])}, which is not of an unfinished task; name another "
            "folder with --out"
        )


def _move_aside(out: str, console: Console) -> None:
    with lock(out, work_folder.lock_file(out), console), phase(MOVING, "files") as moved:
        aside = move_aside(out, moved.add)
    storage.remove(work_folder.lock_file(aside))
    console.line(f"moved the old result to {one_line(aside)}")


def _damaged(out: str, what: str) -> StageError:
    return StageError(
        f"{out} is damaged ({one_line(what)}); add --overwrite to move it aside and make it again, or "
        "name another folder with --out"
    )


def _refusal(out: str, what: str, differing: list[str]) -> StageError:
    lines = [_HASHES.sub(r"other content (\1, now \2)", line) for line in differing]
    keys = "\n".join(f"    {line}" for line in lines)
    return StageError(
        f"{out} holds {what} made with other settings or inputs:\n{keys}\n"
        "  add --overwrite to move it aside, or name another folder with --out"
    )
