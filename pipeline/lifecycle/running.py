"""Run a stage unless it is done; its manifest is written last."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.former_keys import former_defaults
from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.console import Console, clock
from pipeline.lifecycle.lease import Lease
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
from pipeline.lifecycle.state import (
    StageState,
    Work,
    config_of_stage,
    is_former,
    recorded_settings,
    refusal,
    request_of,
    state_of,
)
from pipeline.lifecycle.unfinished import end_killed_move, record_begin
from pipeline.phases import REMOVING, WRITING, phase
from pipeline.progress import read_record, recorded, write_metrics
from pipeline.version import biloom_version
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.fingerprint import fingerprint, plain
from preprocess.files.manifest import (
    NAME,
    FileRecord,
    Manifest,
    content_hash,
    is_table,
    read_manifest,
    record_of,
    write_manifest,
)
from preprocess.reading.changed_inputs import forget_inputs, keep_checked
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
    write_metrics()
    end_killed_move(place.folder, console)
    given = stage.settled(config)
    config = config_of_stage(stage, given)
    request = request_of(stage, config)
    run = _Run(stage, config, console, request, place, state_of(stage, config, place, request))
    keep_checked(place.folder)
    if run.state.done and not run.state.outdated:
        run.clean_if_unlocked()
        return run.already_done()
    if run.state.differing and not overwrite:
        raise refusal(stage, config, place, run.state)
    if config is not given:
        former = former_defaults(given, stage.name)
        kept = [f"{key}={value}" for key, value in former.items()]
        console.line(
            f"continuing with the defaults of the version that began it: {', '.join(kept)}"
        )
    require(stage.name, stage.needs)
    if run.state.differing:
        run.move_aside()
    with lock(place.folder, place.lock, console) as lease:
        # Another process may have finished the stage before this one got the lock.
        run = run.holding(lease)
        if run.state.differing:
            raise refusal(stage, config, place, run.state)
        if not run.state.done:
            return run.make(load_work())
        if run.state.outdated:
            return run.restate(load_work())
        run.clean(run.state.manifest)
        return run.already_done()


@dataclass(frozen=True)
class _Run:
    """A stage that is run, with the state in which its folder was found."""

    stage: Stage
    config: Config
    console: Console
    request: dict[str, Any]
    place: StageFolder
    state: StageState

    def holding(self, lease: Lease) -> "_Run":
        """Return the run with the present state of the folder, whose lock this process now holds."""
        state = state_of(self.stage, self.config, self.place, self.request)
        place = StageFolder(self.place.folder, state.work, lease.check)
        forget_inputs()
        return replace(self, place=place, state=state)

    def move_aside(self) -> None:
        """Move the folder aside, or only discard the unfinished work that keeps it from growing."""
        place, console = self.place, self.console
        with lock(place.folder, place.lock, console) as lease:
            state = self.holding(lease).state
            if not state.differing:
                return
            if state.grows:
                self._discard(state.discarded)
                return
            aside = place.move_aside()
        if state.manifest:
            with phase(REMOVING):
                storage.remove_tree(work_folder.work_root(aside.folder))
        storage.remove(aside.lock)
        console.line(f"moved the old result to {aside.folder}")

    def already_done(self) -> Manifest:
        """Tell that the stage is done, and return its manifest."""
        state = self.state
        assert state.manifest, "a finished stage has a manifest"
        for line in state.versions:
            self.console.line(f"made with other versions than those installed now ({line}); kept")
        for line in state.kept:
            self.console.line(f"made before a setting changed ({line}); kept")
        kept = "; unfinished work for other settings is kept" if state.other_unfinished else ""
        self.console.line(f"already done{kept}")
        return state.manifest

    def clean_if_unlocked(self) -> None:
        """Remove leftovers of a finished stage, unless another process is writing its folder."""
        place = self.place
        root = work_folder.work_root(place.folder)
        if not storage.exists(root) and not self._unlisted(self.state.manifest):
            return
        # The folder may also be read-only.
        with (
            suppress(LockedError, StorageError),
            lock(place.folder, place.lock, self.console, wait=False) as lease,
        ):
            run = self.holding(lease)
            if run.state.done:
                run.clean(run.state.manifest)

    def make(self, work: StageWork) -> Manifest:
        """Do the work, publish the result and return its manifest."""
        place, state = self.place, self.state
        storage.remove_temporary(place.folder)
        self._discard(state.discarded)
        self._remove_strays()
        if state.unfinished and is_former(place, state.unfinished):
            self._adopt()
        if state.grows and not state.unfinished and work.reopen:
            work.reopen(self.config, place)
        work_folder.write_record(work_folder.asked_file(place.work), self.request)
        record_begin(self.stage, self.config, place.work)
        if state.grows and state.manifest:
            former = state.manifest
            continued = [*former.details.get(REPLACES, ()), former.content]
            work_folder.write_record(work_folder.replaces_file(place.work), continued)
        path = work_folder.status_file(place.work)
        if state.unfinished:
            earlier = (read_record(path) or {}).get("biloom", biloom_version())
            other = "" if earlier == biloom_version() else f", which biloom {earlier} began"
            self.console.line(f"resuming unfinished work{other}")
        elif state.grows:
            self.console.line("extending the finished result")
        start = time.monotonic()
        with recorded(path):
            made = work.make(self.config, place, self.console)
        return self._finish(made, time.monotonic() - start)

    def restate(self, work: StageWork) -> Manifest:
        """Let the finished result take over settings that need no new work."""
        assert work.restate, "a stage that restates its result has the function for it"
        for line in self.state.outdated:
            self.console.line(f"taking over {line}")
        start = time.monotonic()
        made = work.restate(self.config, self.place, self.console)
        return self._finish(made, time.monotonic() - start)

    def clean(self, manifest: Manifest | None, former: Manifest | None = None) -> None:
        """Remove what the finished result does not need; unfinished work for other settings is kept.

        Files of a ``former`` manifest stay until the next command, for readers that have it open.
        """
        place = self.place
        self.place.check()
        for name in self._unlisted(manifest):
            if former is None or name not in former.records:
                storage.remove(place.file(name))
        storage.remove_temporary(place.folder)
        if self.state.unfinished:
            place.remove_work(self.state.unfinished.folder)
        place.remove_work(place.work)
        self._remove_strays()

    def _remove_strays(self) -> None:
        strays = work_folder.remove_strays(self.place.folder)
        if strays:
            self.console.line(
                f"removed {len(strays):,} folder(s) that workers of an earlier run left in _work"
            )

    def _adopt(self) -> None:
        """Move the unfinished work of version 0.1 to where this version expects it."""
        manifest = self.state.manifest
        listed = {file.name for file in manifest.files} if manifest else set()
        listed |= {*KEPT_IN_PLACE, *self.stage.beside}
        names = [n for n in storage.list_names(self.place.folder) if n not in listed]
        work_folder.adopt_former_work(self.place.folder, self.place.work, names)

    def _finish(self, made: Made, seconds: float) -> Manifest:
        stage, place, config = self.stage, self.place, self.config
        former = self.state.manifest
        details = dict(made.details)
        if continued := work_folder.read_record_if_written(work_folder.replaces_file(place.work)):
            details[REPLACES] = continued
        if settings := plain(stage.settings(config)):
            if self.state.done and former:
                old = recorded_settings(former, settings)
                settings |= {k: v for k, v in old.items() if not k.startswith(stage.restated)}
            details[SETTINGS] = settings
        if stage.text_sources:
            details[VERSIONS] = self._versions()
        manifest = Manifest(
            stage=stage.name,
            stage_version=stage.version,
            biloom=biloom_version(),
            fingerprint=fingerprint(self.request),
            content=made.content or content_hash(made.files),
            asked=self.request,
            files=made.files,
            details=details,
        )
        stats = {"seconds": round(seconds, 1), **made.stats}
        text = json.dumps(stats, indent=2, ensure_ascii=False)
        beside = {
            CONFIG: dump_config(config).encode(),
            # A lone surrogate, as in a name that is not UTF-8, is written as JSON's own escape.
            STATS: f"{text}\n".encode("utf-8", "backslashreplace"),
        }
        records = tuple(record_of(name, data) for name, data in beside.items())
        manifest = replace(manifest, beside=records)
        place.check()
        if former and self._replaces(former.files, made.files):
            # Until here the former result is complete. A reader must not find its manifest beside
            # files of the new result.
            storage.remove(place.file(NAME))
        elif former and former.records != manifest.records:
            # Until the new manifest is written, the former one must not list files that are replaced.
            write_manifest(place.folder, _without_replaced(former, manifest))
        place.publish(file.name for file in made.files)
        for name, data in beside.items():
            storage.write_bytes(place.file(name), data)
        place.check()
        with phase(WRITING):
            write_manifest(place.folder, manifest)
        if former:
            self._remove_former_tables()
        made.after()
        self.clean(manifest, former)
        self.console.line(f"done in {clock(seconds)}")
        return manifest

    def _remove_former_tables(self) -> None:
        """Remove tables of file records that only former manifests of the folder name."""
        folder = self.place.folder
        listed = {file.name for file in read_manifest(folder).beside}
        for name in storage.list_names(folder):
            if is_table(name) and name not in listed:
                storage.remove(self.place.file(name))

    def _versions(self) -> dict[str, str]:
        """Return the versions of the tables that the result was made with."""
        if self.state.done and self.state.manifest:
            versions: dict[str, str] = self.state.manifest.details.get(VERSIONS, {})
            return versions
        recorded: dict[str, str] = work_folder.read_record(
            work_folder.versions_file(self.place.work)
        )
        return recorded

    def _replaces(self, old: Sequence[FileRecord], new: Sequence[FileRecord]) -> bool:
        """Return True if a file that readers need differs from the old one of equal name."""
        hashes = {file.name: file.xxh128 for file in old}
        return any(
            hashes.get(file.name, file.xxh128) != file.xxh128
            and not file.name.startswith(self.stage.descriptive)
            for file in new
        )

    def _discard(self, works: Sequence[Work]) -> None:
        for work in works:
            self.place.remove_work(work.folder)
            self.console.line("removed unfinished work for other settings or inputs")

    def _unlisted(self, manifest: Manifest | None) -> list[str]:
        """Return the names of the stage's files that an older manifest listed and this one does not."""
        if not self.stage.sweep or manifest is None:
            return []
        listed = {file.name for file in manifest.files}
        names = storage.list_names(self.place.folder)
        return [name for name in names if name.startswith(self.stage.sweep) and name not in listed]


def _without_replaced(former: Manifest, new: Manifest) -> Manifest:
    """Return a manifest without the records of the files that the next result replaces."""
    files = (file for file in former.files if new.records.get(file.name, file) == file)
    return replace(former, files=tuple(files), beside=())
