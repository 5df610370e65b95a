"""The state of a stage's folder: done, to be resumed or extended, or made with other settings."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from pipeline.config.former_keys import (
    former_settings,
    in_former_terms,
    in_present_terms,
    with_former_defaults,
)
from pipeline.config.schema import Config
from pipeline.lifecycle.inputs import changed_files, survey_all
from pipeline.lifecycle.order import MAKERS
from pipeline.lifecycle.stage import HELD, SETTINGS, VERSIONS, Stage, StageError, StageFolder
from pipeline.lifecycle.unfinished import other_versions, turned_on
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.fingerprint import differing_keys, fingerprint, plain
from preprocess.files.manifest import NAME, Manifest, ManifestError, read_manifest
from preprocess.files.verified import DamagedResult
from preprocess.text.versions import differing_versions, recorded_versions
from preprocess.work.folder import is_begun, unfinished_work, work_folder, work_root

POLL_SECONDS = 0.5
UPGRADED = (
    "stage_version: this version of biloom makes this stage in another way than the version that began "
    "it; to keep the folder, finish it with that version"
)
FORMER_VERSIONS = "to keep the folder, finish it with the versions that began it"


class Work(NamedTuple):
    """Unfinished work: its folder, and its request in present terms."""

    folder: str
    asked: dict[str, Any]


@dataclass(frozen=True)
class StageState:
    """The contents of a stage's folder, compared with the present request.

    Attributes:
        manifest: the manifest of a finished result.
        unfinished: unfinished work for the request, or for fewer training steps.
        differing: a line for each setting or input that differs from the request.
        work: folder of the work for the request, whether it exists or not.
        grows: True if the requested result continues the finished one.
        other_unfinished: True if the result is finished and there is unfinished work for other settings.
        outdated: a line for each setting that the finished result is to take over.
        kept: a line for each other setting that has changed since the result was finished.
        versions: a line for each table of another version than when the result was finished or, if it is
            not finished, than when the work was begun.
        discarded: unfinished work that is removed before the stage runs: that for an earlier state of
            an input; if the result grows and ``differing`` is not empty, all that differs.
    """

    manifest: Manifest | None
    unfinished: Work | None
    differing: list[str]
    work: str = ""
    grows: bool = False
    other_unfinished: bool = False
    outdated: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    discarded: list[Work] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.manifest is not None and not self.differing and not self.grows

    @property
    def damaged(self) -> bool:
        """The manifest cannot be read; ``differing`` then has the reason."""
        return bool(self.differing) and not self.manifest and not self.work


def request_of(stage: Stage, config: Config) -> dict[str, Any]:
    """Return the settings and inputs that decide the result of ``stage``, as JSON values.

    Raises:
        ManifestError: a stage that this one reads from is not finished.
    """
    request: dict[str, Any] = plain(
        {
            "stage": stage.name,
            "stage_version": stage.version,
            **stage.request(stage.settled(config)),
        }
    )
    return request


def config_of_stage(stage: Stage, config: Config) -> Config:
    """Return the config that ``stage`` runs with.

    If the stage's folder holds what version 0.1 began, and nothing but changed defaults differs, these
    have their former values, so that it is done, resumed or extended. A setting that the config names
    is never changed.

    Raises:
        ManifestError: a stage that this one reads from is not finished.
    """
    former = with_former_defaults(config, stage.name)
    if former is config:
        return config
    place = StageFolder(stage.folder(config))
    for one in (config, former):
        if not state_of(stage, one, place, request_of(stage, one)).differing:
            return one
    return config


def state_of(
    stage: Stage, config: Config, place: StageFolder, request: dict[str, Any]
) -> StageState:
    """Compare the contents of ``place`` with ``request``."""
    try:
        is_finished = storage.exists(place.file(NAME))
        manifest = read_manifest(place.folder, stage.name) if is_finished else None
        return _state_of(stage, config, place, request, manifest)
    except (ManifestError, DamagedResult) as error:
        return StageState(None, None, [str(error)])


def _state_of(
    stage: Stage,
    config: Config,
    place: StageFolder,
    request: dict[str, Any],
    manifest: Manifest | None,
) -> StageState:
    own, others = _works(stage, place, request)
    folder = work_folder(place.folder, work_name(stage, request))
    if own and not is_former(place, own):
        # A version that knew fewer settings gave it another name.
        folder = own.folder
    # A stage that stopped at its first file must not refuse the settings that its message proposed.
    former = [
        one
        for one in others
        if not is_begun(one.folder) or _is_for_earlier_input(stage, config, one.asked, request)
    ]
    valid = [one for one in others if one not in former]
    if manifest is None:
        differing = differing_keys(valid[0].asked, request) if valid and not own else []
        versions = other_versions(*own) if own else []
        switches = turned_on(stage, config, own.folder) if own else []
        differing = differing or versions or switches or _changed(stage, config, place, own)
        return StageState(None, own, differing, folder, discarded=former, versions=versions)
    old = in_present_terms(manifest.asked, request)
    differing = differing_keys(old, request)
    if _contains(manifest, request, config):
        differing = []
    if differing and stage.grows and stage.grows(config, old, request, manifest.details):
        versions = other_versions(*own) if own else []
        differing = differing_keys(valid[0].asked, request) if valid else versions
        if own and versions:
            valid.append(own)
        return StageState(
            *(manifest, own, differing, folder),
            grows=True,
            versions=versions,
            discarded=former + valid,
        )
    settings = plain(stage.settings(config))
    changed = differing_keys(recorded_settings(manifest, settings), settings)
    # An extension is refused for what it may not change; the rest only hides the cause.
    allowed = stage.may_differ(config)
    differing = [line for line in differing if not line.startswith(allowed)] or differing
    return StageState(
        manifest,
        own,
        differing or _changed(stage, config, place, own),
        folder,
        other_unfinished=bool(others),
        outdated=[line for line in changed if line.startswith(stage.restated)],
        kept=[line for line in changed if not line.startswith(stage.restated)],
        versions=differing_versions(recorded_versions(manifest.details.get(VERSIONS, {}), old)),
    )


def work_name(stage: Stage, request: Mapping[str, Any]) -> str:
    """Return the name of the work folder: the fingerprint of the request without what may rise."""
    return fingerprint({k: v for k, v in request.items() if k not in stage.may_rise})


def _works(
    stage: Stage, place: StageFolder, request: dict[str, Any]
) -> tuple[Work | None, list[Work]]:
    """Return the unfinished work for ``request`` if there is some, and all other unfinished work."""
    own: Work | None = None
    others = []
    for folder, asked in unfinished_work(place.folder):
        work = Work(folder, in_present_terms(asked, request))
        if _becomes(stage, work.asked, request):
            own = work
        else:
            others.append(work)
    return own, others


def _is_for_earlier_input(
    stage: Stage, config: Config, asked: dict[str, Any], request: dict[str, Any]
) -> bool:
    """Return True if the requests differ only in inputs that were continued since."""
    inputs = tuple(f"{key}:" for key in MAKERS)
    only = all(line.startswith(inputs) for line in differing_keys(asked, request))
    return only and stage.grows is not None and stage.grows(config, asked, request, {})


def _becomes(stage: Stage, asked: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """Return True if the requests are equal, or unfinished work can be continued for the new one."""
    return not differing_keys(asked, request) or stage.rises(dict(asked), dict(request))


def _changed(stage: Stage, config: Config, place: StageFolder, own: Work | None) -> list[str]:
    if stage.text_sources is None:
        return []
    listed, _ = survey_all(stage.text_sources(config))
    names = changed_files(place.folder, [*chain(*listed)], own.folder if own else "")
    return [f"{one_line(name)}: its contents changed, but not its size" for name in names]


def recorded_settings(manifest: Manifest, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of ``settings`` (`Stage.settings`) that a finished result has."""
    recorded = manifest.details.get(SETTINGS) or former_settings(manifest.asked, settings)
    return {**settings, **{key: value for key, value in recorded.items() if key in settings}}


def _contains(manifest: Manifest, request: dict[str, Any], config: Config) -> bool:
    """Return True if the finished result contains the result of an earlier ``request``.

    Texts were added since, or another split was evaluated.
    """
    held = manifest.details.get(HELD, ())
    # Version 0.1 recorded an earlier request as its fingerprint, later versions record all of it.
    if not held:
        return False
    fingerprints = (fingerprint(request), fingerprint(in_former_terms(request, config)))
    return any(
        earlier in fingerprints
        if isinstance(earlier, str)
        else not differing_keys(in_present_terms(earlier, request), request)
        for earlier in held
    )


def refusal(stage: Stage, config: Config, place: StageFolder, state: StageState) -> UserError:
    """Return the error for a folder that was made with other settings, or is damaged."""
    if state.damaged:
        return ManifestError(*state.differing)
    what = "a result" if state.manifest and not state.grows else "unfinished work"
    keys = "\n".join(f"    {line}" for line in state.differing)
    lines = stage.advice(config, state.differing)
    if any(line.startswith("stage_version:") for line in state.differing):
        lines = [UPGRADED, *lines]
    why = "settings or inputs"
    if state.differing == state.versions:
        why, lines = "versions", [*lines, FORMER_VERSIONS]
    advice = "".join(f"\n  {line}" for line in lines)
    remedy = "remove it; the finished result is kept" if state.grows else "move it aside"
    return StageError(
        f"{place.folder} holds {what} made with other {why}:\n{keys}\n"
        f"  add --overwrite to {remedy}, or set another run.output{advice}"
    )


def stage_place(stage: Stage, config: Config) -> StageFolder:
    """Return the folder of ``stage``, with the folder of the work for the present request."""
    place = StageFolder(stage.folder(config))
    return StageFolder(place.folder, state_of(stage, config, place, request_of(stage, config)).work)


def is_former(place: StageFolder, own: Work) -> bool:
    """Return True if the unfinished work is in the folder that version 0.1 used."""
    return own.folder == work_root(place.folder)


def has_begun_elsewhere(stage: Stage, config: Config, seconds: float, waits: bool = False) -> bool:
    """Wait until another process, perhaps on another machine, runs ``stage``.

    Args:
        stage: the stage.
        config: the config.
        seconds: how long to wait.
        waits: whether that process may first run other stages, or move a result aside.

    Returns:
        True if it runs; False if the requested result is finished already.

    Raises:
        StageError: it did not start within ``seconds``, or refuses the settings.
        ManifestError: a stage that this one reads from is not finished.
    """
    place = StageFolder(stage.folder(config))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            own_config = config_of_stage(stage, config)
            request = request_of(stage, own_config)
            state = state_of(stage, own_config, place, request)
        except ManifestError:
            if not waits:
                raise
            time.sleep(POLL_SECONDS)
            continue
        if state.done:
            return False
        if state.differing and not waits:
            raise refusal(stage, config, place, state)
        own = state.unfinished
        if own and not differing_keys(own.asked, request) and storage.exists(place.lock):
            return True
        time.sleep(POLL_SECONDS)
    raise StageError(
        f"{place.folder}: the first process (rank 0) did not start this stage within {seconds:.0f} "
        "seconds; start the same command there after the stages before it are finished, and make sure "
        "that all machines share this folder"
    )
