"""The command `distill`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command


def _distill(options: Namespace) -> int:
    from pipeline.commands.distillation.static import StaticRequest, distill_static

    request = StaticRequest(
        options.model,
        tuple(options.cache or ()),
        tuple(options.input or ()),
        options.layers,
        options.dim,
        options.weights,
    )
    distill_static(request, options.out)
    return 0


DISTILL = Command(
    "make a smaller model from a trained one",
    _distill,
    {
        "--model": {
            "metavar": "MODEL",
            "required": True,
            "help": "the trained model: a path or URL, or a repository of the Hugging Face hub",
        },
        "--to": {
            "choices": ("static",),
            "required": True,
            "help": "static: a table with the mean contextual vector of each type, without recurrent layers",
        },
        "--out": {
            "metavar": "FOLDER",
            "required": True,
            "help": "model folder to write, a path or URL",
        },
        "--cache": {
            "metavar": "CACHE",
            "action": "append",
            "help": "vector cache of the model (biloom embed) with one vector per token; may be repeated",
        },
        "--input": {
            "metavar": "PATH",
            "nargs": "+",
            "help": "in place of --cache: files, folders, globs or URLs of text to embed",
        },
        "--layers": {
            "metavar": "LAYER",
            "default": "top",
            "help": "vectors to average: top (layer), average (of all layers), or the number of a layer "
            "(default: %(default)s)",
        },
        "--dim": {
            "metavar": "N",
            "type": int,
            "help": "reduce the vectors to N principal components (default: the model's width)",
        },
        "--weights": {
            "choices": ("float32", "float16", "int8"),
            "default": "float32",
            "help": "type of the stored vectors (default: %(default)s)",
        },
    },
    (
        "biloom distill --model runs/quickstart/export --to static --cache runs/quickstart/embed "
        "--out runs/quickstart/static",
        "biloom distill --model runs/quickstart/export --to static --input sentences.txt --weights int8 "
        "--out runs/quickstart/small",
    ),
    details="The result is an ordinary model folder. Give either --cache or --input. A cache is read shard by "
    "shard; text from --input is embedded on the CPU with one thread, and its vectors are not kept.",
)
