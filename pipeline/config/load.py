"""Config files and ``key.path=value`` overrides to a `Config`, and a `Config` back to YAML."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.diagnostics import (
    ROOT,
    did_you_mean,
    explain,
    field_below,
    kind_of,
    plain_values,
)
from pipeline.config.former_keys import REMOVED
from pipeline.config.schema import Config
from pipeline.config.yaml_source import (
    CORE_SCHEMA,
    UNPLACED,
    Node,
    Position,
    Problems,
    read_file,
    read_override,
)
from preprocess.errors import UserError
from preprocess.section import Section


class ConfigError(UserError):
    """Mistakes of a config, all of them: ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class _Dumper(yaml.SafeDumper):
    # With YAML 1.1's beside ours, what either would misread (`no`, `1e5`) is put in quotes.
    yaml_implicit_resolvers = {**yaml.SafeDumper.yaml_implicit_resolvers, None: CORE_SCHEMA}  # noqa: RUF012


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Any other style would write a line break as a line break, and a value has one line.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def load_config(files: Sequence[str], overrides: Sequence[str]) -> Config:
    """The config of ``files`` (paths or names of shipped configs) and ``key.path=value`` overrides.

    Defaults < files in their order < overrides. Mappings are merged key by key, anything else is
    replaced. Where a section is a choice of kinds, naming another kind forgets what earlier files
    set for the former. A key that takes text takes it as written, quoted or not (`name: 1.10`).

    Raises:
        ConfigError: with every mistake found.
    """
    problems: Problems = []
    trees = [_read(file, layer, problems) for layer, file in enumerate(files)]
    # People give overrides in any order: all are one layer, in which `kind` may come last.
    asked = Node({}, UNPLACED, UNPLACED)
    for layer, argument in enumerate(overrides, len(files)):
        asked = _merge(asked, read_override(argument, layer, problems), None)
    if None in trees:  # what an unreadable file says cannot be called missing
        raise _error(problems)
    required = [name for name, field in Config.model_fields.items() if field.is_required()]
    empty = Node({}, UNPLACED, UNPLACED)
    given = Node(dict.fromkeys(required, empty), UNPLACED, UNPLACED)
    for tree in filter(None, [*trees, asked]):
        given = _merge(given, tree, ROOT)
    for key, default in REMOVED.items():
        given = _without(given, key.split("."), default)
    try:
        config = Config.model_validate(plain_values(given, ROOT))
    except ValidationError as error:
        raise _error(problems + explain(error, given)) from None
    if problems:
        raise _error(problems)
    return config


def _without(node: Node, path: list[str], value: Any) -> Node:
    """The tree without the entry at ``path``, if that has this value."""
    key, *below = path
    entry = node.value.get(key) if isinstance(node.value, dict) else None
    if entry is None:
        return node
    assert isinstance(node.value, dict)
    if below:
        return replace(node, value={**node.value, key: _without(entry, below, value)})
    if entry.value != value:
        return node
    return replace(node, value={k: v for k, v in node.value.items() if k != key})


def _read(name: str, layer: int, problems: Problems) -> Node | None:
    try:
        path = find_config(name)
    except ConfigError as error:
        problems.append((Position(layer, 0, ""), str(error)))
        return None
    return read_file(path, layer, problems)


def _merge(old: Node, new: Node, field: FieldInfo | None) -> Node:
    """``new`` over ``old``; without a ``field`` no section is a choice of kinds."""
    if isinstance(old.value, dict) and new.text == "":
        return old  # a section whose keys are all commented out
    if not isinstance(old.value, dict) or not isinstance(new.value, dict):
        return new
    chosen = field and field.discriminator and "kind" in new.value
    if field and chosen and kind_of(field, new) != kind_of(field, old):
        return new
    merged = dict(old.value)
    for key, entry in new.value.items():
        former = merged.get(key)
        below = field_below(field, new, key) or field_below(field, old, key)
        merged[key] = _merge(former, entry, below) if former else entry
    return replace(new, value=merged)


def find_config(name: str) -> Path:
    """The file ``name``, or the shipped config of that name.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise ConfigError([f"config '{name}' is a folder, not a file"])
    if path.parent != Path():
        raise ConfigError([f"no such file: '{name}'"])
    known = f"shipped are {', '.join(shipped)}"
    raise ConfigError([f"no config '{name}': {known}{did_you_mean(path.stem, shipped)}"])


def shipped_configs() -> dict[str, Path]:
    """Name and file of each config that comes with biloom."""
    package = Path(str(resources.files("pipeline")))
    # A wheel holds the configs inside the package, a checkout beside it.
    folder = package / "configs"
    folder = folder if folder.is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def dump_config(config: Config) -> str:
    """YAML of the whole config, defaults included, each key with its description as a comment."""
    blocks = (_dump_field(config, name, "") for name in Config.model_fields)
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks)


def _dump_field(section: Section, name: str, indent: str) -> Iterator[str]:
    value = getattr(section, name)
    description = type(section).model_fields[name].description
    comment = f"  # {description}" if description else ""
    if isinstance(value, Section):
        yield f"{indent}{name}:{comment}"
        for inner in type(value).model_fields:
            yield from _dump_field(value, inner, indent + "  ")
    elif isinstance(value, tuple) and any(isinstance(entry, Section) for entry in value):
        yield f"{indent}{name}:{comment}"
        for entry in value:
            yield f"{indent}  - {flow_yaml(entry)}"
    else:
        yield f"{indent}{name}: {flow_yaml(value)}{comment}"


def flow_yaml(value: Any) -> str:
    """YAML of one value, in one line."""
    plain_values = value.model_dump() if isinstance(value, Section) else value
    # In a list, so that PyYAML writes no end of document after a scalar.
    text: str = yaml.dump(
        [plain_values],
        Dumper=_Dumper,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
    return text.removeprefix("[").removesuffix("]\n")


def _error(problems: Problems) -> ConfigError:
    ordered = sorted(problems, key=lambda problem: problem[0])
    return ConfigError([f"{place}: {text}" if place.source else text for place, text in ordered])
