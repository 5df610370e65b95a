"""The plan that ``--dry-run`` prints: what each stage would do. Nothing is written."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pipeline.config.schema import Config
from pipeline.lifecycle.order import MAKERS, SETTINGS
from pipeline.lifecycle.stage import Stage, StageFolder
from pipeline.lifecycle.state import StageState, request_of, state_of
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
    try:
        state = state_of(stage, config, place, request_of(stage, config))
    except ManifestError:
        if storage.exists(place.file(NAME)):
            return _after(place, changes, overwrite)
        return Plan("make", "to be made, after the stage before it")
    if changes and state.manifest:
        return _after(place, changes, overwrite)
    return _present(stage, state, overwrite)


def inputs_of(stage: Stage, config: Config) -> set[str]:
    """Return the names of the stages of this run that ``stage`` reads from."""
    return {
        MAKERS[key][0]
        for (name, key), settings in SETTINGS.items()
        if name == stage.name and not any(_value(config, setting) for setting in settings)
    }


def _value(config: Config, key: str) -> str | None:
    section, _, name = key.partition(".")
    value: str | None = getattr(getattr(config, section), name)
    return value


def _after(place: StageFolder, changes: Mapping[str, Plan], overwrite: bool) -> Plan:
    """Return the plan of a finished stage that reads from stages which will change."""
    names = " and ".join(changes)
    if all(plan.action == "extend" for plan in changes.values()):
        return Plan("extend", f"to be made again, because {names} will be continued")
    if overwrite:
        return Plan("unknown", f"made again if {names} gives another result")
    return Plan("unknown", f"kept if {names} gives the same result, otherwise refused")


def _present(stage: Stage, state: StageState, overwrite: bool) -> Plan:
    if state.done:
        if state.outdated and stage.restates:
            return Plan("restate", f"to take over settings ({'; '.join(state.outdated)})")
        return Plan("keep", "already done")
    if state.differing:
        differing = "; ".join(state.differing)
        if state.damaged:
            return Plan("refuse", f"refused: {differing}")
        if overwrite:
            return Plan("replace", f"to be moved aside and made again ({differing})")
        return Plan("refuse", f"refused: made with other settings ({differing})")
    if state.grows:
        return Plan("extend", "extension to be resumed" if state.unfinished else "to be extended")
    return Plan("resume", "to be resumed") if state.unfinished else Plan("make", "to be made")
