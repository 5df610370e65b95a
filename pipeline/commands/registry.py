"""The commands of `biloom`, in the order in which its help lists them.

A command imports its module when it runs, so that `biloom --help` starts fast.
"""

from argparse import Namespace

from pipeline.commands.command import Command, Group
from pipeline.commands.distillation.command import DISTILL
from pipeline.commands.look.command import LOOK
from pipeline.commands.portable.command import EXPORT_ONNX
from pipeline.commands.serving.command import SERVE
from pipeline.commands.smaller.command import SHRINK
from pipeline.commands.stage_commands import STAGE_COMMANDS
from pipeline.commands.tasks.registry import TASK_COMMANDS

FOLDER = {"path": {"metavar": "PATH", "help": "folder or URL of a finished stage"}}
CACHE = {"path": {"metavar": "CACHE", "help": "folder or URL of a vector cache"}}
RUN = {"path": {"metavar": "RUN", "help": "folder or URL of a run (its run.output)"}}


def _status(options: Namespace) -> int:
    from pipeline.commands.status import status

    return status(options.path)


def _report(options: Namespace) -> int:
    from pipeline.commands.run_folder import report_again

    report_again(options.path)
    return 0


def _compare(options: Namespace) -> int:
    from pipeline.commands.run_folder import compare_runs

    compare_runs(options.paths, options.page)
    return 0


def _inspect(options: Namespace) -> int:
    from pipeline.commands.inspection import inspect

    return inspect(options.path)


def _check(options: Namespace) -> int:
    from pipeline.commands.inspection import check

    return check(options.path)


def _trace(options: Namespace) -> int:
    from pipeline.commands.trace import Query, trace

    return trace(options.path, Query(*(getattr(options, name) for name in Query._fields)))


def _score(options: Namespace) -> int:
    from pipeline.commands.score import score

    score(options.file, options.model)
    return 0


def _import_elmo(options: Namespace) -> int:
    from pipeline.commands.elmo import import_elmo

    import_elmo(options.sources, options.folder, options.vocabulary)
    return 0


def _export_elmo(options: Namespace) -> int:
    from pipeline.commands.elmo import export_elmo

    export_elmo(options.model, options.folder)
    return 0


def _completion(options: Namespace) -> int:
    from pipeline.commands.completion import completion
    from pipeline.commands.parser import make_parser

    completion(options.shell, make_parser(COMMANDS, "", ""))
    return 0


def _cache_info(options: Namespace) -> int:
    from pipeline.commands.cache import info

    info(options.path)
    return 0


def _cache_get(options: Namespace) -> int:
    from pipeline.commands.cache import get

    return get(options.path, options.texts, options.words)


def _cache_verify(options: Namespace) -> int:
    from pipeline.commands.cache import verify

    return verify(options.path)


def _cache_export(options: Namespace) -> int:
    from pipeline.commands.cache import export

    export(options.path, options.file)
    return 0


_CACHE = {
    "info": Command(
        "show what a vector cache holds",
        _cache_info,
        CACHE,
        ("biloom cache info runs/quickstart/embed", "biloom cache info s3://bucket/run/embed"),
    ),
    "get": Command(
        "print the vectors of texts, one JSON object per line",
        _cache_get,
        {
            **CACHE,
            "texts": {
                "metavar": "TEXT",
                "nargs": "*",
                "help": "text to look up (default: each line of standard input)",
            },
            "--words": {
                "action": "store_true",
                "help": "each text is a list of words separated by whitespace",
            },
        },
        (
            "biloom cache get runs/quickstart/embed 'Any text of the cache.'",
            "biloom cache get runs/quickstart/embed --words < sentences.txt",
        ),
        details="Exits with 1 if a text is not in the cache.",
    ),
    "verify": Command(
        "hash a vector cache's files and read every entry",
        _cache_verify,
        CACHE,
        ("biloom cache verify runs/quickstart/embed", "biloom cache verify s3://bucket/run/embed"),
        details="Exits with 1 if anything is damaged.",
    ),
    "export": Command(
        "write a vector cache in another format",
        _cache_export,
        {
            **CACHE,
            "file": {
                "metavar": "FILE",
                "help": "file to write: .hdf5 (AllenNLP's layout), .npy or .parquet",
            },
        },
        (
            "biloom cache export runs/quickstart/embed vectors.hdf5",
            "biloom cache export runs/quickstart/embed vectors.parquet",
        ),
    ),
}

COMMANDS: dict[str, Command | Group] = {
    **STAGE_COMMANDS,
    "look": LOOK,
    "status": Command(
        "show the state of every stage of a run folder",
        _status,
        RUN,
        ("biloom status runs/quickstart", "biloom status s3://bucket/run"),
        details="A stage is done, unfinished, running, killed, not begun, damaged or refused (its inputs "
        "have changed since). Its size, duration and date are also shown; of an unfinished stage its "
        "progress, host and last heartbeat, and what to do next. Exits with 1 if a stage is damaged or "
        "refused.",
    ),
    "report": Command(
        "write report.html of a finished run again",
        _report,
        RUN,
        ("biloom report runs/quickstart", "biloom report s3://bucket/run"),
        details="The settings are those of the run's last finished stage. The folder may have been "
        "moved.",
    ),
    "compare": Command(
        "compare the settings and figures of two or more runs",
        _compare,
        {
            "paths": {"metavar": "RUN", "nargs": "+", "help": "folder or URL of a run"},
            "--page": {"metavar": "FILE", "help": "also write the comparison to this HTML file"},
        },
        (
            "biloom compare runs/quickstart runs/gru",
            "biloom compare runs/quickstart runs/gru --page comparison.html",
        ),
    ),
    "inspect": Command(
        "show what the folder of a finished stage holds",
        _inspect,
        FOLDER,
        ("biloom inspect runs/quickstart/train", "biloom inspect s3://bucket/run/export"),
    ),
    "check": Command(
        "hash the files of a finished stage and compare them with its manifest",
        _check,
        FOLDER,
        ("biloom check runs/quickstart/prepare", "biloom check s3://bucket/run/prepare"),
        details="Exits with 1 if a file is damaged.",
    ),
    "trace": Command(
        "show which file and place the documents of a corpus come from",
        _trace,
        {
            "path": {"metavar": "CORPUS", "help": "folder or URL of a finished prepare stage"},
            "shard": {
                "metavar": "SHARD",
                "nargs": "?",
                "help": "shard of a document, or the unit of one that was dropped",
            },
            "number": {
                "metavar": "NUMBER",
                "nargs": "?",
                "type": int,
                "help": "number of the document there, from 0 on",
            },
            "--file": {"metavar": "NAME", "help": "all documents of the raw file of this name"},
            "--place": {
                "metavar": "N",
                "type": int,
                "help": "only the document of the file at this byte or row",
            },
            "--id": {
                "metavar": "ID",
                "help": "all documents with this id (id_field of the source)",
            },
            "--text": {"metavar": "TEXT", "help": "all documents that contain this text"},
            "--duplicates": {
                "action": "store_true",
                "help": "all documents that were dropped as duplicates",
            },
            "--source": {"metavar": "NAME", "help": "only documents of the source of this name"},
            "--tokenizer": {
                "metavar": "FOLDER",
                "help": "tokenizer of the corpus (default: as in the config of the corpus)",
            },
        },
        (
            "biloom trace runs/quickstart/prepare train-000000-000 17",
            "biloom trace runs/quickstart/prepare --text 'a strange sentence'",
        ),
        details="One line per document, with columns separated by tabs: shard and number; split, or "
        "why it was dropped and its earlier duplicate; source; file and place, as in dropped-*.jsonl. "
        "--file, --id and --text also list the documents that were dropped as duplicates of those "
        "found. Exits with 1 if no document is found.",
    ),
    "score": Command(
        "print the log-probability and perplexity of each text",
        _score,
        {
            "file": {
                "metavar": "FILE",
                "nargs": "?",
                "default": "-",
                "help": "file with one text per line (default: standard input)",
            },
            "--model": {
                "default": "biloom-run/export",
                "help": "model folder (default: %(default)s)",
            },
        },
        (
            "biloom score sentences.txt --model runs/quickstart/export",
            "echo 'Is this likely?' | biloom score --model runs/quickstart/export",
        ),
        details="One line per text, with columns separated by tabs: tokens; forward and backward "
        "log-probability in nats, and their mean; forward, backward and average perplexity; "
        "unknown tokens.",
    ),
    **TASK_COMMANDS,
    "cache": Group("inspect, check or convert a vector cache", _CACHE),
    "import-elmo": Command(
        "convert an ELMo archive or an ELMoForManyLangs model to a model folder",
        _import_elmo,
        {
            "sources": {
                "metavar": "SOURCE",
                "nargs": "+",
                "help": "options.json and weights.hdf5, or the folder of an ELMoForManyLangs model",
            },
            "folder": {"metavar": "FOLDER", "help": "model folder to write"},
            "--vocabulary": {
                "metavar": "FILE",
                "help": "for an archive: vocabulary of bilm-tf, one word per line",
            },
        },
        (
            "biloom import-elmo options.json weights.hdf5 models/elmo --vocabulary vocab.txt",
            "biloom import-elmo zhs.model models/chinese",
        ),
    ),
    "export-elmo": Command(
        "convert a model folder to an ELMo archive",
        _export_elmo,
        {
            "model": {"metavar": "MODEL", "help": "model folder with a character CNN"},
            "folder": {
                "metavar": "FOLDER",
                "help": "where options.json and weights.hdf5 are written",
            },
        },
        (
            "biloom export-elmo models/elmo elmo-archive",
            "biloom export-elmo runs/elmo-original/export elmo-archive",
        ),
    ),
    "export-onnx": EXPORT_ONNX,
    "shrink": SHRINK,
    "distill": DISTILL,
    "serve": SERVE,
    "completion": Command(
        "print the script that completes commands and settings in a shell",
        _completion,
        {"shell": {"choices": ("bash", "zsh", "fish"), "help": "the shell"}},
        (
            "biloom completion bash > ~/.local/share/bash-completion/completions/biloom",
            "biloom completion fish > ~/.config/fish/completions/biloom.fish",
        ),
        details="For zsh, write it as _biloom into a folder of $fpath.",
    ),
}
