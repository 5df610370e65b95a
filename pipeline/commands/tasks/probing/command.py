"""The commands `probe`, `neighbours` and `map`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command
from pipeline.commands.tasks.settings import PRINT_CONFIG, SETTING, print_settings

_CACHE = {"path": {"metavar": "CACHE", "help": "folder or URL of a vector cache"}}
_JSON = {
    "--json": {"action": "store_true", "dest": "as_json", "help": "print one JSON object instead"}
}
_SETTINGS = {"settings": SETTING, "--print-config": PRINT_CONFIG}


def _probe(options: Namespace) -> int:
    from pipeline.config.probing import ProbeConfig
    from pipeline.config.sections import load_section

    if options.print_config:
        return print_settings(ProbeConfig, options.settings)
    settings = load_section(ProbeConfig, options.settings)
    from pipeline.commands.tasks.probing.probe import probe

    probe(options.file, options.model, settings, options.as_json)
    return 0


def _neighbours(options: Namespace) -> int:
    from pipeline.config.probing import NeighboursConfig
    from pipeline.config.sections import load_section

    if options.print_config:
        return print_settings(NeighboursConfig, options.settings)
    settings = load_section(NeighboursConfig, options.settings)
    from pipeline.commands.tasks.probing.neighbours import neighbours

    neighbours(options.path, options.text, settings, options.model, options.index, options.as_json)
    return 0


def _map(options: Namespace) -> int:
    from pipeline.config.probing import MapConfig
    from pipeline.config.sections import load_section

    if options.print_config:
        return print_settings(MapConfig, options.settings)
    settings = load_section(MapConfig, options.settings)
    from pipeline.commands.tasks.probing.map import draw_map

    draw_map(options.path, options.page, options.word, options.texts, settings)
    return 0


PROBE = Command(
    "test what the layers of a model encode, with control tasks",
    _probe,
    {
        "file": {
            "metavar": "FILE",
            "help": "CoNLL or CoNLL-U file of tagged sentences (or see task)",
        },
        "--model": {
            "metavar": "DIR",
            "default": "biloom-run/export",
            "help": "model folder (default: %(default)s)",
        },
        **_JSON,
        **_SETTINGS,
    },
    (
        "biloom probe train.conll --model runs/quickstart/export dev=dev.conll column=2",
        "biloom probe senses.tsv --model runs/quickstart/export task=senses",
    ),
    {
        "column": "column of the tags, by name or number from 1",
        "dev": "file to test on; default: a share of the sentences (dev_share)",
        "control": "false: no control task",
        "task": "tags, senses (word senses) or wic (same sense in two texts)",
    },
    details="Prints the accuracy of a linear classifier on each layer, beside that of a control "
    "task with random labels of words; their difference is the selectivity.",
)

NEIGHBOURS = Command(
    "find the nearest uses of a word in its context, or the nearest texts",
    _neighbours,
    {
        **_CACHE,
        "text": {
            "metavar": "TEXT",
            "help": "a text with the word in brackets, such as 'the [bank] of the river'; "
            "without brackets, the nearest texts are found",
        },
        "--model": {
            "metavar": "DIR",
            "help": "model of the cache (default: the export folder beside it, or as in its config)",
        },
        "--index": {
            "metavar": "DIR",
            "help": "search by an approximate index in this folder, which is made if it is missing",
        },
        **_JSON,
        **_SETTINGS,
    },
    (
        "biloom neighbours runs/quickstart/embed 'the [value] of the argument'",
        "biloom neighbours runs/quickstart/embed 'How do I install a package?'",
    ),
    {
        "layer": "layer of the cache; -1 is the last",
        "neighbours": "maximum number of results in each list",
    },
    details="Shows uses of the same word, uses of other words, and the nearest words without "
    "context.",
)

MAP = Command(
    "draw the uses of words, or texts, as points on a page",
    _map,
    {
        **_CACHE,
        "--page": {"metavar": "FILE", "required": True, "help": "HTML file to write"},
        "--word": {
            "metavar": "WORD",
            "action": "append",
            "default": [],
            "help": "show the uses of this word; may be repeated (default: words with distinct uses)",
        },
        "--texts": {"action": "store_true", "help": "show texts instead of words"},
        **_SETTINGS,
    },
    (
        "biloom map runs/quickstart/embed --page map.html --texts",
        "biloom map runs/quickstart/embed --page map.html --texts method=tsne points=500",
    ),
    {
        "method": "pca or tsne (needs openTSNE)",
        "points": "maximum number of points; more are sampled by the seed",
        "labels": "file of labelled texts; each text gets the colour of its label",
        "layer": "layer of the cache; -1 is the last",
    },
    details="The text of a point is shown under the mouse. The page needs no server.",
)
