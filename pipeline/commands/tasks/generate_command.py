"""The entry of `biloom generate` in the list of commands."""

from argparse import Namespace

from pipeline.commands.command import Command


def _generate(options: Namespace) -> int:
    from lightning_modules.evaluation.generation import Sampling
    from pipeline.commands.tasks.generate import print_generated

    names = ("tokens", "temperature", "top_k", "top_p", "seed", "direction")
    sampling = Sampling(**{name: getattr(options, name) for name in names})
    print_generated(options.model, options.prompt, sampling, options.number)
    return 0


GENERATE = Command(
    "print text sampled from a language model",
    _generate,
    {
        "--model": {
            "default": "biloom-run/export",
            "help": "model folder (default: %(default)s)",
        },
        "--prompt": {
            "metavar": "TEXT",
            "default": "",
            "help": "text to continue (default: the start of a text)",
        },
        "--tokens": {
            "metavar": "N",
            "type": int,
            "default": 100,
            "help": "largest number of tokens (default: %(default)s)",
        },
        "--temperature": {
            "metavar": "T",
            "type": float,
            "default": 1.0,
            "help": "below 1: likelier tokens; 0: the most probable token (default: %(default)s)",
        },
        "--top-k": {
            "metavar": "K",
            "type": int,
            "help": "draw from the K most probable tokens (default: all)",
        },
        "--top-p": {
            "metavar": "P",
            "type": float,
            "default": 1.0,
            "help": "draw from the most probable tokens of total probability P "
            "(default: %(default)s)",
        },
        "--seed": {
            "metavar": "S",
            "type": int,
            "default": 1,
            "help": "the same seed gives the same texts (default: %(default)s)",
        },
        "--number": {
            "metavar": "N",
            "type": int,
            "default": 1,
            "help": "number of texts (default: %(default)s)",
        },
        "--direction": {
            "choices": ("forward", "backward"),
            "default": "forward",
            "help": "backward: read from right to left and write what stands before the prompt "
            "(default: %(default)s)",
        },
    },
    (
        "biloom generate --model runs/quickstart/export --prompt 'To install'",
        "biloom generate --model runs/quickstart/export --number 5 --temperature 0.8",
    ),
    details="One line per text. A text ends where the model ends it, or after --tokens tokens. The "
    "model needs its output layer (export.head=true, the default).",
)
