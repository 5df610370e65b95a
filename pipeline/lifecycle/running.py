"""Run a stage unless it is done; its manifest is written last."""

import json
import time
from collections.abc import Callable
from typing import Any

from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.console import Console, clock
from pipeline.lifecycle.lock import lock, one_at_a_time
from pipeline.lifecycle.stage import CONFIG, STATS, Made, Stage, StageFolder, StageWork, require
from pipeline.lifecycle.state import StageState, refusal, request_of, state_of
from pipeline.version import biloom_version
from preprocess.files import storage
from preprocess.files.fingerprint import fingerprint
from preprocess.files.manifest import NAME, Manifest, content_hash, write_manifest
from preprocess.reading.changed_inputs import keep_checked
from preprocess.work.folder import asked_file, write_record


def run_stage(
    stage: Stage,
    load_work: Callable[[], StageWork],
    config: Config,
    console: Console,
    overwrite: bool = False,
) -> Manifest:
    """Run, resume or extend ``stage``, unless it is done, and return its manifest.

    Args:
        stage: the stage.
        load_work: imports the stage's functions; called only if there is work to do and the
            packages that it needs are installed.
        config: the config.
        console: where progress is shown.
        overwrite: move a result that was made with other settings aside, instead of refusing.

    Raises:
        StageError: the folder holds a result or unfinished work that was made with other settings.
        LockedError: another process is writing the folder.
        ManifestError: a stage that this one reads from is not finished, or the folder's own
            manifest is damaged.
    """
    place = StageFolder(stage.folder(config))
    console.stage(stage.name, place.folder)
    request = request_of(stage, config)
    state = state_of(stage, config, place, request)
    keep_checked(place.folder)
    if state.done:
        return _already_done(stage, place, state, console)
    if state.differing and not overwrite:
        raise refusal(place, state)
    require(stage.name, stage.needs)
    if state.differing:
        _move_aside(stage, config, place, request, console)
    with lock(place.folder, place.lock, console):
        # Another process may have finished the stage before this one got the lock.
        state = state_of(stage, config, place, request)
        if state.done:
            return _already_done(stage, place, state, console)
        if state.differing:
            raise refusal(place, state)
        storage.remove_temporary(place.folder)
        reopened = state.grows and not stage.adds
        work = load_work()
        if reopened:
            assert work.reopen, "a stage whose result grows in place can be reopened"
            work.reopen(config, place)
        write_record(asked_file(place.work), request)
        if reopened:
            # Last: until here the old result is complete, from here on the work can be resumed.
            storage.remove(place.file(NAME))
        if state.unfinished:
            console.line("resuming unfinished work")
        elif state.grows:
            console.line("extending the finished result")
        start = time.monotonic()
        made = work.make(config, place, console)
        return _finish(stage, config, place, request, made, time.monotonic() - start, console)


def _move_aside(
    stage: Stage, config: Config, place: StageFolder, request: dict[str, Any], console: Console
) -> None:
    with lock(place.folder, place.lock, console):
        state = state_of(stage, config, place, request)
        if not state.differing:
            return
        aside = StageFolder(storage.move_aside(place.folder))
    if state.manifest:
        storage.remove_tree(aside.work)
    storage.remove(aside.lock)
    console.line(f"moved the old result to {aside.folder}")


def _already_done(
    stage: Stage, place: StageFolder, state: StageState, console: Console
) -> Manifest:
    assert state.manifest, "a finished stage has a manifest"
    if state.other_unfinished:
        console.line("already done; unfinished work for other settings is kept")
        return state.manifest
    _sweep(stage, place, state.manifest)
    _remove_work(place)
    console.line("already done")
    return state.manifest


def _sweep(stage: Stage, place: StageFolder, manifest: Manifest) -> None:
    """Remove the stage's files that an older manifest listed and this one does not."""
    if stage.sweep:
        listed = {file.name for file in manifest.files}
        for name in storage.list_names(place.folder):
            if name.startswith(stage.sweep) and name not in listed:
                storage.remove(place.file(name))


def _finish(
    stage: Stage,
    config: Config,
    place: StageFolder,
    request: dict[str, Any],
    made: Made,
    seconds: float,
    console: Console,
) -> Manifest:
    storage.write_bytes(place.file(CONFIG), dump_config(config).encode())
    stats = json.dumps({**made.stats, "seconds": round(seconds, 1)}, indent=2, ensure_ascii=False)
    # A lone surrogate, as in a name that is not UTF-8, is written as JSON's own escape.
    storage.write_bytes(place.file(STATS), f"{stats}\n".encode("utf-8", "backslashreplace"))
    manifest = Manifest(
        stage=stage.name,
        stage_version=stage.version,
        biloom=biloom_version(),
        fingerprint=fingerprint(request),
        content=made.content or content_hash(made.files),
        asked=request,
        files=made.files,
        details=made.details,
    )
    write_manifest(place.folder, manifest)
    _sweep(stage, place, manifest)
    _remove_work(place)
    console.line(f"done in {clock(seconds)}")
    return manifest


def _remove_work(place: StageFolder) -> None:
    # Not while another process creates the folder for its lock.
    with one_at_a_time(place.folder):
        if storage.exists(place.work):
            storage.remove_temporary(place.folder)
        storage.remove_tree(place.work)
