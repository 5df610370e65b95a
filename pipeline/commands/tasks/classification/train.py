"""`biloom classify train`: a classifier on the vectors of a language model, beside its baselines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lightning_modules.tasks.classification.classifier import PRIOR
from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.examples import Truth
from lightning_modules.tasks.classification.linear.baselines import Texts, bag_of_words, majority
from lightning_modules.tasks.classification.linear.regression import decide, prior_of
from lightning_modules.tasks.classification.table import Row, score_row
from lightning_modules.tasks.folder import TaskResult, stage_name, write_task
from lightning_modules.tasks.vector_source import open_vectors
from pipeline.commands.tasks.classification.data import ClassifyError, Data, read_data
from pipeline.commands.tasks.classification.heads import (
    check_layers,
    decisions,
    fit_pooled,
    predict_pooled,
    train_network,
    train_pooled,
)
from pipeline.commands.tasks.classification.tables import (
    card,
    metrics_of,
    prediction_columns,
    prediction_row,
    show_table,
)
from pipeline.commands.tasks.classification.vectors import Vectors, source_of, vectors_of
from pipeline.commands.tasks.request import check_unchanged, request_of
from pipeline.config.sections import load_section
from pipeline.console import Console
from pipeline.lifecycle.stage import require
from pipeline.lifecycle.task_folder import make_task
from pipeline.version import biloom_version
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.manifest import Manifest

COMMAND = stage_name("classify")
NEEDS = {"sklearn": "tasks", "pytorch_lightning": "tasks"}


def classify_train(
    file: str, model: str, out: str, overrides: Sequence[str], overwrite: bool = False
) -> None:
    """Train a classifier, print its scores and those of the baselines, and write its folder.

    Args:
        file: the labelled texts.
        model: folder or URL of a model or of a vector cache.
        out: folder or URL to write.
        overrides: ``key=value`` settings of `ClassifyConfig`.
        overwrite: move a result that was made with another request aside.

    Raises:
        UserError: a setting, a file or the model is wrong; the message says what to do.
    """
    config = load_section(ClassifyConfig, overrides)
    require(COMMAND, NEEDS)
    console = Console()
    console.stage(COMMAND, storage.absolute(out))
    request = request_of("classify", file, model, config)

    def make(work: str) -> Manifest:
        return _Training(file, model, config, console, work, request).run(out)

    make_task(out, request, make, console, overwrite)


@dataclass
class _Training:
    """One run of the command.

    Attributes:
        rows: the rows of the table so far.
    """

    file: str
    model: str
    config: ClassifyConfig
    console: Console
    work: str
    request: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def run(self, out: str) -> Manifest:
        config, console = self.config, self.console
        data = read_data(self.file, config, console)
        check_unchanged(self.request, self.file, config)
        opened = open_vectors(self.model, config.cache)
        source = source_of(opened, config)
        check_layers(config, source.depth)
        if config.baselines:
            self._bags(data)
        is_network = config.head != "pool"
        vectors = vectors_of(data, source, is_network and not config.finetune, console)
        self._tell_empty(data, vectors)
        if config.baselines:
            self._layers(data, vectors)
        if is_network:
            head = train_network(data, vectors, source, config, self.work, console)
        else:
            head = train_pooled(data, vectors, config)
        self._score(head.name, data, *decisions(head, data))
        metrics = metrics_of(self.rows, data, head)
        show_table(console, self.rows, data, metrics)
        if config.kept_training:
            console.line(config.kept_training)
        prior = torch.from_numpy(prior_of(data.train.truth, data.problem))
        result = TaskResult(
            kind="classify",
            config={
                # `head` says what kind of network it is.
                "settings": config.model_dump(mode="json", exclude={"network": {"kind"}}),
                "target": data.problem.target,
                "pairs": data.train.pairs is not None,
                "unit": source.unit,
                "pooling": source.pooling,
                "text_pooling": source.text_pooling,
                "head": head.config,
            },
            labels=data.problem.labels,
            tensors={**head.tensors, PRIOR: prior},
            metrics=metrics,
            columns=prediction_columns(data),
            predictions=[
                prediction_row(data, number, found, int(units))
                for number, (found, units) in enumerate(
                    zip(head.probabilities[0], vectors.dev.lengths, strict=True)
                )
            ],
            model=opened.reference,
            card=card(self.file, config, data, self.rows, metrics, opened.reference),
            bundle=config.bundle,
        )
        return write_task(out, result, self.request, biloom_version())

    def _bags(self, data: Data) -> None:
        """Score the most frequent label and TF-IDF."""
        train, dev, problem, config = data.train, data.dev, data.problem, self.config
        most = majority(train.truth, problem, len(dev.examples))
        self._score(most.name, data, most.predicted)
        texts = Texts(train.texts, train.pairs), Texts(dev.texts, dev.pairs)
        bag = bag_of_words(
            texts[0], train.truth, texts[1], problem, config.class_weights, config.seed
        )
        self._score(bag.name, data, bag.predicted)

    def _tell_empty(self, data: Data, vectors: Vectors) -> None:
        """Print how many texts have no tokens.

        Raises:
            ClassifyError: no training text has one.
        """
        sides = (vectors.train, vectors.dev)
        train, dev = (int((side.lengths == 0).sum()) for side in sides)
        data.figures.update({"empty_in_train": train, "empty_in_dev": dev})
        if train == len(vectors.train.lengths):
            raise ClassifyError(f"{self.file}: no training text has a token; check text=...")
        if train:
            self.console.warn(f"{train:,} training texts have no token; they are not trained on")
        if dev:
            self.console.warn(
                f"{dev:,} dev texts have no token; they are predicted from the training labels alone"
            )

    def _layers(self, data: Data, vectors: Vectors) -> None:
        """Score a linear head on each layer, and on their mix."""
        depth = vectors.train.vectors.shape[1]
        for layer in range(depth):
            head = fit_pooled(data, vectors.train, self.config, (layer,))
            name = f"layer {layer}" + (" (no context)" if not layer else "")
            found = predict_pooled(data, head, vectors.dev)
            self._score(f"{name}, {self.config.pooling}", data, decide(found, data.problem))
        if depth > 1:
            head = fit_pooled(data, vectors.train, self.config, tuple(range(depth)), "mix")
            assert head.linear.mix is not None, "fit_mix learns weights"
            weights = ", ".join(f"{weight:.2f}" for weight in head.linear.mix)
            found = predict_pooled(data, head, vectors.dev)
            self._score(f"mix of the layers ({weights})", data, decide(found, data.problem))

    def _score(self, name: str, data: Data, *predicted: Truth) -> None:
        self.rows.append(score_row(name, data.dev.truth, predicted, data.problem))
        self.console.line(f"scored {one_line(name)}")
