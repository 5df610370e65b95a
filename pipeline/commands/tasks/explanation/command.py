"""The command `biloom explain`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command
from pipeline.commands.tasks.settings import PRINT_CONFIG, file_and_settings, print_settings


def _explain(options: Namespace) -> int:
    from lightning_modules.tasks.explanation.config import ExplainConfig

    file, settings = file_and_settings(options.words, ExplainConfig.model_fields)
    if options.json:
        settings.append("output=jsonl")
    if options.print_config:
        return print_settings(ExplainConfig, settings)
    from pipeline.commands.tasks.explanation.explain import explain

    explain(options.path, file, options.text or (), options.model, options.page, settings)
    return 0


EXPLAIN = Command(
    "show why a classifier chooses a label, or what surprises a language model",
    _explain,
    {
        "path": {
            "metavar": "TASK_OR_MODEL",
            "help": "folder of a classifier or of a language model",
        },
        "words": {
            "metavar": "FILE|KEY=VALUE",
            "nargs": "*",
            "help": "file of texts (default: standard input), and settings",
        },
        "--text": {
            "metavar": "TEXT",
            "action": "append",
            "help": "a text, in place of a file; may be given several times",
        },
        "--model": {
            "metavar": "DIR",
            "help": "language model of the task (default: that of the training)",
        },
        "--page": {"metavar": "FILE", "help": "also write the coloured texts to this HTML file"},
        "--json": {"action": "store_true", "help": "print an object for each text (output=jsonl)"},
        "--print-config": PRINT_CONFIG,
    },
    (
        "biloom explain tasks/sentiment reviews.tsv --page why.html",
        "biloom explain runs/quickstart/export --text 'Is this likely?'",
    ),
    {
        "method": "integrated_gradients, gradient_x_input or occlusion",
        "for_label": "label to explain (default: the predicted one)",
        "by": "word or token",
        "scale": "bits or nats, for a language model",
        "most_tokens": "tokens of a text that a classifier is explained for",
        "text, pair": "columns or fields of the texts (default: as in training)",
        "device": "auto, cpu or cuda",
    },
    "For a classifier, each word gets its share of the log-odds of the label. For a language model, each "
    "word gets its -log p in each direction, and the norm of the gradient of the text's loss.",
)
