"""The argument parser: commands with their arguments, examples and main settings."""

import re
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from functools import partial
from shutil import get_terminal_size
from textwrap import wrap
from typing import NamedTuple

from pipeline.commands.command import Command, Group
from pipeline.exit_codes import MEANINGS

WIDTH = 79
FORMAT = partial(RawDescriptionHelpFormatter, max_help_position=18)
SEE_ALL = "--print-config shows every setting with its allowed values."


class Parser(NamedTuple):
    """An argument parser.

    Attributes:
        own: the parser itself.
        arguments: name or flag -> the argument that was added to ``own``.
        commands: name -> parser of a command that follows.
    """

    own: ArgumentParser
    arguments: dict[str, Action]
    commands: dict[str, "Parser"]

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Parse a command line in which flags may stand before, between and after other arguments.

        argparse allows that only in a parser without subcommands, so a command's own parser parses
        what follows its name. The result has ``run``, as in `Command`, if a command was given, else
        ``format_help``, which returns the help.
        """
        if arguments and arguments[0] in self.commands:
            return self.commands[arguments[0]].parse(arguments[1:])
        if self.commands:
            return self.own.parse_args(arguments, Namespace(format_help=self.own.format_help))
        self._refuse_hyphens(arguments)
        return self.own.parse_intermixed_args(arguments)

    def _refuse_hyphens(self, arguments: Sequence[str]) -> None:
        """Exit with a hint if a setting is written as an option, as wandb's agent does by default."""
        if not any("KEY=VALUE" in str(action.metavar) for action in self.arguments.values()):
            return
        for argument in arguments:
            if re.match(r"--\w+\.[\w.]+(=|$)", argument):
                self.own.error(
                    f"settings have no hyphens: write {argument.removeprefix('--').partition('=')[0]}=..., "
                    "and ${args_no_hyphens} in the command of a wandb sweep"
                )


def make_parser(commands: Mapping[str, Command | Group], description: str, epilog: str) -> Parser:
    """Return the parser of the whole command line; its help shows the examples of the first command.

    Args:
        commands: first word -> command or group, in the order of the help.
        description: sentence above the list of commands.
        epilog: text below it.
    """
    first = next(iter(commands.values()))
    examples = first.examples if isinstance(first, Command) else ()
    parser = ArgumentParser(
        prog="biloom",
        description=_wrapped(description),
        epilog=f"{_wrapped(epilog)}\n\n{_examples(examples)}\n\n{_exit_codes()}",
        formatter_class=FORMAT,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    return Parser(parser, {}, _add_commands(parser, commands))


def _add_commands(
    parser: ArgumentParser, commands: Mapping[str, Command | Group]
) -> dict[str, Parser]:
    added = parser.add_subparsers(title="commands", metavar="COMMAND")
    parsers: dict[str, Parser] = {}
    for name, command in commands.items():
        if isinstance(command, Group):
            group = added.add_parser(
                name,
                help=command.help,
                description=_wrapped(_sentence(command.help)),
                formatter_class=FORMAT,
            )
            parsers[name] = Parser(group, {}, _add_commands(group, command.commands))
            continue
        own = added.add_parser(
            name,
            help=command.help,
            description=_wrapped(f"{_sentence(command.help)} {command.details}"),
            epilog=_epilog(command),
            formatter_class=FORMAT,
        )
        own.set_defaults(run=command.run)
        arguments = {
            argument: own.add_argument(argument, **keywords)
            for argument, keywords in command.arguments.items()
        }
        parsers[name] = Parser(own, arguments, {})
    return parsers


def _sentence(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}."


def _wrapped(text: str, first: str = "", others: str = "", end: str = "") -> str:
    """``text`` in lines that begin with ``first`` and ``others``; all but the last end with ``end``."""
    # A command line that is copied must stay whole, so no word is cut.
    lines = wrap(
        text,
        min(WIDTH, get_terminal_size().columns - 2) - len(end),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{end}\n".join(lines)


def _epilog(command: Command) -> str:
    parts = []
    if command.settings:
        width = max(map(len, command.settings)) + 4
        rows = [
            _wrapped(text, f"  {key}".ljust(width), " " * width)
            for key, text in command.settings.items()
        ]
        parts.append("\n".join(["main settings (KEY=VALUE):", *rows, _wrapped(SEE_ALL)]))
    return "\n\n".join([*parts, _examples(command.examples)])


def _exit_codes() -> str:
    rows = [_wrapped(text, f"  {code.value:<5}", " " * 7) for code, text in MEANINGS.items()]
    return "\n".join(["exit codes:", *rows])


def _examples(lines: Sequence[str]) -> str:
    return "\n".join(["examples:", *(_wrapped(line, "  ", " " * 6, " \\") for line in lines)])
