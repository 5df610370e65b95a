"""A config as YAML in which every setting is explained: what it does and which values it takes."""

from collections.abc import Iterator, Sequence
from inspect import getdoc
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from pipeline.config.diagnostics import choices, sections
from pipeline.config.load import flow_yaml
from pipeline.config.recipe import OPEN, open_settings
from pipeline.config.schema import Config
from pipeline.config.secrets import without_hidden_settings
from preprocess.config import PrepareConfig, Source
from preprocess.section import Section

HEAD = """\
# Every setting with its value, what it does and, in brackets, the values that it takes.
# Kinds that are not chosen are commented out with their keys: to choose one, replace the kind and
# the keys above it.
"""
TYPES = {int: "int", float: "number", str: "text", bool: "true | false", type(None): "null"}
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def annotated_config(config: Config, notes: Sequence[str] = ()) -> str:
    """YAML of ``config``, which `load_config` reads back to the same config, except that secrets are hidden.

    Args:
        config: the config.
        notes: lines from `load_config`; each becomes a comment at the top.
    """
    config = without_hidden_settings(config)
    left = open_settings(config)
    head = HEAD + "".join(f"# Note: {note}\n" for note in notes)
    blocks = ["\n".join(_entry(config, name, left)) for name in Config.model_fields]
    return head + "\n" + "\n\n".join(blocks) + "\n"


def setting_names(section: type[Section] = Config, prefix: str = "") -> list[str]:
    """The dotted keys of all settings of all kinds, each once, in the order of the schema."""
    names: dict[str, None] = {}
    for name, field in section.model_fields.items():
        for kind in sections(field):
            names |= dict.fromkeys(setting_names(kind, f"{prefix}{name}."))
        if not sections(field):
            names[prefix + name] = None
    return list(names)


def _entry(
    section: Section, name: str, left: frozenset[str] = frozenset(), prefix: str = ""
) -> Iterator[str]:
    """The lines of a key and of what is below it; lines below are indented.

    Keys in ``left`` are comments. ``prefix`` is the dotted name of the section with a dot.
    """
    field = type(section).model_fields[name]
    # A section of a kind that is not chosen is not validated, so a required key has no value.
    value = getattr(section, name, None)
    if f"{prefix}{name}" in left:
        yield f"# {name}: {OPEN}{_comment(field.description, allowed(field))}"
    elif isinstance(value, Section):
        yield f"{name}:{_comment(field.description)}"
        yield from _indented(_entries(value, _kinds(field), left, f"{prefix}{name}."))
    elif isinstance(value, tuple) and any(isinstance(entry, Section) for entry in value):
        yield f"{name}:{_comment(field.description, allowed(field))}"
        yield from (f"  - {flow_yaml(entry)}" for entry in value)
    else:
        yield f"{name}: {flow_yaml(value)}{_comment(field.description, allowed(field))}"
        if value is None and not isinstance(section, Source):
            # A section that is off by default: its keys with the values that they have if it is on.
            for kind in sections(field):
                yield from (f"  # {line}" for line in _entries(kind.model_construct(), (kind,)))
    if isinstance(section, PrepareConfig) and name == "input":
        yield "  # Keys of a source; for example, a list of one source: [{name: a, path: a.txt}]"
        yield from (f"  # {line}" for line in _entries(Source.model_construct(path="a.txt"), ()))


def _entries(
    section: Section,
    kinds: tuple[type[Section], ...],
    left: frozenset[str] = frozenset(),
    prefix: str = "",
) -> Iterator[str]:
    """The lines of all keys of a section that is one of ``kinds``, then those of the other kinds."""
    for name in type(section).model_fields:
        if name == "kind":
            known = " | ".join(_kind(kind) for kind in kinds) if kinds[1:] else ""
            yield f"kind: {_kind(type(section))}{_comment(_summary(type(section)), known)}"
        else:
            yield from _entry(section, name, left, prefix)
    for kind in kinds:
        if kind is not type(section):
            yield from (f"# {line}" for line in _entries(kind.model_construct(), (kind,)))


def _kinds(field: FieldInfo) -> tuple[type[Section], ...]:
    return tuple(sections(field)) if field.discriminator else ()


def _kind(section: type[Section]) -> str:
    return str(section.model_fields["kind"].default)


def _summary(section: type[Section]) -> str:
    return (getdoc(section) or "").partition("\n")[0].removesuffix(".")


def _comment(description: str | None, values: str = "") -> str:
    parts = [description or "", f"[{values}]" if values else ""]
    text = " ".join(part for part in parts if part)
    return f"  # {text}" if text else ""


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def allowed(field: FieldInfo) -> str:
    """The values that a field takes, such as ``int >= 1 | null``."""
    limits = ", ".join(
        f"{sign} {limit}"
        for bound in field.metadata
        for name, sign in SIGNS.items()
        if (limit := getattr(bound, name, None)) is not None
    )
    return " | ".join(dict.fromkeys(_type(one, limits) for one in choices(field.annotation)))


def _type(annotation: Any, limits: str) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        inner = dict.fromkeys(_type(one, "") for one in choices(get_args(annotation)[0]))
        return f"list of {' or '.join(inner)}"
    if annotation in (int, float) and limits:
        return f"{TYPES[annotation]} {limits}"
    return TYPES.get(annotation, "mapping")
