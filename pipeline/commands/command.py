"""What a command of `biloom` is made of. Imports nothing that takes time to load."""

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
        details: what the command's own help says after ``help``.
    """

    help: str
    run: Callable[[Namespace], int]
    arguments: Mapping[str, Mapping[str, Any]]
    examples: tuple[str, ...]
    settings: Mapping[str, str] = {}
    details: str = ""


class Group(NamedTuple):
    """Commands that share a first word, such as `biloom cache info` and `biloom cache get`."""

    help: str
    commands: Mapping[str, Command]
