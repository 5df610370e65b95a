"""Batches of a token corpus; the step alone decides what is in one, so resume is exact."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_modules.config import TrainConfig
from lightning_modules.nn.adaptive_softmax import Routes, route
from preprocess.mixing import repeat_factors
from preprocess.token_shard import Corpus
from preprocess.token_stream import TokenStream, TrainingWindows


def training_stream(corpus: Corpus, train: TrainConfig) -> TokenStream:
    """The train split in the order asked, each source as often as its share asks.

    The share stands in the corpus's manifest; a source without one goes in once a pass.
    """
    shards = corpus.shards("train")
    sizes: Counter[str] = Counter()
    for shard in shards:
        sizes[shard.source] += shard.tokens + shard.documents
    rows = {row["name"]: row.get("share") for row in corpus.manifest.details["sources"]}
    parts = {name: rows.get(name) for name in sizes}
    factors: dict[str, float] = {}
    if all(part is not None for part in parts.values()):
        factors = repeat_factors(sizes, {name: float(part) for name, part in parts.items() if part})
    return TokenStream(shards, train.boundary, train.order, train.seed, factors)


class Batch(NamedTuple):
    """What the network reads at a step: ids and targets (2, unroll, rows) int64."""

    step: int
    ids: Tensor
    targets: Tensor
    routes: Routes


class StepDataset(Dataset[Batch]):
    """Item ``s`` is the batch of step ``s``."""

    def __init__(
        self,
        windows: TrainingWindows,
        steps: int,
        ranks: npt.NDArray[np.int64],
        cutoffs: tuple[int, ...],
    ) -> None:
        self._windows, self._steps = windows, steps
        self._ranks, self._cutoffs = ranks, cutoffs

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        ids, targets = self._windows.batch(step)
        # Dealt here, on the host, so that the device never has to be waited for.
        routes = route(targets.reshape(-1), self._ranks, self._cutoffs)
        return Batch(step, torch.from_numpy(ids), torch.from_numpy(targets), routes)


class _From:
    """The steps from ``start`` on."""

    def __init__(self, start: int, end: int) -> None:
        self._steps = range(start, end)

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


class StepLoader(DataLoader[Batch]):
    """Starts at the step training is at; its length is that of the whole training.

    Lightning counts batches over the whole training too, and asks a loader for its state where it
    resumes one. The position follows from the step, so there is none to keep.
    """

    def __init__(self, dataset: StepDataset, start: int) -> None:
        super().__init__(dataset, batch_size=None, sampler=_From(start, len(dataset)))

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class TokenShardDataModule(pl.LightningDataModule):
    """The train split as batches, from the step the trainer is at."""

    def __init__(
        self,
        windows: TrainingWindows,
        train: TrainConfig,
        ranks: npt.NDArray[np.int64],
        cutoffs: tuple[int, ...],
    ) -> None:
        super().__init__()
        self._dataset = StepDataset(windows, train.steps, ranks, cutoffs)

    def train_dataloader(self) -> StepLoader:
        assert self.trainer is not None
        return StepLoader(self._dataset, self.trainer.global_step)
