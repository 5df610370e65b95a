"""Batches of a token corpus; the step alone decides what is in one, so resume is exact."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_modules.nn.window import Window, replaced
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.distribution import Share
from preprocess.errors import UserError
from preprocess.reading.mixing import repeat_factors
from preprocess.shards.format import Corpus
from preprocess.shards.stream import TokenStream
from preprocess.shards.windows import TrainingWindows

READ_AHEAD = 4
"""Batches that a data process holds ready."""


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
    """What a process reads in an optimiser step: windows[window of the step][pass over its rows]."""

    step: int
    windows: tuple[tuple[Window, ...], ...]


class StepDataset(Dataset[Any]):
    """Item ``s`` is the batch of step ``s``, as NumPy arrays; or the UserError that kept it from being."""

    def __init__(
        self, windows: TrainingWindows, make: WindowMaker, share: Share, accumulate: int, steps: int
    ) -> None:
        self._windows, self._make = windows, make
        self._share, self._accumulate, self._steps = share, accumulate, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Any:
        try:
            return to_numpy(Batch(step, tuple(self._of_step(step))))
        except UserError as error:
            # A data process would hand it on as a text with a traceback in it.
            return error

    def _of_step(self, step: int) -> Iterator[tuple[Window, ...]]:
        size = self._share.of_pass
        for place in range(step * self._accumulate, (step + 1) * self._accumulate):
            ids, targets = self._windows.batch(place)  # (directions, unroll, rows of the process)
            yield tuple(
                self._make(
                    np.ascontiguousarray(ids[..., first : first + size]),
                    np.ascontiguousarray(targets[..., first : first + size]),
                )
                for first in range(0, size * self._share.passes, size)
            )


def to_numpy(found: Any) -> Any:
    """Tensors in nested tuples as arrays: a few kilobytes go through a pipe faster than a tensor,
    for which a piece of shared memory is set up and passed on.
    """
    return replaced(found, Tensor, Tensor.numpy)


def to_tensors(found: Any, pinned: bool = False) -> Any:
    """The reverse of `to_numpy`; pinned: in memory that a GPU copies from by itself."""

    def tensor(array: np.ndarray[Any, Any]) -> Tensor:
        made = torch.from_numpy(array)
        return made.pin_memory() if pinned else made

    return replaced(found, np.ndarray, tensor)


class _From:
    """The steps from ``start`` on."""

    def __init__(self, start: int, end: int) -> None:
        self._steps = range(start, end)

    def __iter__(self) -> Iterator[int]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


class StepLoader(DataLoader[Any]):
    """The batches from step ``start`` on, read ahead by ``workers`` processes; `waited` in seconds."""

    def __init__(self, dataset: StepDataset, start: int, workers: int, pinned: bool) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            sampler=_From(start, len(dataset)),
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals_to_the_training,
            prefetch_factor=READ_AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,
        )
        self._pinned = pinned
        self.waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            began = time.perf_counter()
            try:
                found = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - began
            if isinstance(found, UserError):
                raise found
            yield to_tensors(found, self._pinned)


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_training(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal, and a handler is inherited: the training process
    # decides what a signal means, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class TokenShardDataModule(pl.LightningDataModule):
    """The train split as batches for one process, from a step on.

    Args:
        windows: of this process's rows.
        make: windows of ids -> windows of the network.
        train: the training's config.
        share: the rows of this process.
        start: the first step.
        gpu: whether they go to a GPU.
    """

    def __init__(
        self,
        windows: TrainingWindows,
        make: WindowMaker,
        train: TrainConfig,
        share: Share,
        start: int = 0,
        gpu: bool = False,
    ) -> None:
        super().__init__()
        dataset = StepDataset(windows, make, share, train.accumulate_steps, train.steps)
        workers = train.data_workers
        if workers is None:
            # A window takes a tenth of a microsecond a token: of a GPU's step that can be a twentieth,
            # of a CPU's it is nothing, and another process would be in the way.
            workers = int(gpu)
        self.loader = StepLoader(dataset, start, workers, pinned=gpu)

    def train_dataloader(self) -> StepLoader:
        return self.loader
