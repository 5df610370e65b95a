"""The command-line reference: Markdown made from the commands of `biloom`."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import cli
from pipeline.commands.command import Command, Group
from pipeline.commands.registry import COMMANDS


def commands() -> dict[str, Command | Group]:
    """Every command and group by its full name, as ``biloom cache get``."""
    return dict(_below("biloom", COMMANDS))


def _below(
    prefix: str, found: Mapping[str, Command | Group]
) -> Iterator[tuple[str, Command | Group]]:
    for name, command in found.items():
        yield f"{prefix} {name}", command
        if isinstance(command, Group):
            yield from _below(f"{prefix} {name}", command.commands)


def markdown() -> str:
    """The whole reference: a heading a command."""
    parts = [f"## biloom\n\n{cli.DESCRIPTION}", _list("biloom", COMMANDS), VERSION]
    parts += [_entry(name, command) for name, command in commands().items()]
    return "\n\n".join(parts) + "\n"


VERSION = "`biloom --version`\n: Show the version."


def _list(prefix: str, found: Mapping[str, Command | Group]) -> str:
    """A table of commands, each with a link to its heading."""
    full = {f"{prefix} {name}": one.help for name, one in found.items()}
    rows = "\n".join(f"| [`{n}`](#{n.replace(' ', '-')}) | {text} |" for n, text in full.items())
    return f"| command | what it does |\n|---|---|\n{rows}"


def _entry(name: str, command: Command | Group) -> str:
    parts = [f"## {name}"]
    if isinstance(command, Group):
        return "\n\n".join([*parts, _sentence(command.help), _list(name, command.commands)])
    parts += [
        f"{_sentence(command.help)} {command.details}".strip(),
        f"```text\n{_usage(name, command.arguments)}\n```",
        *(_argument(argument, keywords) for argument, keywords in command.arguments.items()),
    ]
    if command.settings:
        rows = "\n".join(f"| `{key}` | {text} |" for key, text in command.settings.items())
        parts.append(f"| main settings | |\n|---|---|\n{rows}")
    examples = "\n".join(command.examples)
    return "\n\n".join([*parts, f"Examples:\n\n```sh\n{examples}\n```"])


def _usage(name: str, arguments: Mapping[str, Mapping[str, Any]]) -> str:
    flags = [
        _shown(a, k) if k.get("required") else f"[{_shown(a, k)}]"
        for a, k in arguments.items()
        if a.startswith("-")
    ]
    others = [_shown(a, k) for a, k in arguments.items() if not a.startswith("-")]
    return " ".join([name, *flags, *others])


def _shown(argument: str, keywords: Mapping[str, Any]) -> str:
    """An argument as argparse's usage lines write it."""
    value = str(keywords.get("metavar", argument.lstrip("-").upper()))
    if choices := keywords.get("choices"):
        value = "{" + ",".join(choices) + "}"
    if argument.startswith("-"):
        return argument if keywords.get("action") == "store_true" else f"{argument} {value}"
    many = {"+": f"{value} [{value} ...]", "*": f"[{value} ...]", "?": f"[{value}]"}
    return many.get(keywords.get("nargs", ""), value)


def _argument(argument: str, keywords: Mapping[str, Any]) -> str:
    name = _shown(argument, {**keywords, "nargs": ""})
    text = str(keywords.get("help", "")) % {"default": keywords.get("default")}
    return f"`{name}`\n: {_sentence(text)}"


def _sentence(text: str) -> str:
    text = f"{text[:1].upper()}{text[1:]}"
    return text if text.endswith(".") or not text else f"{text}."
