"""The commands of `biloom classify`. Imports nothing that is slow to load."""

from argparse import Namespace

from pipeline.commands.command import Command, Group
from pipeline.commands.tasks.settings import (
    PRINT_CONFIG,
    SETTING,
    file_and_settings,
    print_settings,
)

SETTINGS = {
    "dev": "labelled texts that are scored (default: a share of FILE)",
    "text, label": "columns or fields of the text and of its label",
    "labels": "column or field of any number of labels",
    "pair": "column or field of the second text of a pair",
    "target": "single, several or number (a regression)",
    "head": "pool (logistic regression), lstm, gru or cnn",
    "layers": "layers that head=pool reads: concat, mean, mix or a number",
    "class_weights": "balanced: rare labels count as much as frequent ones",
    "baselines": "false: train and score the head only",
    "cache": "vector cache, beside --model",
    "bundle": "true: copy the language model into the folder",
}
USE_SETTINGS = {
    "text, pair": "columns or fields of the texts (default: as in training)",
    "label": "column or field of the labels of a test file",
    "format": "tsv, csv, fasttext, jsonl, ... (default: from the content)",
    "output": "tsv or jsonl",
    "device": "auto, cpu or cuda",
}
MODEL = {
    "metavar": "DIR",
    "help": "model folder (default: that of the training)",
}
TASK = {"metavar": "TASK", "help": "folder that `biloom classify train` wrote"}


def _train(options: Namespace) -> int:
    if options.print_config:
        from lightning_modules.tasks.classification.config import ClassifyConfig

        return print_settings(ClassifyConfig, options.settings)
    from pipeline.commands.tasks.classification.train import classify_train

    classify_train(options.file, options.model, options.out, options.settings, options.overwrite)
    return 0


def _test(options: Namespace) -> int:
    from pipeline.commands.tasks.classification.use import classify_test

    classify_test(options.task, options.file, options.model, options.settings)
    return 0


def _predict(options: Namespace) -> int:
    from lightning_modules.tasks.classification.config import ClassifyUseConfig
    from pipeline.commands.tasks.classification.use import classify_predict

    file, settings = file_and_settings(options.words, ClassifyUseConfig.model_fields)
    classify_predict(options.task, file, options.model, settings)
    return 0


CLASSIFY = Group(
    "train, test or use a classifier of texts",
    {
        "train": Command(
            "train a classifier on the vectors of a language model",
            _train,
            {
                "file": {
                    "metavar": "FILE",
                    "help": "labelled texts: TSV, CSV, fastText, JSON Lines, Parquet, or lines that "
                    "begin with a label",
                },
                "settings": SETTING,
                "--model": {
                    "metavar": "DIR",
                    "required": True,
                    "help": "model folder, or a vector cache of the texts",
                },
                "--out": {"metavar": "DIR", "required": True, "help": "folder to write"},
                "--overwrite": {
                    "action": "store_true",
                    "help": "move a result made with other settings aside",
                },
                "--print-config": PRINT_CONFIG,
            },
            (
                "biloom classify train reviews.tsv --model runs/base/export --out tasks/reviews",
                "biloom classify train train.jsonl --model runs/base/export --out tasks/topics "
                "dev=dev.jsonl head=lstm",
            ),
            SETTINGS,
            "Prints the scores of the most frequent label, of TF-IDF, of each layer, of the mix of the "
            "layers and of the head, on texts that are not trained on. A finished training is not run "
            "again; an interrupted one is resumed by the same command.",
        ),
        "test": Command(
            "score a classifier on a file of labelled texts",
            _test,
            {
                "task": TASK,
                "file": {"metavar": "FILE", "help": "labelled texts, as for training"},
                "settings": SETTING,
                "--model": MODEL,
            },
            (
                "biloom classify test tasks/reviews test.tsv",
                "biloom classify test tasks/reviews test.tsv --model moved/export",
            ),
            USE_SETTINGS,
        ),
        "predict": Command(
            "print the labels of texts, with probabilities",
            _predict,
            {
                "task": TASK,
                "words": {
                    "metavar": "FILE|KEY=VALUE",
                    "nargs": "*",
                    "help": "one text per line, or any format of labelled texts (default: - for standard "
                    "input); settings",
                },
                "--model": MODEL,
            },
            (
                "biloom classify predict tasks/reviews texts.txt > predictions.tsv",
                "echo 'A fine film.' | biloom classify predict tasks/reviews output=jsonl",
            ),
            USE_SETTINGS,
            "One line per text, in order. The prediction for a text depends on that text alone.",
        ),
    },
)
