"""`biloom classify test` and `biloom classify predict`: a trained classifier in use."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_modules.tasks.classification.classifier import Classifier, Prediction
from lightning_modules.tasks.classification.config import ClassifyConfig, ClassifyUseConfig
from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.linear.regression import decide
from lightning_modules.tasks.classification.saved import SavedClassifier
from lightning_modules.tasks.classification.stored import load_classifier, read_classifier
from lightning_modules.tasks.classification.table import COLUMNS, cells, rows_by_label, score_row
from lightning_modules.tasks.stored_task import Task
from lightning_modules.tasks.tables import escape_field
from pipeline.commands.tasks.classification.data import ClassifyError, read_file, tell_labels
from pipeline.commands.tasks.classification.tables import (
    WIDE,
    show_scores_of_labels,
    value_cells,
    value_columns,
)
from pipeline.config.sections import load_section
from pipeline.console import Console
from pipeline.log import tell
from pipeline.training.device import resolve_device
from preprocess.reading.labelled.examples import InputText
from preprocess.reading.labelled.inputs import read_texts
from preprocess.reading.labelled.options import LabelledTextOptions

MOST_PROBABLE = 10
"""Labels in a JSON object if there are many."""


def classify_test(task: str, file: str, model: str | None, overrides: Sequence[str]) -> None:
    """Print the scores of a classifier on labelled texts, beside those of the most frequent label.

    Args:
        task: folder or URL of the classifier.
        file: the labelled texts.
        model: folder of the language model; None means the one of the training.
        overrides: ``key=value`` settings of `ClassifyUseConfig`.

    Raises:
        UserError: a folder, a file or a setting is wrong.
    """
    found, trained, config, options = _opened(task, overrides)
    console = Console()
    if trained.kept_training:
        console.line(trained.kept_training)
    options = options.model_copy(update={"target": found.config.target})
    examples = read_file(file, options, console).examples
    classifier = load_classifier(found, model, resolve_device(config.device))
    problem = classifier.problem
    if any((one.pair is not None) != classifier.has_pairs for one in examples):
        raise ClassifyError(
            f"{file}: {_pairs(classifier)}; set pair=... to the column of the second text"
        )
    tell_labels(problem, examples, console)
    with console.bar("texts", len(examples)) as bar:
        rows = []
        for number, one in enumerate(examples, 1):
            rows.append(classifier.predict(one.text, one.pair))
            bar.update(number)
    predicted = decide(np.stack([row.probabilities for row in rows]), problem)
    truth = problem.truth(examples)
    most = decide(np.tile(classifier.prior, (len(examples), 1)), problem)
    table = [
        score_row(
            "mean of training" if problem.target == "number" else "most frequent in training",
            truth,
            [most],
            problem,
        ),
        score_row("classifier", truth, [predicted], problem),
    ]
    console.table(
        f"scores on {len(examples):,} texts, with 95 % intervals",
        ["", *COLUMNS[problem.target].values()],
        [cells(row, problem.target) for row in table],
    )
    show_scores_of_labels(console, rows_by_label(table[-1], truth, problem))
    if empty := sum(bool(row.note) for row in rows):
        console.warn(
            f"{empty:,} texts have no token; they were predicted from the training labels alone"
        )


def _pairs(classifier: Classifier) -> str:
    read = "pairs of texts" if classifier.has_pairs else "single texts"
    return f"this task classifies {read}, but the file has {'single texts' if classifier.has_pairs else 'pairs'}"


def classify_predict(task: str, file: str, model: str | None, overrides: Sequence[str]) -> None:
    """Print the prediction for each text of a file, or of standard input as it arrives.

    Args:
        task, model, overrides: as in `classify_test`.
        file: the texts; ``-`` reads standard input.

    Raises:
        UserError: a folder, a file or a setting is wrong.
    """
    found, trained, config, options = _opened(task, overrides)
    if trained.kept_training:
        tell(trained.kept_training)
    classifier = load_classifier(found, model, resolve_device(config.device))
    problem, total, empty = classifier.problem, 0, 0
    if config.output == "tsv":
        print("\t".join(map(escape_field, [*value_columns(problem), "note"])))
    for one in read_texts(file, options, tell):
        if not one.problem and (one.pair is not None) != classifier.has_pairs:
            raise ClassifyError(f"{file}: {one.place}: {_pairs(classifier)}")
        prediction = classifier.predict(one.text, one.pair, one.problem)
        total += 1
        empty += bool(prediction.note)
        print(_line(problem, one, prediction, config.output))
        if file == "-":
            sys.stdout.flush()
    if empty:
        tell(
            f"{empty:,} of {total:,} texts have no token; they were predicted from the training labels "
            "alone, see the notes"
        )


def _opened(
    task: str, overrides: Sequence[str]
) -> tuple[Task[SavedClassifier], ClassifyConfig, ClassifyUseConfig, LabelledTextOptions]:
    """Return a task, the settings of its training and of the command, and how to read its file."""
    config = load_section(ClassifyUseConfig, overrides)
    found = read_classifier(task)
    trained = found.config.settings
    own = {
        name: getattr(config, name)
        for name in LabelledTextOptions.model_fields
        if name in config.model_fields_set
    }
    # As in training, if it is not set; but the file may have another format than the training file.
    kept = {"text", "pair", "label", "labels", "separator", "strip_labels"}
    former = {name: getattr(trained, name) for name in kept}
    return found, trained, config, LabelledTextOptions(**{**former, **own})


def _line(problem: Problem, one: InputText, prediction: Prediction, output: str) -> str:
    if output == "tsv":
        row = value_cells(problem, prediction.labels, prediction.probabilities)
        return "\t".join(map(escape_field, [*row, prediction.note]))
    shown: dict[str, Any] = {"place": one.place}
    if problem.target == "number":
        shown["predicted"] = float(f"{prediction.probabilities[0]:.6g}")
    else:
        names = [*prediction.labels]
        shown["predicted"] = names if problem.target == "several" else names[0]
        order = np.argsort(-prediction.probabilities, kind="stable")
        if len(order) > WIDE:
            order = order[:MOST_PROBABLE]
        shown["probabilities"] = {
            problem.labels[label]: round(float(prediction.probabilities[label]), 4)
            for label in order
        }
    if prediction.note:
        shown["note"] = prediction.note
    shown["text"] = one.text
    if one.pair is not None:
        shown["pair"] = one.pair
    return json.dumps(shown, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
