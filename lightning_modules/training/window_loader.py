"""The loader of windows of the train split, read ahead by workers if requested.

A batch is a function of its number only, so a training can be resumed at any batch exactly.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_modules.nn.window import Window, map_leaves
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.ranks.distribution import Share
from preprocess.errors import UserError
from preprocess.shards.windows import TrainingWindows
from preprocess.work.resources import end_with_parent

READ_AHEAD = 4
"""Batches that each data worker holds ready."""
LATER_SECONDS = 30.0
"""How long a data worker continues after SIGTERM, so that the training process can save its step."""


class Batch(NamedTuple):
    """One window of the rows of a rank.

    Attributes:
        step: number of the window, counted from 0: the step of truncated BPTT.
        passes: the window in parts of rows, one for each pass over the rows of the rank.
    """

    step: int
    passes: tuple[Window, ...]


def check_batch(batch: object, windows: int | None) -> None:
    """Raise UserError unless a batch is one of this module, and the next one.

    Args:
        batch: what a loader yielded.
        windows: number of windows trained so far; None means that a batch may come again.
    """
    if not isinstance(batch, Batch):
        raise UserError(
            f"the batch has the type {type(batch).__name__}; LitBiLM trains on the windows of a "
            "TokenShardDataModule, so pass one to Trainer.fit"
        )
    if windows is not None and batch.step != windows:
        raise UserError(
            f"the data are at window {batch.step:,} but the module is at window {windows:,}; "
            "resume both by Trainer.fit(ckpt_path=...), and let a TokenShardDataModule serve one "
            "module"
        )


class WindowDataset(Dataset[Any]):
    """Batches by number: item ``n`` is the `Batch` of window ``n``, with NumPy arrays for tensors.

    If a shard cannot be read, the item is the UserError, because a data worker would pass a raised
    exception on as text with a traceback. `WindowLoader` raises it.

    Args:
        windows: windows of ids and targets of the rank's rows.
        make: converts ids and targets to the network's window.
        share: rows of the rank.
    """

    def __init__(self, windows: TrainingWindows, make: WindowMaker, share: Share) -> None:
        self._windows, self._make, self._share = windows, make, share

    def __getitem__(self, number: int) -> Any:
        size, passes = self._share.of_pass, self._share.passes
        try:
            window = self._windows.batch(number)  # (directions, unroll, rows of the rank)
        except UserError as error:
            return error
        parts = tuple(
            self._make(*window.rows(first, first + size)) for first in range(0, size * passes, size)
        )
        return to_numpy(Batch(number, parts))


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


class WindowLoader:
    """The batches of an epoch, which begin at the window that training is at.

    It is no `DataLoader`, because Lightning would replace the sampler of one.

    Args:
        dataset: batches by number.
        length: batches of an epoch.
        workers: processes that read ahead; 0 means that the training process reads.
        pinned: whether to put tensors into pinned memory.

        trained: returns the number of windows that the module has trained; None if it does not know.

    Attributes:
        waited: time that training has waited for batches, in seconds.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        length: int,
        workers: int,
        pinned: bool,
        trained: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._dataset, self._length, self._workers = dataset, length, workers
        self._pinned, self._trained = pinned, trained
        self._next = 0
        self.waited = 0.0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        # Begins only when the first batch is read: then a checkpoint has been restored.
        first, workers = self.state_dict()["position"], self._workers
        batches = iter(
            DataLoader(
                self._dataset,
                batch_size=None,
                sampler=range(first, first + self._length),
                generator=torch.Generator(),  # otherwise it draws from the process's generator
                num_workers=workers,
                collate_fn=_identity,
                worker_init_fn=partial(_begin_worker, os.getpid()),
                prefetch_factor=READ_AHEAD if workers else None,
                multiprocessing_context="fork" if workers else None,
            )
        )
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
                self._next = batch.step + 1
                yield to_tensors(batch, self._pinned)
        finally:
            # Deleting the iterator ends its workers. The traceback of an error would keep it alive.
            del batches

    def state_dict(self) -> dict[str, int]:
        """Return the number of the next window, for Lightning's checkpoint."""
        trained = self._trained()
        return {"position": self._next if trained is None else trained}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin the next epoch at a position of `state_dict`."""
        self._next = state["position"]


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
