"""Load a classifier from its task folder."""

from typing import Any

import torch

from lightning_modules.tasks.classification.classifier import PRIOR, Classifier, Head, PooledHead
from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.network_head import NetworkHead
from lightning_modules.tasks.classification.pooled import Source
from lightning_modules.tasks.folder import Task
from preprocess.files.verified import damaged


def load_classifier(
    task: Task, model: str | None = None, device: str | torch.device = "cpu"
) -> Classifier:
    """Load the classifier of a task folder with its language model.

    Args:
        task: the task, as `read_task` returns it.
        model: folder of the language model; None means where it was in training.
        device: where the language model computes.

    Raises:
        TaskError: the language model is missing or another one.
        DamagedResult: the settings and the tensors do not fit each other.
    """
    config: dict[str, Any] = task.config
    bilm = task.load_model(model).to(device)
    try:
        problem = Problem(config["target"], task.labels)
        source = Source(bilm, None, config["unit"], config["pooling"], config["text_pooling"])
        prior = task.tensors[PRIOR].double().numpy()
        pairs = bool(config["pairs"])
        head: Head
        if config["head"]["kind"] == "pool":
            head = PooledHead.of(config["head"], task.tensors)
            _check(head, problem, source, pairs, len(prior))
        else:
            head = NetworkHead.of(config["head"], task.tensors, source)
            _check_network(head, problem, source, pairs, len(prior))
        return Classifier(problem, head, source, prior, bool(config["pairs"]))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise damaged(
            task.path, f"holds a damaged task ({reason})", task.path, task.manifest.stage
        ) from error


def _check_network(
    head: NetworkHead, problem: Problem, source: Source, pairs: bool, prior: int
) -> None:
    """Raise ValueError if a network does not fit the settings and the language model."""
    network = head.head
    outputs = 1 if problem.target == "number" else len(problem.labels)
    found = (len(network.mix.weights), network.output.out_features, network.pairs, prior)
    if found != (source.depth, outputs, pairs, outputs):
        raise ValueError("the network does not fit the labels or the language model")


def _check(head: PooledHead, problem: Problem, source: Source, pairs: bool, prior: int) -> None:
    """Raise ValueError if the tensors do not fit the settings and the language model."""
    assert source.model is not None, "a stored classifier has a language model"
    width = source.model.dim * (2 if source.pooling == "mean_max" else 1) * (4 if pairs else 1)
    features = width if head.mean else width * len(head.layers)
    outputs = 1 if problem.target == "number" else len(problem.labels)
    weight, bias = head.linear.weight, head.linear.bias
    if weight.shape != (outputs, features) or bias.shape != (outputs,) or prior != outputs:
        raise ValueError(
            f"the head is {weight.shape}, not ({outputs}, {features}), as its labels and the language "
            "model say"
        )
    if not all(0 <= layer < source.depth for layer in head.layers):
        raise ValueError("it names a layer that the language model does not have")
