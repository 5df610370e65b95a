"""Settings that former versions of biloom had, and the values that missing settings stood for.

Results of former versions stay valid. A setting that an older result does not name had, in effect,
the value in `ADDED`, or else today's default. A setting that was removed is ignored if it has its
former default, and is reported otherwise. A setting that no longer decides a result is always ignored.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from pipeline.config.diagnostics import sections
from pipeline.config.schema import UNUSED_IN_EMBED, Config
from preprocess.config import Source
from preprocess.files.fingerprint import plain
from preprocess.section import Section

REMOVED: dict[str, Any] = {"embed.int8": False}
"""Removed settings, each with its last default."""

ADDED: dict[str, Any] = dict.fromkeys(("evaluate.checkpoint", "export.checkpoint"), "last")
"""Settings added later whose default is not what older versions did, each with what they did."""

NEW: dict[str, Any] = {
    **{"embed.kind": "vector", "embed.path": "total"},
    **{"embed.precision": "float32", "embed.compile": "off"},
}
"""Settings of the embed stage that version 0.1 lacked, each with what it did."""

FORMER_DEFAULTS: dict[str, Any] = {
    "train.order": "shuffled",
    "train.reset_state": 0.0,
    "embed.pooling": "direction",
}
"""Settings of a stage whose default has changed, each with the default of version 0.1.

A result with the former defaults stays valid and goes on with them (`state.config_of_stage`)."""

FORMER_BATCH_TOKENS = 8192
"""The default of `embed.batch_tokens` in version 0.1."""

IGNORED = (
    *("prepare.sampling_alpha", "prepare.keep_dropped", "prepare.part_tokens"),
    "embed.batch_tokens",
)
"""Settings that were part of a request in version 0.1. If they change, the stage is not made again."""

IGNORED_OF_SOURCES = ("weight", "license")
"""The same for settings of a source."""

LIMITS = ("damaged_files", "max_document_bytes", "max_expansion")
"""Settings of prepare that are part of the request of `embed` if `embed.input` is set.

A finished cache of a version that did not record them stays valid, because that version stopped at a
damaged file.
"""

SOURCES = ("prepare.input.", "embed.input.", "embed.sample_of.")
"""Prefixes of keys whose value is a source: its settings, and a digest of its files."""


def in_present_terms(old: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Restate an older request with the keys that are used today.

    Args:
        old: the request of a result or of unfinished work, flat.
        request: the request of the present command, flat.
    """
    restated = {
        k: _source_in_present_terms(v) if k.startswith(SOURCES) else v
        for k, v in old.items()
        if k in request or (k not in IGNORED and REMOVED.get(k, _UNKNOWN) != v)
    }
    for key, value in request.items():
        former = restated.get(key, _UNKNOWN)
        if former is _UNKNOWN and key.removeprefix("embed.") in LIMITS:
            former = value
        if former is _UNKNOWN:
            former = _default(key, request, old)
        elif key.startswith(SOURCES) and isinstance(former, dict) and isinstance(value, dict):
            former = {k: _source_default(k) for k in value if k not in former} | former
            for section in ("cleaning", "filters"):
                if isinstance(former.get(section), dict) and isinstance(value.get(section), dict):
                    former[section] = _with_defaults(Source.model_fields[section], former[section])
            if key.startswith("embed.input."):
                # Former versions accepted them without effect.
                former |= {name: _source_default(name) for name in UNUSED_IN_EMBED if name in value}
        if isinstance(former, bool) and isinstance(value, float):
            former = float(former)  # a switch that is a probability today
        if former is not _UNKNOWN:
            restated[key] = former
    return restated


def with_former_defaults(config: Config, stage: str) -> Config:
    """Return the config with the `former_defaults` of a stage."""
    values = {key.partition(".")[2]: value for key, value in former_defaults(config, stage).items()}
    if not values:
        return config
    return config.model_copy(update={stage: getattr(config, stage).model_copy(update=values)})


def former_defaults(config: Config, stage: str) -> dict[str, Any]:
    """Return `FORMER_DEFAULTS` of the settings of a stage that have another value without being named."""
    found = {}
    for key, former in FORMER_DEFAULTS.items():
        section, _, name = key.partition(".")
        settings = getattr(config, section)
        present = getattr(settings, f"chosen_{name}", getattr(settings, name))
        if section == stage and name not in settings.model_fields_set and present != former:
            found[key] = former
    return found


def in_former_terms(request: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Restate the present request of the embed stage as version 0.1 wrote it.

    Removed settings have their last defaults, and ignored ones their present values.
    """
    limits = {f"embed.{name}" for name in LIMITS}
    kept = {
        key: value
        for key, value in request.items()
        if key not in limits and NEW.get(key, _UNKNOWN) != value
    }
    tokens = config.embed.batch_tokens or FORMER_BATCH_TOKENS
    former = {**kept, **REMOVED, "embed.batch_tokens": tokens}
    embedded = config.embed.sources
    key = "embed.sample_of" if embedded is None else "embed.input"
    for number, source in enumerate(embedded or config.prepare.sources):
        if (name := f"{key}.{number}") in former:
            former[name] = {**former[name], **_ignored_of(source)}
    return former


def former_settings(asked: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of ``settings`` in the request of a version that still recorded them there.

    Args:
        asked: the request of a result, flat.
        settings: `Stage.settings` of its stage, flat; keys of sources end with a field's name.
    """
    former = {}
    for key in settings:
        source, _, field = key.rpartition(".")
        if key in asked:
            former[key] = asked[key]
        elif source.startswith(SOURCES) and field in asked.get(source, {}):
            former[key] = asked[source][field]
        else:
            former[key] = settings[key]
    return former


def _ignored_of(source: Source) -> dict[str, Any]:
    return {name: plain(getattr(source, name)) for name in IGNORED_OF_SOURCES}


def _source_in_present_terms(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: v for k, v in value.items() if k not in IGNORED_OF_SOURCES}


_UNKNOWN = object()


def _default(key: str, request: Mapping[str, Any], old: Mapping[str, Any]) -> Any:
    """Return the value of a setting in versions without it; `_UNKNOWN` if the key is no setting.

    A setting of a section that was off, such as the limits of a filter, had no value.
    """
    if key in ADDED:
        return ADDED[key]
    kinds: list[type[Section]] = [Config]
    field: FieldInfo | None = None
    names = key.split(".")
    for depth, name in enumerate(names):
        kind = request.get(".".join([*names[:depth], "kind"]))
        if len(kinds) > 1:
            kinds = [k for k in kinds if k.model_fields["kind"].default == kind]
        if name == "kind" and field is not None:
            return getattr(field.default, "kind", _UNKNOWN)
        field = kinds[0].model_fields.get(name) if kinds else None
        if field is None:
            return _UNKNOWN
        kinds = sections(field)
        section = ".".join(names[: depth + 1])
        if depth + 1 < len(names) and _is_off(field) and not _has_any(old, f"{section}."):
            return _UNKNOWN
    assert field is not None
    return _UNKNOWN if field.is_required() else plain(field.get_default(call_default_factory=True))


def _source_default(name: str) -> Any:
    field = Source.model_fields.get(name)
    return plain(field.get_default(call_default_factory=True)) if field else None


def _is_off(field: FieldInfo) -> bool:
    """Return True if a section is off by default."""
    return not field.is_required() and field.get_default(call_default_factory=True) is None


def _has_any(request: Mapping[str, Any], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in request)


def _with_defaults(field: FieldInfo, old: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a section of a source with the defaults of those that were added later."""
    defaults = {
        name: plain(known.get_default(call_default_factory=True))
        for name, known in sections(field)[0].model_fields.items()
    }
    return defaults | old
