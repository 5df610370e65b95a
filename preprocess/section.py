"""Base class of every config section.

A config is validated once and then immutable. Derived values are computed by functions or
properties and never stored in it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """An immutable group of settings; unknown keys are validation errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def runtime(default: Any, description: str, **limits: Any) -> Any:
    """Return a pydantic field for a setting that does not change the result of a stage.

    Such a setting is not part of the fingerprint, so a finished stage stays valid if it changes.

    Args:
        default: default value.
        description: explanation for users, shown in the config and the reference.
        limits: constraints of `pydantic.Field`, such as ``ge=1``.
    """
    return Field(
        default, description=description, json_schema_extra={"changes_result": False}, **limits
    )


def changes_result(section: type[Section], name: str) -> bool:
    """Return False if the setting ``name`` of a section is a `runtime` setting."""
    extra = section.model_fields[name].json_schema_extra
    return not (isinstance(extra, dict) and extra.get("changes_result") is False)


def result_fields(section: Section, prefix: str) -> dict[str, Any]:
    """Return the settings that change the result, for the fingerprint.

    Args:
        section: a section, nested or not.
        prefix: prefix of all keys, such as "prepare".

    Returns:
        Flat settings such as ``{"prepare.cleaning.unicode": "NFC"}``.
    """
    flat: dict[str, Any] = {}
    for name in type(section).model_fields:
        if not changes_result(type(section), name):
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            flat.update(result_fields(value, f"{prefix}.{name}"))
        else:
            flat[f"{prefix}.{name}"] = value
    return flat
