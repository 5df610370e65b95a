"""Running a stage: done, resume or refuse, by fingerprint; its manifest is written last."""

import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.former_keys import in_former_terms, in_present_terms
from pipeline.config.load import dump_config
from pipeline.config.schema import Config
from pipeline.console import Console, clock
from pipeline.lifecycle.lock import lock, one_at_a_time
from pipeline.version import biloom_version
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.fingerprint import differing_keys, fingerprint, plain
from preprocess.files.manifest import (
    NAME,
    FileRecord,
    Manifest,
    ManifestError,
    content_hash,
    read_manifest,
    write_manifest,
)
from preprocess.work.folder import (
    asked_file,
    lock_file,
    read_record_if_written,
    work_folder,
    write_record,
)


class StageError(UserError):
    """A stage that cannot run as asked; the message says what to do."""


@dataclass(frozen=True)
class Made:
    """What a stage made: its files, what its manifest says beside them, and figures to show."""

    files: tuple[FileRecord, ...]
    details: dict[str, Any]
    stats: dict[str, Any] = field(default_factory=dict)
    content: str | None = None
    """Hash of what was made where it is not that of all files (a model: of its tensors)."""


@dataclass(frozen=True)
class StageFolder:
    """Where a stage writes: its folder, and below it the folder of unfinished work."""

    folder: str

    @property
    def work(self) -> str:
        return work_folder(self.folder)

    @property
    def lock(self) -> str:
        return lock_file(self.work)

    def file(self, name: str) -> str:
        return storage.join(self.folder, name)


@dataclass(frozen=True)
class Stage:
    """A stage as the command line knows it, before anything heavy is imported."""

    name: str
    version: int
    asked: Callable[[Config], dict[str, Any]]
    """The settings and inputs that decide the result, flat."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Module -> pip extra."""
    changed: Callable[[Config, str], list[str]] | None = None
    """Names of raw files that changed at equal size, which no fingerprint tells."""
    grows: Callable[[Config, dict[str, Any], dict[str, Any]], bool] | None = None
    """Whether a result of what was asked before is the first part of what is asked now."""
    adds: bool = False
    """What grows stays finished and readable until the new manifest is there."""
    sweep: tuple[str, ...] = ()
    """Beginnings of the names of files that go when no manifest lists them."""

    def folder(self, config: Config) -> str:
        return storage.join(storage.absolute(config.run.output), self.name)


@dataclass(frozen=True)
class StageWork:
    """The functions that do a stage's work; loading them imports Beam or torch."""

    make: Callable[[Config, StageFolder, Console], Made]
    reopen: Callable[[Config, StageFolder], None] | None = None
    """Turn a finished result back into unfinished work, so that it can be resumed."""


@dataclass(frozen=True)
class _Standing:
    """How a stage's folder stands to what is asked now."""

    manifest: Manifest | None
    unfinished: bool
    differing: list[str]
    grows: bool = False
    """The manifest is of the first part of what is asked."""
    others: bool = False
    """The unfinished work is of another question than the one that is answered."""

    @property
    def done(self) -> bool:
        return self.manifest is not None and not self.differing and not self.grows


def plan_of(stage: Stage, config: Config) -> str:
    """What running ``stage`` would do, in words; touches nothing.

    Raises:
        ManifestError: an input stage is not finished.
    """
    standing = _standing(stage, config, StageFolder(stage.folder(config)), _asked(stage, config))
    if standing.done:
        return "already done"
    if standing.differing:
        return "refused: made with other settings (" + "; ".join(standing.differing) + ")"
    if standing.grows:
        return "to be added to" if stage.adds else "goes on from its end"
    return "goes on with unfinished work" if standing.unfinished else "to be made"


def run_stage(
    stage: Stage,
    load_work: Callable[[], StageWork],
    config: Config,
    console: Console,
    overwrite: bool = False,
) -> Manifest:
    """Make what is missing of ``stage`` and return its manifest.

    Args:
        load_work: called only if there is work to do and the packages that it needs are installed.

    Raises:
        StageError: the folder holds another run's result or unfinished work.
        LockedError: another process is writing it.
        ManifestError: an input stage is not finished, or the folder's own manifest is damaged.
    """
    place = StageFolder(stage.folder(config))
    console.stage(stage.name, place.folder)
    asked = _asked(stage, config)
    standing = _standing(stage, config, place, asked)
    if standing.done:
        return _already_done(stage, place, standing, console)
    if standing.differing and not overwrite:
        raise _refusal(place, standing)
    require(stage.name, stage.needs)
    if standing.differing:
        _move_aside(stage, config, place, asked, console)
    with lock(place.folder, place.lock, console):
        # Another process may have come and gone between the look and the lock.
        standing = _standing(stage, config, place, asked)
        if standing.done:
            return _already_done(stage, place, standing, console)
        if standing.differing:
            raise _refusal(place, standing)
        storage.remove_temporary(place.folder)
        reopened = standing.grows and not stage.adds
        work = load_work()
        if reopened:
            assert work.reopen, "a stage whose result grows in place can be reopened"
            work.reopen(config, place)
        write_record(asked_file(place.work), asked)
        if reopened:
            # Only now: until here the former result was whole, from here on there is work to go on with.
            storage.remove(place.file(NAME))
        if standing.unfinished or reopened:
            console.line("goes on with unfinished work")
        elif standing.grows:
            console.line("adds to the finished result")
        began = time.monotonic()
        made = work.make(config, place, console)
        return _finish(stage, config, place, asked, made, time.monotonic() - began, console)


def _move_aside(
    stage: Stage, config: Config, place: StageFolder, asked: dict[str, Any], console: Console
) -> None:
    with lock(place.folder, place.lock, console):
        standing = _standing(stage, config, place, asked)
        if not standing.differing:
            return
        aside = StageFolder(storage.move_aside(place.folder))
    if standing.manifest:
        storage.remove_tree(aside.work)
    storage.remove(aside.lock)
    console.line(f"the former result moves to {aside.folder}")


def _already_done(
    stage: Stage, place: StageFolder, standing: _Standing, console: Console
) -> Manifest:
    assert standing.manifest, "what is done has a manifest"
    if standing.others:
        console.line("already done; unfinished work of another question stays")
        return standing.manifest
    _sweep(stage, place, standing.manifest)
    _remove_work(place)
    console.line("already done")
    return standing.manifest


def _sweep(stage: Stage, place: StageFolder, manifest: Manifest) -> None:
    """Remove what a former manifest listed and this one does not."""
    if stage.sweep:
        listed = {one.name for one in manifest.files}
        for name in storage.list_names(place.folder):
            if name.startswith(stage.sweep) and name not in listed:
                storage.remove(place.file(name))


def _finish(
    stage: Stage,
    config: Config,
    place: StageFolder,
    asked: dict[str, Any],
    made: Made,
    seconds: float,
    console: Console,
) -> Manifest:
    storage.write_bytes(place.file("config.yaml"), dump_config(config).encode())
    stats = json.dumps({**made.stats, "seconds": round(seconds, 1)}, indent=2, ensure_ascii=False)
    storage.write_bytes(place.file("stats.json"), f"{stats}\n".encode())
    manifest = Manifest(
        stage=stage.name,
        stage_version=stage.version,
        biloom=biloom_version(),
        fingerprint=fingerprint(asked),
        content=made.content or content_hash(made.files),
        asked=asked,
        files=made.files,
        details=made.details,
    )
    write_manifest(place.folder, manifest)
    _sweep(stage, place, manifest)
    _remove_work(place)
    console.line(f"done in {clock(seconds)}")
    return manifest


def has_begun_elsewhere(stage: Stage, config: Config, seconds: float) -> bool:
    """Wait until another machine makes what is asked of ``stage``; False: it is made already.

    Raises:
        StageError: within ``seconds`` it has not begun.
    """
    place = StageFolder(stage.folder(config))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        standing = _standing(stage, config, place, _asked(stage, config))
        if standing.done:
            return False
        asked = standing.unfinished and not standing.differing and not standing.grows
        if asked and storage.exists(place.lock):
            return True
        time.sleep(0.5)
    raise StageError(
        f"{place.folder}: the first machine has not begun this within {seconds:.0f} seconds; start "
        "the same command there (NODE_RANK=0), and see that all machines see this folder"
    )


def require(command: str, needs: Mapping[str, str]) -> None:
    """Raise StageError, naming the extra, where a module of ``needs`` is not installed."""
    for module, extra in needs.items():
        if importlib.util.find_spec(module) is None:
            raise StageError(
                f"`biloom {command}` needs {module}, which is not installed; "
                f"pip install 'biloom[{extra}]'"
            )


def _has(folder: str, name: str) -> bool:
    return storage.exists(storage.join(folder, name))


def _asked(stage: Stage, config: Config) -> dict[str, Any]:
    asked: dict[str, Any] = plain(
        {"stage": stage.name, "stage_version": stage.version, **stage.asked(config)}
    )
    return asked


def _standing(stage: Stage, config: Config, place: StageFolder, asked: dict[str, Any]) -> _Standing:
    try:
        manifest = read_manifest(place.folder, stage.name) if _has(place.folder, NAME) else None
    except ManifestError as error:
        return _Standing(None, False, [str(error)])
    unfinished = unfinished_request(place)
    begun = unfinished is not None
    if unfinished is not None:
        unfinished = in_present_terms(unfinished, asked)
    old = in_present_terms(manifest.asked, asked) if manifest else unfinished
    differing = differing_keys(old, asked) if old is not None else []
    if manifest and _holds(manifest, asked):
        differing = []
    if manifest and old is not None and differing and stage.grows:
        if stage.grows(config, old, asked):
            differing = differing_keys(unfinished, asked) if unfinished and stage.adds else []
            return _Standing(None if differing else manifest, begun, differing, grows=True)
    elif old is not None and differing and stage.grows and stage.grows(config, old, asked):
        return _Standing(None, begun, [])
    if old is not None and not differing and stage.changed:
        names = stage.changed(config, place.folder)
        differing = [f"{name}: the file changed since, at the same size" for name in names]
    others = (
        manifest is not None and unfinished is not None and bool(differing_keys(unfinished, asked))
    )
    return _Standing(manifest, begun, differing, others=others)


def _holds(manifest: Manifest, asked: dict[str, Any]) -> bool:
    """Whether a result that was added to contains an earlier result, made from ``asked``."""
    # Version 0.1 recorded an earlier result by its fingerprint, later ones by what it was asked.
    former = (fingerprint(asked), fingerprint(in_former_terms(asked)))
    return any(
        one in former
        if isinstance(one, str)
        else not differing_keys(in_present_terms(one, asked), asked)
        for one in manifest.details.get("held", ())
    )


def unfinished_request(place: StageFolder) -> dict[str, Any] | None:
    """The settings and inputs of the unfinished work in the folder; None if there is no such work."""
    return read_record_if_written(asked_file(place.work))


def _refusal(place: StageFolder, standing: _Standing) -> UserError:
    if not standing.manifest and not standing.unfinished:
        return ManifestError(*standing.differing)
    what = "the result" if standing.manifest else "unfinished work"
    keys = "\n".join(f"    {line}" for line in standing.differing)
    return StageError(
        f"{place.folder} holds {what} of other settings or text:\n{keys}\n"
        "  add --overwrite to move it aside, or give another run.output"
    )


def _remove_work(place: StageFolder) -> None:
    # Not while another process is making the folder of its lock there.
    with one_at_a_time(place.folder):
        if storage.exists(place.work):
            storage.remove_temporary(place.folder)
        storage.remove_tree(place.work)
