"""The base class of every config section.

A config is data: frozen, validated once and never written back. Derived values are functions of it.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def runtime(default: Any, description: str, **limits: Any) -> Any:
    """A field that changes how a result is made and never what it is, so no fingerprint holds it."""
    return Field(
        default, description=description, json_schema_extra={"changes_result": False}, **limits
    )


def result_fields(section: Section, prefix: str) -> dict[str, Any]:
    """The settings of ``section`` that change its result, flat: ``{"prepare.cleaning.unicode": "NFC"}``."""
    flat: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("changes_result") is False:
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            flat.update(result_fields(value, f"{prefix}.{name}"))
        else:
            flat[f"{prefix}.{name}"] = value
    return flat
