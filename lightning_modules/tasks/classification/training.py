"""Training of a neural head with several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.random_state import seeded
from lightning_modules.tasks.classification.head_module import HeadModule
from lightning_modules.tasks.classification.heads import TextHead, predict
from lightning_modules.tasks.classification.inputs import Inputs, LabelledInputs
from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.classification.objectives import Objective, Truth
from lightning_modules.tasks.epoch_batches import EpochBatches, loader_of
from lightning_modules.tasks.features import Progress
from lightning_modules.tasks.fitting import FitSettings, fit
from lightning_modules.tasks.training_config import FitConfig
from lightning_modules.tasks.tuning import TunedModel
from lightning_modules.vectors.pretrained import BiLM
from preprocess.section import Section

DEV_TEXTS = 64
"""Texts of a batch when an epoch is scored."""


@dataclass(frozen=True)
class HeadRun:
    """A head that was trained with one seed.

    Attributes:
        seed: the seed.
        tensors: weights of the best epoch; those of a tuned language model have a prefix, see
            `lightning_modules.tasks.tuning`.
        outputs: outputs for the dev texts, float32 (n, k); see `TextHead`.
        layer_weights: learned weights of the layers, which sum to 1.
        best_epoch: the epoch with the best dev score, counted from 1.
        history: the figures of each epoch: ``train_loss``, ``dev_loss`` and ``dev_score``.
    """

    seed: int
    tensors: Mapping[str, Tensor]
    outputs: npt.NDArray[np.float32]
    layer_weights: tuple[float, ...]
    best_epoch: int
    history: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class LabelledData:
    """Texts and their labels.

    Attributes:
        inputs: the texts.
        truth: the labels; see `Objective`.
    """

    inputs: Inputs
    truth: Truth


def train_head(
    network: NetworkConfig,
    config: FitConfig,
    objective: Objective,
    sizes: tuple[int, int],
    train: LabelledData,
    dev: LabelledData,
    seeds: Sequence[int],
    folder: Path,
    *,
    tune: BiLM | None = None,
    pairs: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    progress: Progress | None = None,
    batch_texts: int = 64,
) -> tuple[HeadRun, ...]:
    """Train a head once with each seed, and predict the dev texts.

    A killed training continues from its last epoch with the same result; see
    `lightning_modules.tasks.fitting.fit`.

    Args:
        network: settings of the head.
        config: settings of its training.
        objective: loss and score.
        sizes: number of layers and size of a vector in one layer.
        train, dev: the texts.
        seeds: seeds of the initial weights, the order of the texts, and dropout.
        folder: local folder of the checkpoints.
        tune: the language model, if it is fine-tuned; then the inputs must be `TextInputs`.
        pairs: whether the inputs are pairs.
        device: where to train.
        progress: set to the number of batches of all seeds.
        batch_texts: texts of a batch of the final prediction, as in `predict`.

    Raises:
        FitError: if the training diverges, or the folder holds another one.
    """
    runs = []
    for number, seed in enumerate(seeds):
        with seeded(seed, torch.device("cpu")):
            head = TextHead(network, *sizes, objective.outputs, pairs)
        head.center.fill_(objective.center)
        head.scale.fill_(objective.scale)
        tuned = TunedModel(tune) if tune is not None else None
        batches = EpochBatches(train.inputs.lengths, config.batch, seed)
        steps = len(batches) * config.epochs
        module = HeadModule(head, objective, config, steps, tuned)
        data, held_out = (
            LabelledInputs(part.inputs, objective.tensor(part.truth)) for part in (train, dev)
        )
        result = fit(
            module,
            loader_of(data, batches),
            loader_of(held_out, EpochBatches(dev.inputs.lengths, DEV_TEXTS, None)),
            FitSettings(
                epochs=config.epochs,
                patience=config.patience,
                seed=seed,
                clip_norm=config.clip_norm,
                identity=_identity(
                    (network, config), objective, train, dev, seed, tuned is not None
                ),
                device=device,
            ),
            folder / f"seed-{seed}",
            progress and _From(progress, number * steps),
        )
        module.load_state_dict(result.state)
        module.cpu()
        outputs = predict(head, dev.inputs, tuned, batch_texts)
        tensors = {name: value.detach() for name, value in head.state_dict().items()}
        tensors |= tuned.tensors() if tuned else {}
        runs.append(
            HeadRun(seed, tensors, outputs, head.layer_weights, result.best_epoch, result.history)
        )
    return tuple(runs)


class _From:
    """A progress bar that begins at a number."""

    def __init__(self, progress: Progress, first: int) -> None:
        self._progress, self._first = progress, first

    def update(self, done: float, note: str = "") -> None:
        self._progress.update(self._first + done, note)


def _identity(
    configs: Sequence[Section],
    objective: Objective,
    train: LabelledData,
    dev: LabelledData,
    seed: int,
    tuned: bool,
) -> str:
    """Return a hash of everything that the result depends on, except the machine."""
    digest = blake2b(digest_size=16)
    for config in configs:
        digest.update(config.model_dump_json().encode())
    digest.update(
        f"{tuned} {objective.target} {objective.outputs} {objective.weights} {seed}".encode()
    )
    for part in (train, dev):
        digest.update(part.inputs.content.encode())
        digest.update(np.ascontiguousarray(part.truth).tobytes())
    return digest.hexdigest()
