"""Turn pydantic's errors about a config into one line per mistake, with its source position.

Messages are worded from the type of a field, because pydantic reports one error for each member of
a union. The same walk along the fields prepares the values for pydantic.
"""

import difflib
import math
import re
import types
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.schema import Config
from pipeline.config.yaml_source import UNPLACED, KeyPath, Node, Position, Problems
from preprocess.errors import hidden
from preprocess.section import Section

ROOT = FieldInfo(annotation=Config)
"""The whole config as a field, where a walk along the fields begins."""

MAX_PROBLEMS = 50
"""Mistakes that are explained at once; a file that is no config may have any number."""

_NOUNS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


def choices(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself: ``int | None`` -> ``(int, NoneType)``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return choices(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(part for member in get_args(annotation) for part in choices(member))
    return (annotation,)


def sections(field: FieldInfo) -> list[type[Section]]:
    """Return the section classes that a field accepts, one for each kind."""
    members = choices(field.annotation)
    return [m for m in members if isinstance(m, type) and issubclass(m, Section)]


def kind_of(field: FieldInfo, node: Node) -> Any:
    """Return the `kind` that a section sets, else the kind of the field's default."""
    written = node.value.get("kind") if isinstance(node.value, dict) else None
    return written.value if written else getattr(field.default, "kind", None)


def section_of(field: FieldInfo | None, node: Node) -> type[Section] | None:
    """Return the section class that defines the keys of ``node``; None if it is not known."""
    if field is None or not isinstance(node.value, dict):
        return None
    found = sections(field)
    if field.discriminator:
        kind = kind_of(field, node)
        found = [section for section in found if section.model_fields["kind"].default == kind]
    return found[0] if found else None


def field_below(field: FieldInfo | None, node: Node, key: str | int) -> FieldInfo | None:
    """Return the field of an entry of ``node``, or None if there is no such key."""
    members = choices(field.annotation) if field else ()
    if isinstance(key, str):
        section = section_of(field, node)
        if section:
            return section.model_fields.get(key)
        named = [member for member in members if get_origin(member) is dict]
        return FieldInfo(annotation=get_args(named[0])[1]) if named else None
    lists = [member for member in members if get_origin(member) is tuple]
    return FieldInfo(annotation=get_args(lists[0])[0]) if lists else None


def plain_values(node: Node, field: FieldInfo | None) -> Any:
    """Return the tree as plain values for pydantic.

    A section whose kind is not set gets that of the field's default. An unquoted bool, and an unquoted
    number for a text setting, are returned as the text that is written. An unquoted ``None`` of an
    override is null if the field allows null, because wandb's sweep agent writes null in this way.
    """
    value = node.value
    if isinstance(value, dict):
        filled = {
            key: plain_values(entry, field_below(field, node, key)) for key, entry in value.items()
        }
        if field and field.discriminator:
            filled.setdefault("kind", kind_of(field, node))
        return filled
    if isinstance(value, list):
        return [plain_values(entry, field_below(field, node, i)) for i, entry in enumerate(value)]
    members = choices(field.annotation) if field else ()
    if value is None and node.text == "" and field and len(sections(field)) == len(members):
        return {}  # a section whose keys are all commented out
    if node.text == "None" and not node.place.line and type(None) in members:
        return None
    # pydantic would accept true as the number 1.
    texts_only = str in members and not {int, float} & set(members)
    if node.text and (isinstance(value, bool) or (isinstance(value, int | float) and texts_only)):
        return node.text
    return value


def explain(error: ValidationError, root: Node, top: FieldInfo = ROOT) -> Problems:
    """Return a line for each mistake in a config, with its position.

    Args:
        error: what pydantic raised for the values of ``root``.
        root: the tree that was validated.
        top: the section that it was validated as, as a field.
    """
    found: dict[KeyPath, list[Any]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_path(detail["type"], detail["loc"], root), []).append(detail)
    # If one member of a union accepts a value but not all of its contents, ignore the other members.
    inner = {path[:length] for path in found for length in range(len(path))}
    problems: Problems = []
    for path, details in islice(found.items(), MAX_PROBLEMS):
        rules = [detail for detail in details if detail["type"] == "value_error"]
        if rules:
            problems += [_broken_rule(path, str(rule["ctx"]["error"]), root, top) for rule in rules]
        elif path not in inner:
            problems.append(_explain(path, details[0]["type"], root, top))
    if len(found) > MAX_PROBLEMS:
        more = f"{len(found) - MAX_PROBLEMS:,} more mistakes are not shown"
        problems.append((UNPLACED, more))
    return problems


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'hidden'?` to end a message, or nothing if no name is similar."""
    found = _close(word, known)
    return f"; did you mean '{found}'?" if found else ""


def _close(word: str, known: Iterable[str]) -> str | None:
    by_lower = {name.lower(): name for name in known}
    begun = [name for name in by_lower if len(word) > 2 and name.startswith(word.lower())]
    found = begun or difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.75)
    return by_lower[found[0]] if found else None


def _entry(node: Node, key: str | int) -> Node | None:
    if isinstance(node.value, dict) and isinstance(key, str):
        return node.value.get(key)
    if isinstance(node.value, list) and isinstance(key, int):
        return node.value[key]
    return None


def _path(kind: str, loc: KeyPath, root: Node) -> KeyPath:
    """Return pydantic's ``loc`` without the names that it gives to the members of a union."""
    path: KeyPath = ()
    node = root
    for part in loc:
        below = _entry(node, part)
        if below is not None:
            path, node = (*path, part), below
    if kind == "missing":
        return (*path, loc[-1])
    return (*path, "kind") if kind == "union_tag_invalid" else path


def _name(path: KeyPath) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def _above(path: KeyPath, root: Node, top: FieldInfo) -> tuple[FieldInfo | None, Node]:
    """Return the field and the node that contain the last part of ``path``."""
    field: FieldInfo | None = top
    node = root
    for part in path[:-1]:
        below = _entry(node, part)
        assert below is not None
        field, node = field_below(field, node, part), below
    return field, node


def _explain(path: KeyPath, kind: str, root: Node, top: FieldInfo) -> tuple[Position, str]:
    above, holder = _above(path, root, top)
    name, key = _name(path), path[-1]
    entry = _entry(holder, key)
    if kind == "extra_forbidden":
        assert entry is not None
        return entry.key, _unknown_key(path, above, holder, root, top)
    field = field_below(above, holder, key)
    if kind == "union_tag_invalid":
        assert above is not None
        names = tuple(section.model_fields["kind"].default for section in sections(above))
        named: Any = Literal[names]
        field = FieldInfo(annotation=named)
    assert field is not None
    if entry is None:
        return holder.place, f"{name} is missing ({field.description})"
    is_infinite = isinstance(entry.value, float) and math.isinf(entry.value)
    if is_infinite and float in choices(field.annotation):
        return entry.place, f"{name}: must be a finite number, not {shown(entry)}"
    if entry.text == "":
        return entry.place, f"{name}: must be {expected(field)}, but is empty"
    known = [choice for member in choices(field.annotation) for choice in _literals(member)]
    hint = did_you_mean(str(entry.value), known)
    kinds = sections(field) if field.discriminator else []
    if entry.value in [kind.model_fields["kind"].default for kind in kinds]:
        hint = f"; did you mean '{name}.kind'?"
    return entry.place, f"{name}: must be {expected(field)}, not {shown(entry)}{hint}"


def shown(node: Node) -> str:
    """Return a value as it was written, shortened, for a message."""
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    text = hidden(node.value) if isinstance(node.value, str) else ""
    text = repr(text) if isinstance(node.value, str) or not node.text else node.text
    return text if len(text) <= 60 else f"{text[:57]}..."


def _literals(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def expected(field: FieldInfo) -> str:
    """Return what a field accepts, in words: `a whole number of at least 1 or null`."""
    range_ = _range(field)
    return " or ".join(dict.fromkeys(_noun(m, range_) for m in choices(field.annotation)))


def _range(field: FieldInfo) -> str:
    words = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [
        f"{word} {bound}"
        for limit in field.metadata
        for name, word in words.items()
        if (bound := getattr(limit, name, None)) is not None
    ]
    if any(getattr(limit, "min_length", 0) for limit in field.metadata):
        bounds.append("that is not empty")
    return "".join(f" {bound}" for bound in [" and ".join(bounds)] if bound)


def _noun(annotation: Any, range_: str) -> str:
    literals = _literals(annotation)
    if literals:
        return ("one of " if len(literals) > 1 else "") + ", ".join(map(repr, literals))
    if get_origin(annotation) is tuple:
        members = choices(get_args(annotation)[0])
        return f"a list of {' and '.join(_PLURALS.get(m, 'mappings') for m in members)}"
    if get_origin(annotation) is dict:
        return "a mapping with names as keys"
    if annotation in _NOUNS:
        return _NOUNS[annotation] + (range_ if annotation in (int, float, str) else "")
    assert issubclass(annotation, Section)
    required = [name for name, field in annotation.model_fields.items() if field.is_required()]
    return f"a mapping with the key '{required[0]}'" if required else "a section with keys"


def _unknown_key(
    path: KeyPath, field: FieldInfo | None, node: Node, root: Node, top: FieldInfo
) -> str:
    unknown = f"unknown key '{_name(path)}'"
    key = str(path[-1])
    section = section_of(field, node)
    assert field is not None
    assert section is not None
    others = [other for other in sections(field) if key in other.model_fields]
    if others:
        kind = others[0].model_fields["kind"].default
        return f"{unknown}: kind '{kind}' has it, but the kind is '{kind_of(field, node)}'"
    kinds = _kinds_with(path, root, top)
    if kinds:
        choice = f"{_name(path[:-2])}.kind {' and '.join(map(repr, kinds))}"
        return f"{unknown}: {choice} {'have' if kinds[1:] else 'has'} it"
    # Not the keys of the sibling kinds, which this section has under the same names.
    here = _name(path[:-1])
    known = (path for section in sections(top) for path in _paths(section))
    paths = dict.fromkeys(path for path in known if path.rpartition(".")[0] != here)
    if key in paths:
        *outer, last = key.split(".")
        return f"{unknown}; in a file, indent '{last}' under '{'.'.join(outer)}:'"
    own = _close(key, section.model_fields)
    if own:
        return f"{unknown}; did you mean '{own}'?"
    named = [path for path in paths if path.rpartition(".")[2] == key]
    if not named:
        alike = _close(key, (path.rpartition(".")[2] for path in paths))
        named = [path for path in paths if path.rpartition(".")[2] == alike]
    near = [other for other in named if other.startswith(f"{path[0]}.")] or named
    if near:
        return f"{unknown}; did you mean {' or '.join(map(repr, near[:3]))}?"
    return f"{unknown}; the keys here are {', '.join(section.model_fields)}"


def _kinds_with(path: KeyPath, root: Node, top: FieldInfo) -> list[str]:
    """Return the kinds of the section two levels up that have the last key of ``path``."""
    if len(path) < 3:
        return []
    field, _ = _above(path[:-1], root, top)
    *_, inner, key = path
    kinds = sections(field) if field and field.discriminator else []
    return [
        section.model_fields["kind"].default
        for section in kinds
        if inner in section.model_fields
        and any(key in below.model_fields for below in sections(section.model_fields[str(inner)]))
    ]


def _paths(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys of all kinds."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in sections(field):
            yield from _paths(inner, f"{prefix}{name}.")


def _broken_rule(path: KeyPath, rule: str, root: Node, top: FieldInfo) -> tuple[Position, str]:
    """Return the message of a rule between keys, with the positions of the keys that it names."""
    _, holder = _above((*path, ""), root, top)
    entries = holder.value if isinstance(holder.value, dict) else {}
    words = re.findall(r"\w+", rule)
    places = sorted({entry.key for key, entry in entries.items() if key in words}) or [holder.key]
    also = f" (see also {', '.join(map(str, places[:-1]))})" if places[1:] else ""
    name = f"{_name(path)}: " if path else ""
    return places[-1], f"{name}{rule}{also}"
