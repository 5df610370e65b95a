"""The command `look`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command


def _look(options: Namespace) -> int:
    from pipeline.commands.look.look import look

    return look(options.words, options.seed, options.as_json)


LOOK = Command(
    "show what an input contains before anything is run",
    _look,
    {
        "words": {
            "nargs": "+",
            "metavar": "INPUT|CONFIG|KEY=VALUE",
            "help": "path, glob, folder or URL of raw text; or a config whose prepare.input is read; a "
            "setting of a config or of a source, such as text_field=body",
        },
        "--seed": {
            "type": int,
            "default": 1,
            "metavar": "N",
            "help": "seed of the sample (default: %(default)s)",
        },
        "--json": {
            "action": "store_true",
            "dest": "as_json",
            "help": "print one JSON object instead",
        },
    },
    (
        "biloom look 'text/*.txt'",
        "biloom look crawl.jsonl.gz text_field=body.text prepare.near_duplicates.similarity=0.8",
    ),
    {
        "text_field, format, encoding, document": "settings of the source that INPUT is",
        "prepare.filters": "what would be dropped",
        "tokenizer.kind, tokenizer.vocabulary": "tokenizer, for the estimates",
        "runner.options.workers": "workers, for the estimates",
    },
    "Reads a sample: at most 64 MB of the files, and 64 million characters of their text. Shows the "
    "files by name and content, the documents and their lengths, scripts and languages, what would be "
    "refused or left out, the first documents as prepare would write them, and estimates of the time, "
    "memory and disk of prepare. Writes nothing.",
)
