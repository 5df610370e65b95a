"""The command `distill`. Imports nothing that is slow to load."""

from argparse import Namespace
from collections.abc import Sequence

from pipeline.commands.command import Command
from preprocess.errors import UserError

STATIC_OPTIONS = ("cache", "input", "layers", "dim", "weights")
"""Options that only static vectors have."""


def _distill(options: Namespace) -> int:
    if options.to == "student":
        given = [f"--{name}" for name in STATIC_OPTIONS if getattr(options, name) is not None]
        _refuse(given, "student", "settings of the training, such as model.recurrent.hidden=64")
        from pipeline.commands.distillation.student import distill_student

        return distill_student(options.model, options.out, options.config, options.overwrite)
    _refuse(options.config + ["--overwrite"] * options.overwrite, "static", "its options")
    from pipeline.commands.distillation.static import StaticRequest, distill_static

    request = StaticRequest(
        options.model,
        tuple(options.cache or ()),
        tuple(options.input or ()),
        "top" if options.layers is None else options.layers,
        options.dim,
        options.weights or "float32",
    )
    distill_static(request, options.out)
    return 0


def _refuse(words: Sequence[str], to: str, instead: str) -> None:
    """Refuse words of the command line that only the other form has.

    Raises:
        UserError: there are such words.
    """
    if words:
        raise UserError(
            f"--to {to} does not take {', '.join(words)}; leave it out, and use {instead}"
        )


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
            "choices": ("static", "student"),
            "required": True,
            "help": "static: a table with the mean contextual vector of each type, without recurrent layers; "
            "student: a narrower or shallower model, trained with the first one as its teacher",
        },
        "--out": {
            "metavar": "FOLDER",
            "required": True,
            "help": "static: model folder to write; student: folder of the results, as run.output; a path or URL",
        },
        "--cache": {
            "metavar": "CACHE",
            "action": "append",
            "help": "static: vector cache of the model (biloom embed) with one vector per token; may be repeated",
        },
        "--input": {
            "metavar": "PATH",
            "action": "append",
            "help": "static, in place of --cache: file, folder, glob or URL of text to embed; may be repeated",
        },
        "--layers": {
            "metavar": "LAYER",
            "help": "static: vectors to average: top (layer), average (of all layers), or the number of a layer "
            "(default: top)",
        },
        "--dim": {
            "metavar": "N",
            "type": int,
            "help": "static: reduce the vectors to N principal components (default: the model's width)",
        },
        "--weights": {
            "choices": ("float32", "float16", "int8"),
            "help": "static: type of the stored vectors (default: float32)",
        },
        "--overwrite": {
            "action": "store_true",
            "help": "student: move results made with other settings aside",
        },
        "config": {
            "nargs": "*",
            "metavar": "CONFIG|KEY=VALUE",
            "help": "student: configs and settings, as `biloom train` takes them",
        },
    },
    (
        "biloom distill --model runs/quickstart/export --to static --cache runs/quickstart/embed "
        "--out runs/quickstart/static",
        "biloom distill --model runs/quickstart/export --to student --out runs/student quickstart "
        "train.corpus=runs/quickstart/prepare prepare.tokenizer=runs/quickstart/tokenizer "
        "model.recurrent.hidden=64 model.recurrent.projection=32",
    ),
    details="Static vectors are an ordinary model folder. Give either --cache or --input. A cache is read shard by "
    "shard; text from --input is embedded on the CPU with one thread, and its vectors are not kept. A student is "
    "trained, evaluated and exported; a finished stage is skipped, and an interrupted one resumed.",
)
