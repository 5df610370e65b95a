"""Load a classifier from its task folder."""

import torch

from lightning_modules.tasks.classification.classifier import (
    BIAS,
    MIX,
    PRIOR,
    WEIGHT,
    Classifier,
    Head,
    PooledHead,
)
from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.heads import TextHead
from lightning_modules.tasks.classification.network_head import (
    PREFIX,
    NetworkHead,
    network_tensors,
)
from lightning_modules.tasks.classification.pooled import Source
from lightning_modules.tasks.classification.saved import SavedClassifier, SavedNetwork, SavedPool
from lightning_modules.tasks.stored_task import Task, read_task
from lightning_modules.tasks.tuning import PREFIX as TUNED
from lightning_modules.tasks.tuning import tuned_model


def read_classifier(path: str) -> Task[SavedClassifier]:
    """Read the folder of a classifier; errors as in `read_task`."""
    return read_task(path, "classify", SavedClassifier)


def load_classifier(
    task: Task[SavedClassifier], model: str | None = None, device: str | torch.device = "cpu"
) -> Classifier:
    """Load the classifier of a task folder with its language model.

    Args:
        task: the task, as `read_classifier` returns it.
        model: folder of the language model; None means where it was in training.
        device: where the language model computes.

    Raises:
        TaskError: the language model is missing or another one.
        DamagedResult: the settings, the labels and the tensors do not fit each other.
    """
    saved = task.config
    bilm = task.load_model(model).to(device)
    with task.building():
        problem = Problem(saved.target, task.labels)
        if (saved.target == "number") != (not task.labels):
            raise ValueError(f"target {saved.target} and {len(task.labels):,} labels")
        source = Source(bilm, None, saved.unit, saved.pooling, saved.text_pooling)
        head: Head
        if isinstance(saved.head, SavedPool):
            head = _pooled(task, saved.head, source)
        else:
            head = _network(task, saved.head, source)
    return Classifier(problem, head, source, task.tensors[PRIOR].numpy(), saved.pairs)


def _outputs(task: Task[SavedClassifier]) -> int:
    return len(task.labels) or 1


def _pooled(task: Task[SavedClassifier], head: SavedPool, source: Source) -> PooledHead:
    if not all(0 <= layer < source.depth for layer in head.layers):
        raise ValueError("it names a layer that the language model does not have")
    saved, outputs = task.config, _outputs(task)
    width = source.dim * (2 if source.pooling == "mean_max" else 1) * (4 if saved.pairs else 1)
    shapes = {
        WEIGHT: (outputs, width if head.mean else width * len(head.layers)),
        BIAS: (outputs,),
        PRIOR: (outputs,),
    }
    if saved.settings.layers == "mix":
        shapes[MIX] = (len(head.layers),)
    task.check_tensors(
        task.tensors,
        {
            name: torch.empty(shape, dtype=torch.float64, device="meta")
            for name, shape in shapes.items()
        },
    )
    return PooledHead.of(head, task.tensors)


def _network(task: Task[SavedClassifier], head: SavedNetwork, source: Source) -> NetworkHead:
    assert source.model is not None, "a stored classifier has a language model"
    outputs = _outputs(task)
    # Built without memory, so that a wrong number in the settings cannot ask for much of it.
    with torch.device("meta"):
        network = TextHead(head.network, source.depth, source.dim, outputs, task.config.pairs)
        prior = torch.empty(outputs, dtype=torch.float64)
    tuned = tuned_model(task, source.model) if head.finetuned else None
    own = {
        name: one
        for name, one in task.tensors.items()
        if tuned is None or not name.startswith(TUNED)
    }
    task.check_tensors(own, {PRIOR: prior, **network_tensors(network.state_dict())})
    weights = {name.removeprefix(PREFIX): one for name, one in own.items() if name != PRIOR}
    network.load_state_dict(weights, assign=True)
    return NetworkHead(network.requires_grad_(True).eval(), tuned)
