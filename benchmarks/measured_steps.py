"""The time of training steps in a Trainer, and of each part of a step, from torch.profiler.

The parts are those of `step_counter.PARTS`. While `marked` is active, ranges of the profiler surround what a
part computes; the innermost range of an operation decides. An operation of the backward pass belongs where
its forward operation does, which has the same sequence number of autograd.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import pytorch_lightning as pl
import torch
from step_counter import PARTS
from torch.autograd import DeviceType

from lightning_modules.nn.recurrent.cell import Cell
from lightning_modules.nn.recurrent.stack import Layer
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.window_loader import Batch

WARM, PROFILED = 8, 3
"""Steps before those that are timed, and steps that are profiled after them."""
MARK = "part of the step: "
BOTH_PASSES = ("CNN", "LSTM", "head")
"""Parts whose forward and backward pass are told apart."""
ENGINE = "autograd::engine::"
BACKWARD = 1
"""`FunctionEvent.scope` of an operation that autograd runs in the backward pass."""


@contextmanager
def marked(module: LitBiLM) -> Iterator[None]:
    """Mark the parts of a module's steps in this block."""
    network, patch = module.network, mock.patch.object
    methods = (
        (network.input, "forward", "CNN"),
        (network.recurrent, "forward", "LSTM"),
        (network.head, "nll", "head"),
        (module, "training_step", "glue"),
        (module, "backward", "glue"),
        (module, "configure_gradient_clipping", "optimiser"),
    )
    with ExitStack() as stack:
        for owner, name, part in methods:
            stack.enter_context(patch(owner, name, _in_range(getattr(owner, name), part)))
        # Other cells than those that were captured, so the layers run without CUDA graphs.
        for layer in network.recurrent.layers:
            assert isinstance(layer, Layer)
            cell = Cell(*(_in_range(function, "cells") for function in layer.ops))
            stack.enter_context(patch(layer, "ops", cell))
        yield


def _in_range(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        with torch.profiler.record_function(MARK + part):
            return function(*args, **named)

    return call


def part_seconds(profile: torch.profiler.profile, device: torch.device) -> dict[str, float]:
    """Return the seconds that the operations of each part took, by part.

    Args:
        profile: a profile of steps of a `marked` module.
        device: on a GPU, the time is that of the kernels; on a CPU, that of the calls.
    """
    sums: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
    for event, part in events_by_part(profile):
        on_gpu = device.type == "cuda"
        taken = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        sums[part] += taken / 1e6
    return dict(sums)


def events_by_part(profile: torch.profiler.profile) -> list[tuple[Any, str]]:
    """Return the events of the host, such as calls of operations, each with its part."""
    events = [event for event in profile.events() if event.device_type == DeviceType.CPU]
    events.sort(key=lambda event: event.time_range.start)
    forward: dict[int, str] = {}
    for event in events:
        # The engine's call of a node has its number too, but not the scope of the backward pass.
        if event.scope == BACKWARD or event.name.startswith(ENGINE):
            continue
        # The node is made by the last operation that sees its number.
        if event.sequence_nr >= 0 and (area := _range_of(event)):
            forward[event.sequence_nr] = area
    return [(event, _part_of(event, forward)) for event in events]


def _range_of(event: Any) -> str:
    """Return the part of the innermost range of an event, or ""."""
    while event is not None:
        if event.name.startswith(MARK):
            return str(event.name.removeprefix(MARK))
        event = event.cpu_parent
    return ""


def _part_of(event: Any, forward: dict[int, str]) -> str:
    while event is not None:
        if event.name.startswith(MARK):
            area = event.name.removeprefix(MARK)
            return f"{area} forward" if area in BOTH_PASSES else area
        if event.scope == BACKWARD and event.sequence_nr in forward:
            area = forward[event.sequence_nr]
            return f"{area} backward" if area in BOTH_PASSES else area
        if event.name.startswith("Optimizer.step"):
            return "optimiser"
        event = event.cpu_parent
    return "glue"


class Steps(pl.Callback):
    """Times some steps together, and profiles the ones after them.

    Args:
        steps: number of steps that are timed.
        device: the device of the training.
        data: the data of the training.
        trace: file for the profile.

    Attributes:
        seconds: seconds per step.
        waited: seconds per step that training waited for the loader.
        parts: seconds per step of the kernels of each part.
        window: the first window.
    """

    def __init__(
        self, steps: int, device: torch.device, data: TokenShardDataModule, trace: str | None = None
    ) -> None:
        self._data = data
        self._first, self._last = WARM, WARM + steps
        self._device, self._trace = device, trace
        self._profile = torch.profiler.profile()
        self.seconds = self.waited = 0.0
        self.parts: dict[str, float] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Batch, number: int
    ) -> None:
        if number == 0:
            self.window = batch.passes[0]
        if number == self._first:
            self._began, self._waited = self._now(), self._wait()
        if number == self._last:
            assert isinstance(module, LitBiLM)
            self._marks = marked(module)
            self._marks.__enter__()
            self._profile.__enter__()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, number: int
    ) -> None:
        steps = self._last - self._first
        if number + 1 == self._last:
            self.seconds = (self._now() - self._began) / steps
            self.waited = (self._wait() - self._waited) / steps
        if number + 1 == self._last + PROFILED:
            synchronise(self._device)
            self._profile.__exit__(None, None, None)
            self._marks.__exit__(None, None, None)
            taken = part_seconds(self._profile, self._device)
            self.parts = {part: seconds / PROFILED for part, seconds in taken.items()}
            if self._trace:
                self._profile.export_chrome_trace(self._trace)

    def _now(self) -> float:
        synchronise(self._device)
        return time.perf_counter()

    def _wait(self) -> float:
        assert self._data.loader is not None
        return self._data.loader.waited


def synchronise(device: torch.device) -> None:
    """Wait until a device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
