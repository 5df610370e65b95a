"""Load a `Config` from files and ``key.path=value`` overrides, and dump it as YAML."""

import errno
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from lightning_modules.training.config import TrainConfig
from pipeline.config.diagnostics import (
    ROOT,
    did_you_mean,
    explain,
    field_below,
    plain_values,
    shown,
)
from pipeline.config.former_keys import REMOVED
from pipeline.config.kinds import change_kind
from pipeline.config.recipe import OPEN, open_settings, with_default_recipe
from pipeline.config.schema import Config
from pipeline.config.secrets import secrets_in_urls, without_hidden_settings
from pipeline.config.yaml_source import (
    CORE_SCHEMA,
    EMPTY,
    Node,
    Position,
    Problems,
    read_file,
    read_override,
)
from preprocess.errors import HIDDEN, UserError, hidden, is_secret, without_secrets
from preprocess.section import Section, changes_result

LENGTHS = ("train.steps", "train.passes")
"""Two ways to set the length of training."""


class ConfigError(UserError):
    """All mistakes in a config; ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = [without_secrets(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


class _Dumper(yaml.SafeDumper):
    # With the patterns of YAML 1.1 and of 1.2, text that either misreads (`no`, `1e5`) is quoted.
    yaml_implicit_resolvers = {**yaml.SafeDumper.yaml_implicit_resolvers, None: CORE_SCHEMA}  # noqa: RUF012


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Only double quotes escape a line break, and a value must stay on one line.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def load_config(
    files: Sequence[str],
    overrides: Sequence[str],
    notes: list[str] | None = None,
    default_recipe: bool = False,
) -> Config:
    """Load the config from ``files`` and ``overrides``.

    Later files override earlier ones, and overrides come last. Mappings are merged key by key; any
    other value is replaced. If a later file or an override sets another `kind` in a section, the
    settings that both kinds have keep their values, and the others are dropped
    (`pipeline.config.kinds`). A text setting needs no quotes (`name: 1.10`).

    Args:
        files: paths, or names of shipped configs.
        overrides: arguments of the form ``key.path=value``.
        notes: list to which a line is added for each section whose kind changes. The line names the
            settings that are kept and dropped.
        default_recipe: set ``train.recipe`` to auto if it is not set, and if no file sets what decides
            the result of training. ``train.passes`` does not count, because a recipe can follow it.

    Raises:
        ConfigError: the config has mistakes, such as a key that two overrides set; all are listed.
    """
    problems: Problems = []
    trees = [_read(file, layer, problems) for layer, file in enumerate(files)]
    override = read_overrides(overrides, len(files), problems)
    if None in trees:  # a key that seems missing may be in the file that could not be read
        raise config_error(problems)
    problems += [
        problem for tree in (*trees, override) if tree for problem in secrets_in_urls(tree)
    ]
    required = [name for name, field in Config.model_fields.items() if field.is_required()]
    merged = replace(EMPTY, value=dict.fromkeys(required, EMPTY))
    told: list[str] = []
    for number, tree in enumerate(filter(None, [*trees, override])):
        # The first file has no earlier settings to change.
        merged = _without_former_length(merged, tree, told)
        merged = _merge(merged, tree, ROOT, told if number else [])
    for key, default in REMOVED.items():
        merged = _without(merged, key.split("."), default)
    try:
        config = Config.model_validate(plain_values(merged, ROOT))
    except ValidationError as error:
        raise config_error(problems + explain(error, merged)) from None
    if problems:
        raise config_error(problems)
    if notes is not None:
        notes += told
    is_open = "recipe" not in config.train.model_fields_set and not any(map(_sets_training, trees))
    return with_default_recipe(config) if default_recipe and is_open else config


def read_overrides(overrides: Sequence[str], first: int, problems: Problems) -> Node:
    """Return the tree of all overrides, which are the layers from ``first`` on.

    They come in any order, so they are merged as one layer, in which `kind` may come last.
    """
    merged = EMPTY
    for layer, argument in enumerate(overrides, first):
        tree = read_override(argument, layer, problems)
        problems += _set_twice(merged, tree)
        merged = _merge(merged, tree, None, [])
    return merged


def _sets_training(tree: Node | None) -> bool:
    """Return True if a file sets a setting of ``model``, or one of ``train`` that decides the result."""
    model, train = (_at(tree, name) if tree else None for name in ("model", "train"))
    keys = train.value if train and isinstance(train.value, dict) else ()
    return bool(model and model.value) or any(changes_result(TrainConfig, key) for key in keys)


def _set_twice(old: Node, new: Node, name: str = "") -> Problems:
    """Return a mistake for each key that both trees of overrides set."""
    if isinstance(old.value, dict) and isinstance(new.value, dict):
        below = [(key, entry) for key, entry in new.value.items() if key in old.value]
        return [
            problem
            for key, entry in below
            for problem in _set_twice(old.value[key], entry, f"{name}.{key}" if name else key)
        ]
    told = f"'{name}' is set twice on the command line, first by the {old.place.source}"
    if isinstance(old.value, str) and isinstance(new.value, str):
        values = [HIDDEN if is_secret(name) else hidden(text) for text in (old.value, new.value)]
        told += (
            "; a shell makes two arguments of an unquoted {a,b}: write a list in quotes, as in "
            f"'{name}=[{', '.join(values)}]'"
        )
    return [(new.place, told)]


def _without_former_length(old: Node, new: Node, notes: list[str]) -> Node:
    """Return ``old`` without the length of training if ``new`` sets it in the other unit."""
    for key, other in (LENGTHS, LENGTHS[::-1]):
        given, former = _at(new, key), _at(old, other)
        is_length = given and former and None not in (given.value, former.value)
        if given and former and is_length and not _at(new, other):  # both in one file are reported
            notes.append(f"{key}={shown(given)} replaces {other}={shown(former)}")
            old = _without(old, other.split("."), former.value)
    return old


def _at(node: Node, key: str) -> Node | None:
    """Return the entry of a tree at a dotted key."""
    found: Node | None = node
    for name in key.split("."):
        found = found.value.get(name) if found and isinstance(found.value, dict) else None
    return found


def _without(node: Node, path: list[str], value: Any) -> Node:
    """Return the tree without the entry at ``path`` if its value is ``value``."""
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


def _merge(old: Node, new: Node, field: FieldInfo | None, notes: list[str], name: str = "") -> Node:
    """Merge ``new`` over ``old``.

    Args:
        old: the values of a section so far.
        new: its values in a later file or in the overrides.
        field: its field; without one, a change of a `kind` below drops nothing.
        notes: receives a line for each change of a `kind`.
        name: its dotted name.
    """
    if isinstance(old.value, dict) and new.text == "":
        return old  # a section whose keys are all commented out
    if not isinstance(old.value, dict) or not isinstance(new.value, dict):
        return new
    merged = dict(old.value)
    for key, entry in new.value.items():
        former = merged.get(key)
        below = field_below(field, new, key) or field_below(field, old, key)
        inner = f"{name}.{key}" if name else key
        if below and below.discriminator and isinstance(entry.value, dict):
            former, lines = change_kind(inner, below, old, new)
            notes += lines
        elif former is None and isinstance(entry.value, dict):
            former = EMPTY
        merged[key] = _merge(former, entry, below, notes, inner) if former else entry
    return replace(new, value=merged)


def find_config(name: str) -> Path:
    """Return the path of the file ``name``, or of the shipped config with that name.

    Raises:
        ConfigError: if neither exists.
    """
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise ConfigError([f"config '{name}' cannot be read: {error.strerror}"]) from error
        mode = 0
    # A pipe of the shell is written to; any other may never be, and a device may have no end.
    is_pipe_of_shell = stat.S_ISFIFO(mode) and name.startswith(("/dev/", "/proc/"))
    if stat.S_ISREG(mode) or is_pipe_of_shell:
        return path
    if mode and not stat.S_ISDIR(mode):
        raise ConfigError(
            [f"config '{name}' is not a file, but a pipe or a device; write its content to a file"]
        )
    shipped = shipped_configs()
    if name in shipped:
        return shipped[name]
    if mode:
        raise ConfigError([f"config '{name}' is a folder, not a file"])
    if path.parent != Path():
        raise ConfigError([f"no such file: '{name}'"])
    known = f"the shipped configs are {', '.join(shipped)}"
    raise ConfigError([f"no config '{name}': {known}{did_you_mean(path.stem, shipped)}"])


def shipped_configs() -> dict[str, Path]:
    """Return the name and path of each config that comes with biloom."""
    package = Path(str(resources.files("pipeline")))
    # The configs are inside the package in a wheel, and beside it in a checkout.
    folder = package / "configs"
    folder = folder if folder.is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def dump_config(config: Config) -> str:
    """Return the whole config as YAML, with the description of each key as a comment.

    Secrets are hidden. Settings that follow from the size of the corpus are comments.
    """
    config = without_hidden_settings(config)
    left = open_settings(config)
    blocks = (_dump_field(config, name, "", left) for name in Config.model_fields)
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks)


def dump_section(section: Section) -> str:
    """Return the settings of a command that is no stage as YAML, with the descriptions as comments."""
    fields = type(section).model_fields
    return "".join(
        f"{line}\n" for name in fields for line in _dump_field(section, name, "", frozenset())
    )


def _dump_field(
    section: Section, name: str, indent: str, left: frozenset[str], prefix: str = ""
) -> Iterator[str]:
    value = getattr(section, name)
    description = type(section).model_fields[name].description
    comment = f"  # {description}" if description else ""
    if f"{prefix}{name}" in left:
        yield f"{indent}# {name}: {OPEN}"
    elif isinstance(value, Section):
        yield f"{indent}{name}:{comment}"
        for inner in type(value).model_fields:
            yield from _dump_field(value, inner, indent + "  ", left, f"{prefix}{name}.")
    elif isinstance(value, tuple) and any(isinstance(entry, Section) for entry in value):
        yield f"{indent}{name}:{comment}"
        for entry in value:
            yield f"{indent}  - {flow_yaml(entry)}"
    else:
        yield f"{indent}{name}: {flow_yaml(value)}{comment}"


def flow_yaml(value: Any) -> str:
    """Return one value as YAML in one line."""
    plain_values = value.model_dump() if isinstance(value, Section) else value
    # In a list, because PyYAML writes an end-of-document line after a bare scalar.
    text: str = yaml.dump(
        [plain_values],
        Dumper=_Dumper,
        default_flow_style=True,
        allow_unicode=True,
        sort_keys=False,
        width=float("inf"),
    )
    return text.removeprefix("[").removesuffix("]\n")


def config_error(problems: Problems) -> ConfigError:
    """Return the error that lists all mistakes in the order of their positions."""
    ordered = sorted(problems, key=lambda problem: problem[0])
    return ConfigError([f"{place}: {text}" if place.source else text for place, text in ordered])
