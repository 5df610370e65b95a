"""The commands of `biloom tag`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command, Group
from pipeline.commands.tasks.settings import (
    PRINT_CONFIG,
    SETTING,
    file_and_settings,
    print_settings,
)

WORDS = "FILE|KEY=VALUE"
SETTINGS = {
    "dev": "sentences that choose the best epoch (default: a share of FILE)",
    "column": "column of the tags: a number from 1, or a name",
    "join": "how tokens become the text that the language model reads",
    "scheme": "tag scheme inside the tagger",
    "baselines": "false: neither baseline nor the tagger without the model",
    "finetune": "true: then also train the language model",
    "segmenter": "finds words of plain text in predict: jieba, fugashi, pythainlp",
    "seeds": "number of trainings, whose scores are averaged",
    "train.epochs": "largest number of passes over FILE",
    "network.hidden": "size of the LSTM",
    "bundle": "true: copy the language model into the folder",
}
USE_SETTINGS = {
    "column": "column of the tags of a test file",
    "format": "conll, conllu, jsonl or json (default: from the content)",
    "split": "how plain text is cut into tokens",
    "segmenter": "finds words of text without spaces: jieba, fugashi, pythainlp",
    "output": "jsonl or conll",
    "device": "auto, cpu or cuda",
}
MODEL = {
    "metavar": "DIR",
    "help": "model folder, or a vector cache of words (default: the model of the training)",
}
TASK = {"metavar": "TASK", "help": "folder that `biloom tag train` wrote"}


def _train(options: Namespace) -> int:
    from lightning_modules.tasks.tagging.config import TagConfig

    if options.print_config:
        return print_settings(TagConfig, options.settings)
    from pipeline.lifecycle.stage import require

    require("tag train", {"pytorch_lightning": "tasks"})
    from pipeline.commands.tasks.tagging.train import tag_train

    tag_train(options.file, options.model, options.out, options.settings, options.overwrite)
    return 0


def _test(options: Namespace) -> int:
    from lightning_modules.tasks.tagging.config import TagUseConfig

    if options.print_config:
        return print_settings(TagUseConfig, options.settings)
    from pipeline.commands.tasks.tagging.use import tag_test

    tag_test(options.task, options.file, options.model, options.settings)
    return 0


def _predict(options: Namespace) -> int:
    from lightning_modules.tasks.tagging.config import TagUseConfig

    file, settings = file_and_settings(options.words, TagUseConfig.model_fields)
    if options.print_config:
        return print_settings(TagUseConfig, settings)
    from pipeline.commands.tasks.tagging.use import tag_predict

    tag_predict(options.task, file, options.model, settings)
    return 0


TAG = Group(
    "train, test or use a tagger of words, such as a recogniser of names",
    {
        "train": Command(
            "train a tagger on the vectors of a language model",
            _train,
            {
                "file": {
                    "metavar": "FILE",
                    "help": "sentences: CoNLL columns, CoNLL-U, or JSON Lines with spans",
                },
                "settings": SETTING,
                "--model": {
                    "metavar": "DIR",
                    "required": True,
                    "help": "model folder, or a vector cache of words",
                },
                "--out": {"metavar": "DIR", "required": True, "help": "folder to write"},
                "--overwrite": {
                    "action": "store_true",
                    "help": "move a result made with other settings aside",
                },
                "--print-config": PRINT_CONFIG,
            },
            (
                "biloom tag train eng.train --model runs/base/export --out tasks/names "
                "dev=eng.testa",
                "biloom tag train eng.train --model runs/base/export --out tasks/pos column=2",
            ),
            SETTINGS,
            "Prints the scores of the most frequent tag of each word, of a tagger without the language "
            "model, and of one with it. An interrupted training is resumed by the same command.",
        ),
        "test": Command(
            "score a tagger on a file of tagged sentences",
            _test,
            {
                "task": TASK,
                "file": {"metavar": "FILE", "help": "tagged sentences, as for training"},
                "settings": {"metavar": "KEY=VALUE", "nargs": "*", "help": "a setting"},
                "--model": MODEL,
                "--print-config": PRINT_CONFIG,
            },
            (
                "biloom tag test tasks/names eng.testb",
                "biloom tag test tasks/names eng.testb --model moved/export",
            ),
            USE_SETTINGS,
            "Spans are counted as conlleval does, and beside it as in seqeval's strict mode.",
        ),
        "predict": Command(
            "print the tags and spans of sentences",
            _predict,
            {
                "task": TASK,
                "words": {
                    "metavar": WORDS,
                    "nargs": "*",
                    "help": "plain text with one sentence per line, or sentences with tokens (default: "
                    "- for standard input); settings",
                },
                "--model": MODEL,
                "--print-config": PRINT_CONFIG,
            },
            (
                "biloom tag predict tasks/names sentences.txt > spans.jsonl",
                "echo 'Anna lives in Oslo.' | biloom tag predict tasks/names output=conll",
            ),
            USE_SETTINGS,
            "One JSON object per sentence, with its spans by tokens and by characters.",
        ),
    },
)
