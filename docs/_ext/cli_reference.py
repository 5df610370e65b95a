"""The command-line reference: Markdown made from the argparse parser of `biloom`."""

import argparse
from collections.abc import Iterator

from pipeline import cli
from pipeline.commands.parser import make_parser
from pipeline.commands.registry import COMMANDS

SHOWN_WIDTH = 80
"""Columns of a usage line."""


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command by its full name, as ``biloom cache get``."""
    return dict(_below(make_parser(COMMANDS, cli.DESCRIPTION, cli.EPILOG).own))


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in dict.fromkeys(action.choices.values()):
                yield from _below(one)


def markdown() -> str:
    """The whole reference: a heading a command."""
    return "\n\n".join(_command(name, parser) for name, parser in parsers().items()) + "\n"


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"## {name}"]
    if parser.description:
        parts.append(_sentence(" ".join(parser.description.split())))
    parts.append(f"```text\n{_usage(parser)}\n```")
    parts += [_argument(parser, action) for action in parser._actions]
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(part for part in parts if part)


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=SHOWN_WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, "")
    return formatter.format_help().strip()


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        rows = [
            f"`{parser.prog} {choice.dest}`\n: {_sentence(choice.help or '')}"
            for choice in action._choices_actions
        ]
        return "\n\n".join(rows)
    if isinstance(action, argparse._HelpAction) or action.help in (None, argparse.SUPPRESS):
        return ""
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    takes = "" if action.nargs == 0 or not action.option_strings else f" {_value(action)}"
    text = (action.help or "") % {"default": action.default, "prog": parser.prog}
    return f"`{name}{takes}`\n: {_sentence(text)}"


def _value(action: argparse.Action) -> str:
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def _sentence(text: str) -> str:
    text = f"{text[:1].upper()}{text[1:]}"
    return text if text.endswith(".") or not text else f"{text}."
