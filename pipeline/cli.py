"""The `biloom` command. A stage, and all that is heavy, is imported only when it runs."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.registry import add_tools, run_tool
from preprocess.errors import UserError

STAGE_HELP = {
    "run": "all stages in order: raw text to contextual vectors and a report",
    "tokenizer": "a sample of the corpus -> tokenizer",
    "prepare": "raw text -> token shards",
    "train": "token shards -> checkpoint",
    "evaluate": "checkpoint -> perplexity of held-out text",
    "export": "checkpoint -> model folder",
    "embed": "model folder and text -> vector cache",
}

EPILOG = """\
CONFIG is a YAML file or the name of a shipped one (quickstart, base, chinese, ...); several are
merged in order. KEY=VALUE overrides one setting:

  biloom run quickstart
  biloom run quickstart 'prepare.input=/data/*.txt' run.output=/out
  biloom train my.yaml train.steps=20000

A stage that is done answers at once; one that was stopped goes on where it was."""

MENDABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Troubles with files that a user can mend, and that are no fault of ours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 found damaged, 2 a user's mistake, 130 interrupted.

    141 where what reads the output has gone, as a shell counts it: the work may not be done.
    """
    options = _parse(arguments)
    # A file's name may hold what the terminal's encoding cannot.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nbiloom: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"biloom: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        print(f"biloom: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # Overrides and texts may stand after a flag, where argparse no longer expects them.
    more = next((name for name in ("config", "texts") if name in options), None)
    odd = [word for word in rest if word.startswith("-") or more is None]
    if odd:
        parser.error(f"unrecognized arguments: {' '.join(odd)}")
    if more and rest:
        getattr(options, more).extend(rest)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="biloom",
        description="Pretrain bidirectional language models on any corpus, and use their vectors.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in STAGE_HELP.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("config", nargs="+", metavar="CONFIG|KEY=VALUE")
        command.add_argument(
            "--overwrite", action="store_true", help="move results of other settings aside"
        )
        command.add_argument(
            "--print-config", action="store_true", help="print the merged config and stop"
        )
        command.add_argument(
            "--dry-run", action="store_true", help="print the plan, touch nothing and stop"
        )
    add_tools(commands)
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.command not in STAGE_HELP:
        return run_tool(options)
    from pipeline.config.load import dump_config, load_config
    from pipeline.training.processes import is_further_process

    overrides = [word for word in options.config if _is_override(word)]
    files = [word for word in options.config if word not in overrides]
    config = load_config(files, overrides)
    if options.print_config:
        print(dump_config(config), end="")
        return 0
    if options.command in ("run", "train") and is_further_process(config.train):
        from pipeline.stages.train import join

        return join(config)
    from pipeline.console import Console

    if options.dry_run:
        from pipeline.commands.dry_run import dry_run

        dry_run(config, options.command, Console())
        return 0
    from pipeline.stages.run import run

    run(config, options.command, Console(), overwrite=options.overwrite)
    return 0


def _is_override(word: str) -> bool:
    """Whether ``word`` sets a key; ``./a=b.yaml`` is a file, and so is one that names no section."""
    from pipeline.config.schema import Config

    key, equals, _ = word.partition("=")
    section = key.partition(".")[0]
    return bool(equals) and (section in Config.model_fields or not Path(word).exists())


if __name__ == "__main__":
    sys.exit(main())
