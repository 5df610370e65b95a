"""The plan that ``--dry-run`` prints: what each stage would do. Nothing is written."""

from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple

from pipeline.config.schema import Config
from pipeline.lifecycle.inputs import setting_value
from pipeline.lifecycle.order import (
    MAKERS,
    SETTINGS,
    TO_BE_CONTINUED,
    is_elsewhere,
    setting_in_effect,
)
from pipeline.lifecycle.stage import Stage, StageFolder
from pipeline.lifecycle.state import StageState, config_of_stage, request_of, state_of
from preprocess.files import storage
from preprocess.files.manifest import NAME, ManifestError

Action = Literal["keep", "refuse", "extend", "restate", "resume", "make", "replace", "unknown"]

CHANGES: tuple[Action, ...] = ("extend", "restate", "resume", "make", "replace", "unknown")
"""Actions after which a later stage may have another input."""


class Plan(NamedTuple):
    """What running a stage would do, and the same in words for the user."""

    action: Action
    text: str


def plan_of(
    stage: Stage, config: Config, earlier: Mapping[str, Plan] | None = None, overwrite: bool = False
) -> Plan:
    """Return what running ``stage`` would do.

    Args:
        stage: the stage.
        config: the config.
        earlier: plans of the stages that run before it.
        overwrite: whether results made with other settings are moved aside.
    """
    inputs = {
        name: plan for name, plan in (earlier or {}).items() if name in inputs_of(stage, config)
    }
    for name, plan in inputs.items():
        if plan.action == "refuse":
            return Plan("refuse", f"not reached, because {name} is refused")
    place = StageFolder(stage.folder(config))
    changes = {name: plan for name, plan in inputs.items() if plan.action in CHANGES}
    continued = bool(changes) and all(plan.action == "extend" for plan in changes.values())
    keys = [key for name, key in SETTINGS if name == stage.name and MAKERS[key][0] in changes]
    try:
        config = config_of_stage(stage, config)
        request = request_of(stage, config)
        if continued:
            request |= dict.fromkeys(keys, TO_BE_CONTINUED)
        state = state_of(stage, config, place, request)
    except ManifestError:
        if storage.exists(place.file(NAME)):
            return _after(changes, overwrite)
        return Plan("make", "to be made, after the stage before it")
    if not changes or not state.manifest:
        return _present(stage, state, overwrite)
    if continued and state.grows and not state.differing:
        return Plan("extend", f"to be made again, because {_names(changes)} will be continued")
    if any(not line.startswith(tuple(f"{key}:" for key in keys)) for line in state.differing):
        return _present(stage, state, overwrite)
    return _after(changes, overwrite)


def inputs_of(stage: Stage, config: Config) -> set[str]:
    """Return the names of the stages of this run that ``stage`` reads from."""
    return {
        MAKERS[key][0]
        for (name, key), settings in SETTINGS.items()
        if name == stage.name
        and not is_elsewhere(*setting_in_effect(settings, partial(setting_value, config)))
    }


def _after(changes: Mapping[str, Plan], overwrite: bool) -> Plan:
    """Return the plan of a finished stage that reads from stages which will change."""
    if overwrite:
        return Plan("unknown", f"made again if {_names(changes)} gives another result")
    return Plan("unknown", f"kept if {_names(changes)} gives the same result, otherwise refused")


def _names(changes: Mapping[str, Plan]) -> str:
    return " and ".join(changes)


def _present(stage: Stage, state: StageState, overwrite: bool) -> Plan:
    if state.done:
        if state.outdated:
            return Plan("restate", f"to take over settings ({'; '.join(state.outdated)})")
        return Plan("keep", "already done")
    if state.differing:
        differing = "; ".join(state.differing)
        if overwrite and state.grows:
            return Plan("extend", f"to be extended, without unfinished work ({differing})")
        if state.damaged and not overwrite:
            return Plan("refuse", f"refused: {differing}")
        if overwrite:
            return Plan("replace", f"to be moved aside and made again ({differing})")
        return Plan("refuse", f"refused: made with other settings ({differing})")
    if state.grows:
        return Plan("extend", "extension to be resumed" if state.unfinished else "to be extended")
    return Plan("resume", "to be resumed") if state.unfinished else Plan("make", "to be made")
