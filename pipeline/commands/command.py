"""The record that describes a command of `biloom`. Imports nothing that is slow to load."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command.

    Attributes:
        help: what it does, in a phrase for the list of commands.
        run: takes the parsed arguments and returns the exit code. It imports what it needs.
        arguments: name or flag -> keywords of `argparse.ArgumentParser.add_argument`.
        examples: command lines that work.
        settings: its main settings: key -> what it sets.
        details: sentences that follow ``help`` in the command's own help.
    """

    help: str
    run: Callable[[Namespace], int]
    arguments: Mapping[str, Mapping[str, Any]]
    examples: tuple[str, ...]
    settings: Mapping[str, str] = {}
    details: str = ""


class Group(NamedTuple):
    """Commands that share a first word, such as `biloom cache info` and `biloom cache get`.

    Attributes:
        help: what they do, in a phrase for the list of commands.
        commands: second word -> command.
    """

    help: str
    commands: Mapping[str, Command]
