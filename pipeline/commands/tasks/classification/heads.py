"""Training of the chosen head of a classifier."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_modules.tasks.classification.classifier import PooledHead
from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.examples import Truth
from lightning_modules.tasks.classification.inputs import Inputs, TextInputs, VectorInputs
from lightning_modules.tasks.classification.linear.mix import fit_mix
from lightning_modules.tasks.classification.linear.regression import (
    Linear,
    decide,
    fit_linear,
    layer_features,
    prior_of,
    probabilities,
)
from lightning_modules.tasks.classification.network_head import network_tensors
from lightning_modules.tasks.classification.objectives import Objective
from lightning_modules.tasks.classification.pooled import Pooled, Source
from pipeline.commands.tasks.classification.data import ClassifyError, Data
from pipeline.commands.tasks.classification.vectors import Sides, Vectors
from pipeline.console import Console
from preprocess.files import storage
from preprocess.files.temporary import temporary_root

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainedHead:
    """A head that was trained.

    Attributes:
        name: its name in the table.
        config: what is needed beside the tensors to load it.
        tensors: its tensors.
        probabilities: those of the dev texts for each training, each (n, k).
        layer_weights: the learned weights of the layers; empty if they are not learned.
        figures: further metrics.
    """

    name: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    probabilities: tuple[Doubles, ...]
    layer_weights: tuple[float, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def with_prior(found: Doubles, data: Data, lengths: npt.NDArray[np.int64]) -> Doubles:
    """Return probabilities (n, k) of dev texts; for a text without tokens, the shares in training."""
    found = found.copy()
    found[lengths == 0] = prior_of(data.train.truth, data.problem)
    return found


def fit_pooled(
    data: Data,
    train: Pooled,
    config: ClassifyConfig,
    layers: tuple[int, ...],
    how: str = "concat",
) -> PooledHead:
    """Fit a linear head on the pooled vectors of texts that have tokens.

    Args:
        data: the examples.
        train: the vectors of the training texts.
        config: the settings.
        layers: the layers that it reads.
        how: "concat", "mean" or "mix", as in `ClassifyConfig.layers`.
    """
    used = np.flatnonzero(train.lengths)
    vectors, truth = train.vectors[used], data.train.truth[used]
    options = (truth, data.problem, config.class_weights, config.seed)
    linear: Linear
    if how == "mix":
        linear = fit_mix(vectors, *options)
    elif how == "mean":
        linear = fit_linear(vectors.mean(1), *options)
    else:
        linear = fit_linear(layer_features(vectors, layers), *options)
    return PooledHead(linear, layers, how == "mean")


def predict_pooled(data: Data, head: PooledHead, dev: Pooled) -> Doubles:
    """Return the probabilities of the dev texts, (n, k)."""
    outputs = head.linear.outputs(head.features(dev.vectors))
    return with_prior(probabilities(outputs, data.problem), data, dev.lengths)


def check_layers(config: ClassifyConfig, depth: int) -> None:
    """Raise ClassifyError if head=pool is to read a layer that the model does not have."""
    layers = config.layers
    if not isinstance(layers, str) and not -depth <= layers < depth:
        raise ClassifyError(
            f"layers={layers}: this model has no such layer; set layers to a number from 0 (the input) to "
            f"{depth - 1}, or to concat, mean or mix"
        )


def train_pooled(data: Data, vectors: Vectors, config: ClassifyConfig) -> TrainedHead:
    """Train head=pool, with layers that were checked by `check_layers`."""
    depth, layers = vectors.train.vectors.shape[1], config.layers
    chosen, how = tuple(range(depth)), "concat"
    if isinstance(layers, str):
        how = layers
    else:
        chosen = (layers % depth,)
    head = fit_pooled(data, vectors.train, config, chosen, how)
    found = predict_pooled(data, head, vectors.dev)
    what = f"{how} of the layers" if isinstance(layers, str) else f"layer {chosen[0]}"
    mix = head.linear.mix
    return TrainedHead(
        f"head=pool ({what}, {config.pooling}), {head.linear.method}",
        {"kind": "pool", **head.config()},
        head.tensors(),
        (found,),
        () if mix is None else tuple(mix.tolist()),
    )


def train_network(
    data: Data,
    vectors: Vectors,
    source: Source,
    config: ClassifyConfig,
    work: str,
    console: Console,
) -> TrainedHead:
    """Train head=lstm, gru or cnn once with each seed.

    A killed training continues from its last epoch.

    Args:
        data: the examples.
        vectors: their vectors; those of units are used unless the language model is trained.
        source: where vectors come from.
        config: the settings.
        work: folder or URL of unfinished work.
        console: where progress is shown.

    Raises:
        FitError: the training diverges, or its checkpoints are damaged.
    """
    # Imports Lightning, which takes seconds and which head=pool does not need.
    from lightning_modules.tasks.classification.training import LabelledData, train_head

    network, problem = config.trained_network, data.problem
    used = np.flatnonzero(vectors.train.lengths)
    truth = data.train.truth[used]
    train = _inputs(data.train.sides, vectors.train_units, source, config, used)
    dev = _inputs(data.dev.sides, vectors.dev_units, source, config, np.arange(len(data.dev.truth)))
    for name, inputs in (("training", train), ("dev", dev)):
        if inputs.cut:
            console.warn(
                f"{inputs.cut:,} {name} texts are longer than {network.most_units:,} {source.unit}s "
                "(network.most_units); the network reads their beginning"
            )
    assert source.depth, "a model has layers"
    seeds = range(config.seed, config.seed + config.seeds)
    steps = len(seeds) * config.train.epochs * -(-len(truth) // config.train.batch)
    with console.bar(f"head={config.head}", steps) as bar:
        runs = train_head(
            network,
            config.train,
            Objective(problem.target, truth, len(problem.labels), config.class_weights),
            (source.depth, source.dim),
            LabelledData(train, truth),
            LabelledData(dev, data.dev.truth),
            seeds,
            _local(work),
            tune=source.model if config.finetune else None,
            pairs=data.train.pairs is not None,
            device=config.device,
            progress=bar,
            batch_texts=1,
        )
    for run in runs:
        console.line(
            f"seed {run.seed}: best of {len(run.history)} epochs is {run.best_epoch}, by its score on dev"
        )
    found = tuple(
        with_prior(
            probabilities(run.outputs.astype(np.float64), problem), data, vectors.dev.lengths
        )
        for run in runs
    )
    first = runs[0]
    tuned = ", fine-tuned" if config.finetune else ""
    many = f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
    return TrainedHead(
        f"head={config.head}{tuned}{many}",
        {
            "kind": config.head,
            "network": network.model_dump(mode="json"),
            "finetuned": config.finetune,
        },
        network_tensors(first.tensors),
        found,
        first.layer_weights,
        {
            "trainings": [
                {
                    "seed": run.seed,
                    "best_epoch": run.best_epoch,
                    "layer_weights": [*run.layer_weights],
                    "history": [dict(one) for one in run.history],
                }
                for run in runs
            ]
        },
    )


def _inputs(
    texts: tuple[list[str], ...],
    units: Sides,
    source: Source,
    config: ClassifyConfig,
    used: npt.NDArray[np.int64],
) -> Inputs:
    most = config.network.most_units
    if not config.finetune:
        return VectorInputs([one.subset(used) for one in units], most)
    assert source.model is not None, "checked by source_of"
    sides = [[side[number] for number in used.tolist()] for side in texts]
    return TextInputs(source.model, source.unit, sides, most)


def _local(work: str) -> Path:
    """Return the local folder of the checkpoints, which Lightning writes."""
    if storage.is_remote(work):
        return Path(temporary_root(), f"biloom-classify-{work.rpartition('/')[2][:16]}")
    return storage.local_path(storage.join(work, "head"))


def decisions(head: TrainedHead, data: Data) -> list[Truth]:
    """Return the predictions for the dev texts of each training, in the form of `Problem.truth`."""
    return [decide(found, data.problem) for found in head.probabilities]
