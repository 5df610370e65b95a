"""The commands that are no stage: on a finished folder, on a file, on a pipe. Each loads when it runs."""

import argparse
import importlib
from typing import Any, NamedTuple


class Tool(NamedTuple):
    """A command; ``home`` is the module and the function, which takes the arguments as keywords.

    It returns the exit code, none: 0.
    """

    help: str
    home: str
    arguments: dict[str, dict[str, Any]]


FOLDER = {"path": {"metavar": "PATH"}}
CACHE = {"path": {"metavar": "CACHE", "help": "folder or URL of a vector cache"}}

TOOLS = {
    "inspect": Tool("what a finished stage folder holds", "inspection:inspect", FOLDER),
    "check": Tool("hash a finished stage folder's files again", "inspection:check", FOLDER),
    "score": Tool(
        "log-probability and perplexity of each text, one line a text: tokens, forward and backward "
        "log-probability (nats), their mean, forward, backward and average perplexity, unknown tokens; "
        "separated by tabs",
        "score:score",
        {
            "file": {
                "metavar": "FILE",
                "nargs": "?",
                "default": "-",
                "help": "a text a line; -, the default: standard input",
            },
            "--model": {
                "default": "biloom-run/export",
                "help": "model folder (default: %(default)s)",
            },
        },
    ),
    "import-elmo": Tool(
        "an ELMo archive (options.json, weights.hdf5) -> model folder",
        "elmo:import_elmo",
        {
            "options": {"metavar": "OPTIONS", "help": "options.json"},
            "weights": {"metavar": "WEIGHTS", "help": "weights.hdf5"},
            "folder": {"metavar": "FOLDER", "help": "model folder to write"},
            "--vocabulary": {"metavar": "FILE", "help": "vocabulary of bilm-tf, a word a line"},
        },
    ),
    "export-elmo": Tool(
        "model folder -> ELMo archive",
        "elmo:export_elmo",
        {
            "model": {"metavar": "MODEL", "help": "model folder with a character CNN"},
            "folder": {"metavar": "FOLDER", "help": "where options.json and weights.hdf5 go"},
        },
    ),
}

CACHE_TOOLS = {
    "info": Tool("what a vector cache holds", "cache:info", CACHE),
    "get": Tool(
        "vectors of texts, a JSON object a line",
        "cache:get",
        CACHE
        | {
            "texts": {
                "metavar": "TEXT",
                "nargs": "*",
                "help": "none: one a line of standard input",
            },
            "--words": {
                "action": "store_true",
                "help": "each text is a list of words, separated by whitespace",
            },
        },
    ),
    "verify": Tool("hash its files again and read every entry", "cache:verify", CACHE),
    "export": Tool(
        "another format, by the file's suffix: .hdf5 (AllenNLP's layout), .npy, .parquet",
        "cache:export",
        CACHE | {"file": {"metavar": "FILE", "help": "file to write"}},
    ),
}


def add_tools(commands: Any) -> None:
    """Add a parser a tool to argparse's subparsers."""
    _add(commands, TOOLS)
    text = "look into a vector cache, check it, write it in another format"
    cache = commands.add_parser("cache", help=text, description=text)
    _add(cache.add_subparsers(dest="tool", required=True, metavar="COMMAND"), CACHE_TOOLS)


def _add(commands: Any, tools: dict[str, Tool]) -> None:
    for name, tool in tools.items():
        parser = commands.add_parser(name, help=tool.help, description=tool.help)
        for argument, settings in tool.arguments.items():
            parser.add_argument(argument, **settings)


def run_tool(options: argparse.Namespace) -> int:
    """Run the tool that was chosen; its exit code."""
    given = vars(options)
    command, name = given.pop("command"), given.pop("tool", None)
    tool = CACHE_TOOLS[name] if name else TOOLS[command]
    module, function = tool.home.split(":")
    run = getattr(importlib.import_module(f"pipeline.commands.{module}"), function)
    return run(**given) or 0
