"""The way of vectors from the device to the texts, with a GPU that is only pretended."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.vectors import streams
from lightning_modules.vectors.streams import VectorError, distribute, put, to_device, to_host
from preprocess.tokenizers.base import Token

LENGTHS = [2, 5, 3]
CHUNKS = [(0, 2), (2, 4), (4, 6)]
LAYERS, WIDTH = 2, 3
Log = list[str]


def texts() -> list[list[Token]]:
    return [[Token(4, "a", 0, 1)] * length for length in LENGTHS]


def chunk(number: int) -> list[Tensor]:
    start, end = CHUNKS[number]
    rows = sum(length + 1 > start for length in LENGTHS)
    generator = torch.Generator().manual_seed(number)
    shape = (2, end - start, rows, WIDTH)
    return [torch.randn(shape, generator=generator) for _ in range(LAYERS)]


def handed_out(log: Log) -> list[np.ndarray[Any, Any]]:
    """Return the vectors of each text, and log when chunks are made and handed out."""
    arrays = [np.zeros((LAYERS, length, 2 * WIDTH), np.float32) for length in LENGTHS]

    def chunks(_: Sequence[Sequence[Token]]) -> Iterator[tuple[int, list[Tensor]]]:
        for number, (start, _) in enumerate(CHUNKS):
            log.append(f"compute {number}")
            yield start, chunk(number)

    def logged(array: Any, layer: int, values: Any, start: int) -> None:
        if f"hand out {start}" not in log:
            log.append(f"hand out {start}")
        put(array, layer, values, start)

    distribute(chunks, texts(), [partial(logged, array) for array in arrays], ["0", "1"])
    return arrays


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Treat the CPU as a GPU; returns a log of what is waited for and of what is pinned."""
    log: Log = []

    class Event:
        made = 0

        def __init__(self) -> None:
            self.number, Event.made = Event.made, Event.made + 1

        def record(self, stream: Any) -> None:
            assert stream == "stream"

        def synchronize(self) -> None:
            log.append(f"wait {self.number}")

    monkeypatch.setattr(streams, "is_asynchronous", lambda _: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "stream")
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: log.append("pin") or self)
    return log


def test_on_a_cpu_a_chunk_is_handed_out_before_the_next_one_is_computed() -> None:
    log: Log = []
    handed_out(log)
    assert log == [
        *("compute 0", "hand out 0", "compute 1", "hand out 2", "compute 2", "hand out 4")
    ]


def test_a_gpu_computes_the_next_chunk_while_one_is_handed_out(pretended_gpu: Log) -> None:
    arrays = handed_out(pretended_gpu)
    assert pretended_gpu == [
        *("compute 0", "compute 1", "wait 0", "hand out 0"),
        *("compute 2", "wait 1", "hand out 2", "wait 2", "hand out 4"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "is_asynchronous", lambda _: False)
        for found, expected in zip(arrays, handed_out([]), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_nan_is_found_in_the_last_chunk_too(pretended_gpu: Log) -> None:
    def chunks(_: Any) -> Iterator[tuple[int, list[Tensor]]]:
        yield 0, chunk(0)
        yield 2, [layer * torch.nan for layer in chunk(1)]

    with pytest.raises(VectorError, match="layer 0: the model computes NaN"):
        distribute(chunks, texts(), [lambda *_: None] * len(LENGTHS), ["layer 0", "layer 1"])


def test_only_copies_that_are_waited_for_return_before_they_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to = Tensor.to
    given: list[bool] = []

    def noted(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        given.append(options.get("non_blocking", False))
        return to(self, *arguments, **options)

    monkeypatch.setattr(Tensor, "to", noted)
    to_device(np.zeros(1, np.int64), torch.device("cpu"))
    to_host([torch.zeros(1)])()
    assert given == [False, False]


def test_ids_go_to_a_gpu_through_pinned_memory(pretended_gpu: Log) -> None:
    ids = np.arange(6).reshape(2, 3)
    assert torch.equal(to_device(ids, torch.device("cpu")), torch.from_numpy(ids))
    assert pretended_gpu == ["pin"]
