"""`biloom classify train`: a classifier on the vectors of a language model, beside its baselines."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_modules.tasks.classification.baselines import Texts, bag_of_words, majority
from lightning_modules.tasks.classification.classifier import PRIOR, PooledHead
from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.examples import Truth
from lightning_modules.tasks.classification.linear import (
    Linear,
    decide,
    fit_linear,
    fit_mix,
    prior_of,
    probabilities,
)
from lightning_modules.tasks.classification.pooled import Pooled, Source, pooled_examples
from lightning_modules.tasks.classification.table import Row, score_row
from lightning_modules.tasks.folder import VERSION, TaskResult, stage_name, write_task
from lightning_modules.tasks.vector_source import VectorSource, open_vectors
from lightning_modules.vectors.selection import Unit
from pipeline.commands.tasks.classify_data import ClassifyError, Data, Side, read_data
from pipeline.commands.tasks.classify_tables import (
    card,
    metrics_of,
    prediction_columns,
    prediction_row,
    show_table,
)
from pipeline.config.sections import load_section
from pipeline.console import Bar, Console
from pipeline.lifecycle.stage import require
from pipeline.lifecycle.task_folder import make_task
from pipeline.training.device import resolve_device
from pipeline.version import biloom_version
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.fingerprint import plain
from preprocess.files.manifest import Manifest, hash_file, read_manifest
from preprocess.section import result_fields

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
    request = request_of(file, model, config)

    def make(work: str) -> Manifest:
        return _Training(file, model, config, console, work, request).run(out)

    make_task(out, request, make, console, overwrite)


def request_of(file: str, model: str, config: ClassifyConfig) -> dict[str, Any]:
    """Return what decides the result: settings, and the content of the files, the model and the cache.

    Raises:
        ClassifyError: a file does not exist, or both files are the same.
    """
    train, dev = _content(file), _content(config.dev) if config.dev else None
    if train == dev:
        raise ClassifyError(
            f"{config.dev}: the dev file has the content of the training file, so that its scores would "
            "say nothing about new text; name another file with dev=FILE, or leave dev out to hold a "
            "share of the training file out"
        )
    cache = read_manifest(config.cache, "embed").content if config.cache else None
    request: dict[str, Any] = plain(
        {
            "stage": COMMAND,
            "stage_version": VERSION,
            "train": train,
            "dev": dev,
            "model": read_manifest(model).content,
            "cache": cache,
            **result_fields(config, "classify"),
        }
    )
    return request


def _content(path: str) -> str:
    try:
        return hash_file(path)[1]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ClassifyError(
            f"{one_line(path)}: {error.strerror or 'no such file'}; name a file of labelled texts"
        ) from error


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
        opened = open_vectors(self.model, config.cache)
        source = source_of(opened, config)
        if config.baselines:
            self._bags(data)
        train, dev = self._vectors(data, source)
        self._tell_empty(data, train, dev)
        used = np.flatnonzero(train.lengths)
        if config.baselines:
            self._layers(data, train, dev, used)
        head, predicted = self._pool(data, train, dev, used)
        prior = prior_of(data.train.truth, data.problem)
        metrics = metrics_of(self.rows, data, head.linear.mix)
        show_table(console, self.rows, data, metrics)
        import torch

        result = TaskResult(
            kind="classify",
            config={
                "settings": config.model_dump(mode="json"),
                "target": data.problem.target,
                "pairs": data.train.pairs is not None,
                "unit": source.unit,
                "pooling": source.pooling,
                "text_pooling": source.text_pooling,
                "head": {"kind": config.head, **head.config()},
            },
            labels=data.problem.labels,
            tensors={**head.tensors(), PRIOR: torch.from_numpy(prior)},
            metrics=metrics,
            columns=prediction_columns(data),
            predictions=[
                prediction_row(data, number, predicted[number], int(dev.lengths[number]))
                for number in range(len(data.dev.examples))
            ],
            model=opened.reference,
            card=card(self.file, config, data, self.rows, metrics, opened.reference),
            bundle=config.bundle,
        )
        return write_task(out, result, self.request, biloom_version())

    def _bags(self, data: Data) -> None:
        """Score the most frequent label and TF-IDF."""
        train, dev, problem = data.train, data.dev, data.problem
        for found in (
            majority(train.truth, problem, len(dev.examples)),
            bag_of_words(
                Texts(train.texts, train.pairs),
                train.truth,
                Texts(dev.texts, dev.pairs),
                problem,
                self.config.class_weights,
                self.config.seed,
            ),
        ):
            self._score(found.name, data, found.predicted)

    def _vectors(self, data: Data, source: Source) -> tuple[Pooled, Pooled]:
        """Return the pooled vectors of train and dev; those of dev as a prediction computes them."""
        texts = sum(len(side.examples) for side in (data.train, data.dev))
        texts *= 1 if data.train.pairs is None else 2
        start = time.monotonic()
        with self.console.bar("vectors", texts) as bar:
            meter = _Meter(bar)
            train = _pooled(source, data.train, None, meter)
            speed = meter.units / max(time.monotonic() - start, 1e-9)
            dev = _pooled(source, data.dev, 1, meter)
        self.console.line(
            f"vectors of {meter.units:,} {source.unit}s; {speed:,.0f} {source.unit}s/s"
        )
        return train, dev

    def _tell_empty(self, data: Data, train: Pooled, dev: Pooled) -> None:
        """Print how many texts have no tokens."""
        empty = [int((side.lengths == 0).sum()) for side in (train, dev)]
        data.figures.update({"empty_in_train": empty[0], "empty_in_dev": empty[1]})
        if empty[0] == len(train.lengths):
            raise ClassifyError(
                f"{self.file}: no training text has a token; check the column text=..."
            )
        if empty[0]:
            self.console.warn(f"{empty[0]:,} training texts have no token; they are not trained on")
        if empty[1]:
            self.console.warn(
                f"{empty[1]:,} dev texts have no token; the most frequent label is predicted for them"
            )

    def _layers(
        self, data: Data, train: Pooled, dev: Pooled, used: np.ndarray[Any, np.dtype[np.int64]]
    ) -> None:
        """Score logistic regression on each layer, and on their mix."""
        depth = train.vectors.shape[1]
        for layer in range(depth):
            head = self._fit(data, train, used, (layer,))
            name = f"layer {layer}" + (" (no context)" if not layer else "")
            self._score(name, data, self._predict(data, head, dev)[1])
        if depth > 1:
            head = self._fit(data, train, used, tuple(range(depth)), mix=True)
            assert head.linear.mix is not None, "fit_mix learns weights"
            weights = ", ".join(f"{weight:.2f}" for weight in head.linear.mix)
            self._score(f"mix of the layers ({weights})", data, self._predict(data, head, dev)[1])

    def _pool(
        self, data: Data, train: Pooled, dev: Pooled, used: np.ndarray[Any, np.dtype[np.int64]]
    ) -> tuple[PooledHead, Truth]:
        """Train and score head=pool; return it, and the probabilities of the dev texts."""
        layers, depth = self.config.layers, train.vectors.shape[1]
        chosen = tuple(range(depth))
        if isinstance(layers, int):
            if not -depth <= layers < depth:
                raise ClassifyError(
                    f"layers={layers}: this model has no such layer; its layers are 0 (the input) to "
                    f"{depth - 1}"
                )
            chosen = (layers % depth,)
        head = self._fit(data, train, used, chosen, layers == "mix", layers == "mean")
        found, decided = self._predict(data, head, dev)
        what = f"layer {chosen[0]}" if isinstance(layers, int) else f"{layers} of the layers"
        self._score(f"pool ({what}, {self.config.pooling}): {head.linear.method}", data, decided)
        return head, found

    def _fit(
        self,
        data: Data,
        train: Pooled,
        used: np.ndarray[Any, np.dtype[np.int64]],
        layers: tuple[int, ...],
        mix: bool = False,
        mean: bool = False,
    ) -> PooledHead:
        vectors, truth = train.vectors[used], data.train.truth[used]
        options = (truth, data.problem, self.config.class_weights, self.config.seed)
        if mix:
            return PooledHead(fit_mix(vectors, *options), layers, False)
        head = PooledHead(Linear(np.zeros((0, 0)), np.zeros(0), 0.0, ""), layers, mean)
        return PooledHead(fit_linear(head.features(vectors), *options), layers, mean)

    def _predict(self, data: Data, head: PooledHead, dev: Pooled) -> tuple[Truth, Truth]:
        """Return the probabilities (n, k) and the predictions for the dev texts."""
        outputs = head.linear.outputs(head.features(dev.vectors))
        found = probabilities(outputs, data.problem)
        found[dev.lengths == 0] = prior_of(data.train.truth, data.problem)
        return found, decide(found, data.problem)

    def _score(self, name: str, data: Data, *predicted: Truth) -> None:
        self.rows.append(score_row(name, data.dev.truth, predicted, data.problem))
        self.console.line(f"scored {one_line(name)}")


class _Meter:
    """Counts texts and units for a bar."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self.texts = self.units = 0

    def __call__(self, texts: int, units: int) -> None:
        self.texts += texts
        self.units += units
        self._bar.update(self.texts)


def _pooled(source: Source, side: Side, block: int | None, meter: _Meter) -> Pooled:
    if block is None:
        return pooled_examples(source, side.texts, side.pairs, advance=meter)
    return pooled_examples(source, side.texts, side.pairs, block, meter)


def source_of(opened: VectorSource, config: ClassifyConfig) -> Source:
    """Return where the vectors of a training come from.

    Raises:
        ClassifyError: the cache does not have the vectors that a prediction computes.
    """
    model, cache = opened.model, opened.cache
    if model is not None:
        model.to(resolve_device(config.device))
    if cache is None:
        return Source(model, None, config.unit or "token", config.pooling)
    made = cache.manifest.details["vectors"]
    if made["layers"] != "all":
        raise ClassifyError(
            f"{cache.path}: this vector cache has not all layers (embed.layers={made['layers']}); make one "
            "with embed.layers=all"
        )
    if made["warm_up"]:
        raise ClassifyError(
            f"{cache.path}: this vector cache was made with embed.warm_up=true, but predictions read a "
            "text from the zero state; make one with embed.warm_up=false"
        )
    unit: Unit = config.unit or cache.unit  # type: ignore[assignment]
    return Source(model, cache, unit, config.pooling, made["pooling"])
