"""The command `shrink`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command


def _shrink(options: Namespace) -> int:
    from pipeline.commands.smaller.shrink import Asked, shrink

    asked = Asked(*(getattr(options, name) for name in Asked._fields))
    shrink(options.model, options.folder, asked, options.corpus)
    return 0


SHRINK = Command(
    "write a smaller model folder from a model folder, without training",
    _shrink,
    {
        "model": {"metavar": "MODEL", "help": "model folder or URL, also of an imported model"},
        "folder": {"metavar": "FOLDER", "help": "model folder to write"},
        "--layers": {
            "metavar": "N",
            "type": int,
            "help": "number of recurrent layers to keep, the lowest ones; needs --no-head if the model has "
            "an output layer",
        },
        "--input-rank": {
            "metavar": "R",
            "type": int,
            "help": "rank of the input matrix, which is replaced by a product of two smaller ones",
        },
        "--vocabulary": {
            "metavar": "N",
            "type": int,
            "help": "number of ids of a word tokenizer to keep, the most frequent ones and three control tokens",
        },
        "--weights": {
            "choices": ("float32", "float16", "int8"),
            "help": "type of the stored weights (default: that of MODEL)",
        },
        "--corpus": {
            "metavar": "DIR",
            "help": "prepare folder of the training corpus, to show how many of its tokens become unknown with "
            "--vocabulary",
        },
        "--no-head": {"action": "store_true", "help": "leave the output layer out"},
    },
    (
        "biloom shrink runs/quickstart/export models/small --layers 1 --no-head",
        "biloom shrink s3://bucket/run/export models/small-int8 --no-head --weights int8",
    ),
    details="Prints the number of parameters before and after. The settings export.layers, "
    "export.input_rank and export.vocabulary of `biloom export` do the same from a checkpoint.",
)
