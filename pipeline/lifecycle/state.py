"""The state of a stage's folder: done, to be resumed or extended, or made with other settings."""

import time
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipeline.config.former_keys import in_former_terms, in_present_terms
from pipeline.config.schema import Config
from pipeline.lifecycle.stage import Stage, StageError, StageFolder
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.fingerprint import differing_keys, fingerprint, plain
from preprocess.files.manifest import NAME, Manifest, ManifestError, read_manifest
from preprocess.work.folder import asked_file, read_record_if_written

POLL_SECONDS = 0.5

Action = Literal["keep", "refuse", "extend", "resume", "make"]


@dataclass(frozen=True)
class StageState:
    """The contents of a stage's folder, compared with the present request.

    Attributes:
        manifest: the manifest of a finished result.
        unfinished: whether there is unfinished work.
        differing: a line for each setting or input that differs from the request.
        grows: the finished result is a prefix of the requested one.
        other_unfinished: the result is finished, and the unfinished work has other settings.
    """

    manifest: Manifest | None
    unfinished: bool
    differing: list[str]
    grows: bool = False
    other_unfinished: bool = False

    @property
    def done(self) -> bool:
        return self.manifest is not None and not self.differing and not self.grows

    @property
    def damaged(self) -> bool:
        """The manifest cannot be read; ``differing`` then has the reason."""
        return bool(self.differing) and not self.manifest and not self.unfinished


class Plan(NamedTuple):
    """What running a stage would do, and the same in words for the user."""

    action: Action
    text: str


def request_of(stage: Stage, config: Config) -> dict[str, Any]:
    """Return the settings and inputs that decide the result of ``stage``, as JSON values.

    Raises:
        ManifestError: a stage that this one reads from is not finished.
    """
    request: dict[str, Any] = plain(
        {"stage": stage.name, "stage_version": stage.version, **stage.request(config)}
    )
    return request


def unfinished_request(place: StageFolder) -> dict[str, Any] | None:
    """Return the request that the unfinished work was started with; None if there is none."""
    return read_record_if_written(asked_file(place.work))


def state_of(
    stage: Stage, config: Config, place: StageFolder, request: dict[str, Any]
) -> StageState:
    """Compare the contents of ``place`` with ``request``."""
    try:
        is_finished = storage.exists(place.file(NAME))
        manifest = read_manifest(place.folder, stage.name) if is_finished else None
    except ManifestError as error:
        return StageState(None, False, [str(error)])
    unfinished = unfinished_request(place)
    begun = unfinished is not None
    if unfinished is not None:
        unfinished = in_present_terms(unfinished, request)
    old = in_present_terms(manifest.asked, request) if manifest else unfinished
    if old is None:
        return StageState(None, False, [])
    differing = differing_keys(old, request)
    if manifest and _contains(manifest, request):
        differing = []
    if differing and stage.grows and stage.grows(config, old, request):
        if manifest is None:
            return StageState(None, begun, [])
        differing = differing_keys(unfinished, request) if unfinished and stage.adds else []
        return StageState(None if differing else manifest, begun, differing, grows=True)
    # An extension is refused for what it may not change; the rest only hides the cause.
    allowed = stage.may_differ(config)
    differing = [line for line in differing if not line.startswith(allowed)] or differing
    if not differing and stage.changed:
        changed = stage.changed(config, place.folder)
        differing = [
            f"{one_line(name)}: its contents changed, but not its size" for name in changed
        ]
    other = manifest and unfinished is not None and differing_keys(unfinished, request)
    return StageState(manifest, begun, differing, other_unfinished=bool(other))


def _contains(manifest: Manifest, request: dict[str, Any]) -> bool:
    """Return True if ``request`` is that of an earlier result to which texts were added since."""
    # Version 0.1 recorded an earlier request as its fingerprint, later versions record all of it.
    fingerprints = (fingerprint(request), fingerprint(in_former_terms(request)))
    return any(
        earlier in fingerprints
        if isinstance(earlier, str)
        else not differing_keys(in_present_terms(earlier, request), request)
        for earlier in manifest.details.get("held", ())
    )


def refusal(place: StageFolder, state: StageState) -> UserError:
    """Return the error for a folder that was made with other settings, or is damaged."""
    if state.damaged:
        return ManifestError(*state.differing)
    what = "a result" if state.manifest else "unfinished work"
    keys = "\n".join(f"    {line}" for line in state.differing)
    return StageError(
        f"{place.folder} holds {what} made with other settings or inputs:\n{keys}\n"
        "  add --overwrite to move it aside, or set another run.output"
    )


def plan_of(stage: Stage, config: Config) -> Plan:
    """Return what running ``stage`` would do; writes nothing.

    Raises:
        ManifestError: a stage that this one reads from is not finished.
    """
    request = request_of(stage, config)
    state = state_of(stage, config, StageFolder(stage.folder(config)), request)
    if state.done:
        return Plan("keep", "already done")
    if state.differing:
        differing = "; ".join(state.differing)
        why = differing if state.damaged else f"made with other settings ({differing})"
        return Plan("refuse", f"refused: {why}")
    if state.grows:
        return Plan("extend", "to be extended")
    return Plan("resume", "to be resumed") if state.unfinished else Plan("make", "to be made")


def has_begun_elsewhere(stage: Stage, config: Config, seconds: float) -> bool:
    """Wait until another machine runs ``stage``.

    Returns:
        True if it runs; False if the requested result is finished already.

    Raises:
        StageError: it did not start within ``seconds``.
    """
    place = StageFolder(stage.folder(config))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = state_of(stage, config, place, request_of(stage, config))
        if state.done:
            return False
        is_requested = state.unfinished and not state.differing and not state.grows
        if is_requested and storage.exists(place.lock):
            return True
        time.sleep(POLL_SECONDS)
    raise StageError(
        f"{place.folder}: the first machine (NODE_RANK=0) did not start this stage within "
        f"{seconds:.0f} seconds; start the same command there, and make sure that all machines "
        "share this folder"
    )
