"""Batches of a token corpus.

A batch is a function of the step only, so a training can be resumed at any step exactly.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_modules.nn.window import Window, map_leaves
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.distribution import Share
from preprocess.errors import UserError
from preprocess.reading.mixing import repeat_factors
from preprocess.shards.format import Corpus
from preprocess.shards.stream import TokenStream
from preprocess.shards.windows import TrainingWindows
from preprocess.work.resources import end_with_parent

READ_AHEAD = 4
"""Batches that each data worker holds ready."""
LATER_SECONDS = 30.0
"""How long a data worker continues after SIGTERM, so that the training process can save its step."""


def training_stream(corpus: Corpus, train: TrainConfig) -> TokenStream:
    """Return the endless stream of the train split, in the order of ``train.order``.

    A source is repeated according to its share in the corpus manifest. If a source has no share,
    every source occurs once per pass.
    """
    shards = corpus.shards("train")
    sizes: Counter[str] = Counter()
    for shard in shards:
        sizes[shard.source] += shard.tokens + shard.documents
    rows = {row["name"]: row.get("share") for row in corpus.manifest.details["sources"]}
    shares = {name: rows.get(name) for name in sizes}
    factors: dict[str, float] = {}
    if all(share is not None for share in shares.values()):
        factors = repeat_factors(sizes, {name: float(s) for name, s in shares.items() if s})
    return TokenStream(shards, train.boundary, train.order, train.seed, factors)


class Batch(NamedTuple):
    """The data of one rank for one optimiser step.

    Attributes:
        step: the step, counted from 0.
        windows: indexed by [window of the step][pass over the rows of the rank].
    """

    step: int
    windows: tuple[tuple[Window, ...], ...]


class StepDataset(Dataset[Any]):
    """Batches by step: item ``s`` is the `Batch` of step ``s``, with NumPy arrays for tensors.

    If a shard cannot be read, the item is the UserError, because a data worker would pass a raised
    exception on as text with a traceback. `StepLoader` raises it.

    Args:
        windows: windows of ids and targets of the rank's rows.
        make: converts ids and targets to the network's window.
        share: rows of the rank.
        accumulate: windows per step.
        steps: number of steps.
    """

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
            return error

    def _of_step(self, step: int) -> Iterator[tuple[Window, ...]]:
        size = self._share.of_pass
        for index in range(step * self._accumulate, (step + 1) * self._accumulate):
            window = self._windows.batch(index)  # (directions, unroll, rows of the rank)
            yield tuple(
                self._make(*window.rows(first, first + size))
                for first in range(0, size * self._share.passes, size)
            )


def to_numpy(value: Any) -> Any:
    """Replace tensors in nested tuples by NumPy arrays.

    Arrays of a few kilobytes pass between processes faster than tensors, because torch allocates
    new shared memory for each tensor.
    """
    return map_leaves(value, Tensor, Tensor.numpy)


def to_tensors(value: Any, pinned: bool = False) -> Any:
    """Replace NumPy arrays in nested tuples by tensors, in pinned memory if requested."""

    def tensor(array: np.ndarray[Any, Any]) -> Tensor:
        unpinned = torch.from_numpy(array)
        return unpinned.pin_memory() if pinned else unpinned

    return map_leaves(value, np.ndarray, tensor)


class StepLoader(DataLoader[Any]):
    """Loader of the batches from step ``start`` on; each item is a `Batch` of tensors.

    Args:
        dataset: batches by step.
        start: first step, counted from 0.
        workers: processes that read ahead; 0 means that the training process reads.
        pinned: whether to put tensors into pinned memory.

    Attributes:
        waited: time that training has waited for batches, in seconds.
    """

    def __init__(self, dataset: StepDataset, start: int, workers: int, pinned: bool) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            sampler=range(start, len(dataset)),
            num_workers=workers,
            collate_fn=_identity,
            worker_init_fn=partial(_begin_worker, os.getpid()),
            prefetch_factor=READ_AHEAD if workers else None,
            multiprocessing_context="fork" if workers else None,
        )
        self._pinned = pinned
        self.waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        try:
            while True:
                began = time.perf_counter()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                self.waited += time.perf_counter() - began
                if isinstance(batch, UserError):
                    raise batch
                yield to_tensors(batch, self._pinned)
        finally:
            # Deleting the iterator ends its workers. The traceback of an error would keep it alive.
            del batches


def _identity(batch: Any) -> Any:
    return batch


def _begin_worker(parent: int, worker: int) -> None:
    # A signal may reach all processes of a terminal or a job, and forked workers inherit the handlers of
    # the training process. Only the training process may act on it; it ends its workers itself.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # SIGTERM may also come from the training process, if it fails and does not need the worker.
    signal.signal(signal.SIGTERM, lambda *_: signal.setitimer(signal.ITIMER_REAL, LATER_SECONDS))
    end_with_parent(parent)


class TokenShardDataModule(pl.LightningDataModule):
    """The batches of one rank for a Lightning Trainer, from a step on.

    Args:
        windows: windows of ids and targets of the rank's rows, int64 (directions, unroll, rows).
        make: converts ids and targets to the `Window` that the network reads.
        train: settings of the training.
        share: rows of the rank.
        start: first step, counted from 0.
        gpu: whether the batches are copied to a GPU. They are then pinned, and read ahead by one
            worker by default.

    Attributes:
        loader: the loader of the batches.

    Raises:
        UserError: when iterating, if a shard is missing or damaged.
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
            # A batch takes 0.1 us per token to make: up to a twentieth of a step on a GPU. On a CPU
            # it is negligible, and a worker would only take time from training.
            workers = int(gpu)
        self.loader = StepLoader(dataset, start, workers, pinned=gpu)

    def train_dataloader(self) -> StepLoader:
        """Return the loader; each item is a `Batch` on the CPU."""
        return self.loader
