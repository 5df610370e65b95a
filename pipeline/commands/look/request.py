"""What `biloom look` is asked: inputs, configs and settings, in any order."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from pydantic.fields import FieldInfo

from pipeline.config.diagnostics import plain_values
from pipeline.config.load import (
    ConfigError,
    flow_yaml,
    load_config,
    read_overrides,
    shipped_configs,
)
from pipeline.config.schema import Config
from pipeline.config.yaml_source import Problems
from preprocess.config import Source

_SETTING = re.compile(r"(?P<first>\w+)(?:\.[\w.]+)?=")
NO_SETTING = ("name", "path", "split", "weight", "license")
"""Keys of a source that do not change what is read."""
SOURCE_KEYS = tuple(key for key in Source.model_fields if key not in NO_SETTING)


class Words(NamedTuple):
    """The words of a command line.

    Attributes:
        inputs: paths, patterns, folders and URLs.
        configs: YAML files and names of shipped configs.
        overrides: settings of a config.
        source: settings of the source that the inputs are.
    """

    inputs: list[str]
    configs: list[str]
    overrides: list[str]
    source: list[str]


def sort_words(words: Sequence[str]) -> Words:
    """Return what each word of a command line is.

    A word is a config if it ends with .yaml or .yml, or if it is the name of a shipped config, as for other
    commands; ``./base`` is the file or folder of such a name. It is a setting if it begins with the name of a section or of a key of a source
    and ``=``, or with another name and ``=`` and is not the name of a file.

    Raises:
        ConfigError: a key is unknown, but almost that of a source.
    """
    found = Words([], [], [], [])
    shipped = shipped_configs()
    for word in words:
        setting = _SETTING.match(word)
        first = setting["first"] if setting else ""
        if first in SOURCE_KEYS:
            found.source.append(word)
        elif first in Config.model_fields:
            found.overrides.append(word)
        elif setting and not Path(word).exists():
            if near := get_close_matches(first, SOURCE_KEYS, 1):
                raise ConfigError([f"unknown key '{first}'; did you mean '{near[0]}'?"])
            found.overrides.append(word)
        elif word.endswith((".yaml", ".yml")) or word in shipped:
            found.configs.append(word)
        else:
            found.inputs.append(word)
    return found


def config_of(words: Sequence[str], notes: list[str]) -> Config:
    """Return the config of a command line, whose ``prepare.input`` is what is looked at.

    Args:
        words: arguments of the command.
        notes: receives the notes of `load_config`.

    Raises:
        ConfigError: the settings or a config have mistakes, or there is no input.
    """
    found = sort_words(words)
    overrides = list(found.overrides)
    if found.source and not found.inputs:
        key = found.source[0].partition("=")[0]
        raise ConfigError(
            [
                f"'{found.source[0]}' is a setting of a source: name an input, or set {key} "
                "on a source of prepare.input"
            ]
        )
    if found.inputs:
        problems: Problems = []
        tree = read_overrides([*map(_quoted, found.source)], 0, problems)
        settings = plain_values(tree, FieldInfo(annotation=Source))
        if problems:
            raise ConfigError([text for _, text in problems])
        source = {"path": list(found.inputs), **settings}
        overrides.append(f"prepare.input={flow_yaml([source])}")
    return load_config(found.configs, overrides, notes, default_recipe=True)


def _quoted(setting: str) -> str:
    """Return a setting as YAML; the value of a template may begin with a brace, as ``{title}`` does."""
    key, _, value = setting.partition("=")
    is_plain = key == "template" and value.startswith("{")
    return f"{key}={flow_yaml(value)}" if is_plain else setting
