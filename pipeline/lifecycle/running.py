"""Run a stage unless it is done; its manifest is written last."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.console import Console, clock
from pipeline.lifecycle.lock import LockedError, lock
from pipeline.lifecycle.stage import (
    CONFIG,
    REPLACES,
    SETTINGS,
    STATS,
    VERSIONS,
    Made,
    Stage,
    StageFolder,
    StageWork,
    require,
)
from pipeline.lifecycle.state import StageState, Work, is_former, refusal, request_of, state_of
from pipeline.version import biloom_version
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.fingerprint import fingerprint, plain
from preprocess.files.manifest import NAME, FileRecord, Manifest, content_hash, write_manifest
from preprocess.reading.changed_inputs import keep_checked
from preprocess.work import folder as work_folder

KEPT_IN_PLACE = (NAME, CONFIG, STATS)
"""Files in a stage's folder that never belong to unfinished work, even of version 0.1."""


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
        overwrite: move a result that was made with other settings aside, instead of refusing. If only
            unfinished work keeps a finished result from growing, remove that work instead.

    Raises:
        StageError: the folder holds a result or unfinished work that was made with other settings.
        LockedError: another process is writing the folder.
        LeaseLost: another process took the folder over.
        ManifestError: a stage that this one reads from is not finished, or the folder's own
            manifest is damaged.
    """
    place = StageFolder(stage.folder(config))
    console.stage(stage.name, place.folder)
    request = request_of(stage, config)
    state = state_of(stage, config, place, request)
    keep_checked(place.folder)
    if state.done and not (state.outdated and stage.restates):
        _clean_if_unlocked(stage, config, place, request, state, console)
        return _already_done(state, console)
    if state.differing and not overwrite:
        raise refusal(stage, config, place, state)
    require(stage.name, stage.needs)
    if state.differing:
        _move_aside(stage, config, place, request, console)
    with lock(place.folder, place.lock, console) as lease:
        # Another process may have finished the stage before this one got the lock.
        state = state_of(stage, config, place, request)
        if state.differing:
            raise refusal(stage, config, place, state)
        place = StageFolder(place.folder, state.work, lease.check)
        run = _Run(stage, config, place, request, state, console)
        if not state.done:
            return run.make(load_work())
        if state.outdated and stage.restates:
            return run.restate(load_work())
        run.clean(state.manifest)
        return _already_done(state, console)


def _move_aside(
    stage: Stage, config: Config, place: StageFolder, request: dict[str, Any], console: Console
) -> None:
    with lock(place.folder, place.lock, console):
        state = state_of(stage, config, place, request)
        if not state.differing:
            return
        if state.grows:
            _discard(place, state.discarded, console)
            return
        aside = StageFolder(storage.move_aside(place.folder))
    if state.manifest:
        storage.remove_tree(work_folder.work_root(aside.folder))
    storage.remove(aside.lock)
    console.line(f"moved the old result to {aside.folder}")


def _discard(place: StageFolder, works: Sequence[Work], console: Console) -> None:
    for work in works:
        work_folder.remove_work(place.folder, work.folder)
        console.line("removed unfinished work for other settings or inputs")


def _already_done(state: StageState, console: Console) -> Manifest:
    assert state.manifest, "a finished stage has a manifest"
    for line in state.versions:
        console.line(f"made with other tables than those installed now ({line}); kept")
    for line in state.outdated:
        console.line(f"made before a setting changed ({line}); kept")
    kept = "; unfinished work for other settings is kept" if state.other_unfinished else ""
    console.line(f"already done{kept}")
    return state.manifest


def _clean_if_unlocked(
    stage: Stage,
    config: Config,
    place: StageFolder,
    request: dict[str, Any],
    state: StageState,
    console: Console,
) -> None:
    """Remove leftovers of a finished stage, unless another process is writing its folder."""
    root = work_folder.work_root(place.folder)
    if not storage.exists(root) and not _unlisted(stage, place, state.manifest):
        return
    # The folder may also be read-only.
    with (
        suppress(LockedError, StorageError),
        lock(place.folder, place.lock, console, wait=False) as lease,
    ):
        state = state_of(stage, config, place, request)
        if state.done:
            place = StageFolder(place.folder, state.work, lease.check)
            _Run(stage, config, place, request, state, console).clean(state.manifest)


def _unlisted(stage: Stage, place: StageFolder, manifest: Manifest | None) -> list[str]:
    """Return the names of the stage's files that an older manifest listed and this one does not."""
    if not stage.sweep or manifest is None:
        return []
    listed = {file.name for file in manifest.files}
    names = storage.list_names(place.folder)
    return [name for name in names if name.startswith(stage.sweep) and name not in listed]


class _Run:
    """The work on a stage's folder while its lock is held."""

    def __init__(
        self,
        stage: Stage,
        config: Config,
        place: StageFolder,
        request: dict[str, Any],
        state: StageState,
        console: Console,
    ) -> None:
        self._stage, self._config, self._place = stage, config, place
        self._request, self._state, self._console = request, state, console

    def make(self, work: StageWork) -> Manifest:
        """Do the work, publish the result and return its manifest."""
        place, state = self._place, self._state
        storage.remove_temporary(place.folder)
        _discard(place, state.discarded, self._console)
        self._remove_strays()
        if state.unfinished and is_former(place, state.unfinished):
            self._adopt()
        if state.grows and not state.unfinished and work.reopen:
            work.reopen(self._config, place)
        work_folder.write_record(work_folder.asked_file(place.work), self._request)
        # The first record of the versions counts, because they decided the bytes made so far.
        versions = self._stage.versions(self._config)
        if versions and not storage.exists(path := work_folder.versions_file(place.work)):
            work_folder.write_record(path, versions)
        if state.grows and state.manifest:
            former = state.manifest
            continued = [*former.details.get(REPLACES, ()), former.content]
            work_folder.write_record(work_folder.replaces_file(place.work), continued)
        if state.unfinished:
            self._console.line("resuming unfinished work")
        elif state.grows:
            self._console.line("extending the finished result")
        start = time.monotonic()
        made = work.make(self._config, place, self._console)
        return self._finish(made, time.monotonic() - start)

    def restate(self, work: StageWork) -> Manifest:
        """Let the finished result take over settings that need no new work."""
        assert work.restate, "a stage that restates its result has the function for it"
        for line in self._state.outdated:
            self._console.line(f"taking over {line}")
        start = time.monotonic()
        made = work.restate(self._config, self._place, self._console)
        return self._finish(made, time.monotonic() - start)

    def clean(self, manifest: Manifest | None) -> None:
        """Remove what the finished result does not need; unfinished work for other settings is kept."""
        place = self._place
        self._place.check()
        for name in _unlisted(self._stage, place, manifest):
            storage.remove(place.file(name))
        storage.remove_temporary(place.folder)
        if self._state.unfinished:
            work_folder.remove_work(place.folder, self._state.unfinished.folder)
        work_folder.remove_work(place.folder, place.work)
        self._remove_strays()

    def _remove_strays(self) -> None:
        strays = work_folder.remove_strays(self._place.folder)
        if strays:
            self._console.line(
                f"removed {len(strays):,} folder(s) that workers of an earlier run left in _work"
            )

    def _adopt(self) -> None:
        """Move the unfinished work of version 0.1 to where this version expects it."""
        manifest = self._state.manifest
        listed = {file.name for file in manifest.files} if manifest else set()
        listed |= {*KEPT_IN_PLACE, *self._stage.beside}
        names = [n for n in storage.list_names(self._place.folder) if n not in listed]
        work_folder.adopt_former_work(self._place.folder, self._place.work, names)

    def _finish(self, made: Made, seconds: float) -> Manifest:
        stage, place, config = self._stage, self._place, self._config
        former = self._state.manifest
        details = dict(made.details)
        if continued := work_folder.read_record_if_written(work_folder.replaces_file(place.work)):
            details[REPLACES] = continued
        if settings := plain(stage.settings(config)):
            details[SETTINGS] = settings
        if stage.text_sources:
            details[VERSIONS] = self._versions()
        manifest = Manifest(
            stage=stage.name,
            stage_version=stage.version,
            biloom=biloom_version(),
            fingerprint=fingerprint(self._request),
            content=made.content or content_hash(made.files),
            asked=self._request,
            files=made.files,
            details=details,
        )
        place.check()
        if former and self._replaces(former.files, made.files):
            # Until here the former result is complete. A reader must not find its manifest beside
            # files of the new result.
            storage.remove(place.file(NAME))
        place.publish(file.name for file in made.files)
        storage.write_bytes(place.file(CONFIG), dump_config(config).encode())
        stats = {"seconds": round(seconds, 1), **made.stats}
        text = json.dumps(stats, indent=2, ensure_ascii=False)
        # A lone surrogate, as in a name that is not UTF-8, is written as JSON's own escape.
        storage.write_bytes(place.file(STATS), f"{text}\n".encode("utf-8", "backslashreplace"))
        place.check()
        write_manifest(place.folder, manifest)
        made.after()
        self.clean(manifest)
        self._console.line(f"done in {clock(seconds)}")
        return manifest

    def _versions(self) -> dict[str, str]:
        """Return the versions of the tables that the result was made with."""
        if self._state.done and self._state.manifest:
            versions: dict[str, str] = self._state.manifest.details.get(VERSIONS, {})
            return versions
        recorded: dict[str, str] = work_folder.read_record(
            work_folder.versions_file(self._place.work)
        )
        return recorded

    def _replaces(self, old: Sequence[FileRecord], new: Sequence[FileRecord]) -> bool:
        """Return True if a file that readers need differs from the old one of equal name."""
        hashes = {file.name: file.xxh128 for file in old}
        return any(
            hashes.get(file.name, file.xxh128) != file.xxh128
            and not file.name.startswith(self._stage.descriptive)
            for file in new
        )
