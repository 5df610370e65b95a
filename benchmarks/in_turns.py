"""Steps of training in turns, with the seconds of each step.

A coroutine decides the turns: it yields a number of steps, and is sent the seconds of each of them.
Between its turns it may run something else, for example the steps of a peer.
"""

import time
import warnings
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import pytorch_lightning as pl

from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.window_loader import Batch

T = TypeVar("T")
Turns = Generator[int, list[float], None]


def no_wait() -> None:
    """Do not wait for the device, because it is a CPU."""


def step_in_turns(
    step: Callable[[int], object],
    turns: Turns,
    wait: Callable[[], None] = no_wait,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Take the steps of a plain loop in turns.

    Args:
        step: takes the step with a number.
        turns: the turns.
        wait: waits until the device has done its work.
        clock: returns the time in seconds.
    """
    for _ in _timed(step, turns, wait, clock):
        pass


def fit_in_turns(
    module: LitBiLM,
    batch: Callable[[int], Batch],
    turns: Turns,
    wait: Callable[[], None] = no_wait,
    clock: Callable[[], float] = time.perf_counter,
    **options: object,
) -> None:
    """Train by `Trainer.fit` in turns.

    A step lasts from the request for its batch to the request for the next one, so its time has all
    that the Trainer does.

    Args:
        module: the module.
        batch: makes the batch of a step.
        turns, wait, clock: as of `step_in_turns`.
        options: further arguments of the Trainer.
    """
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,  # type: ignore[arg-type]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, _Loader(lambda: _timed(batch, turns, wait, clock)))


class _Loader:
    """Batches of an iterator that ends early. With a length, Lightning does not read ahead."""

    def __init__(self, batches: Callable[[], Iterator[Batch]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return 10**6

    def __iter__(self) -> Iterator[Batch]:
        return self._batches()


def _timed(
    make: Callable[[int], T], turns: Turns, wait: Callable[[], None], clock: Callable[[], float]
) -> Iterator[T]:
    """Yield what is made for each step; the time of a step includes making it and its use."""
    number, steps = 0, next(turns)
    while True:
        taken = []
        for _ in range(steps):
            wait()
            began = clock()
            yield make(number)
            wait()
            taken.append(clock() - began)
            number += 1
        try:
            steps = turns.send(taken)
        except StopIteration:
            return
