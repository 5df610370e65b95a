"""The order in which each direction reads a batch of texts, its targets, and the way back.

The forward direction reads a text from its first token, the backward direction from its last. Each reads
the boundary token first that training put before a document.

A GPU is never waited for between two chunks of a batch: ids go to it, and vectors come back, through pinned
memory, and the vectors of a chunk are handled while the GPU computes the next one.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from preprocess.errors import UserError
from preprocess.tokenizers.base import IGNORE, UNKNOWN, Token

Word = str | object
"""A word by its spelling, or a boundary token."""
Floats = npt.NDArray[np.float32]
Int64Ids = npt.NDArray[np.int64]
Put = Callable[[int, Floats, int], None]
"""Receives some positions of a text: the index of a layer, values and start as in `in_text_order`."""


class VectorError(UserError):
    """Raised if a model computes NaN or infinity."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the model computes NaN or infinity, because its weights hold them, or because "
            "the values exceed the range of float16; use another model, or float32 or bfloat16"
        )


class Streams(NamedTuple):
    """A padded batch of texts as each direction reads them, boundary token first.

    Attributes:
        numbers: int64 (directions, time + 1, batch). Token ids, or indices into ``words`` if the
            model reads words by their spelling.
        words: id and spelling of each distinct word; empty if the model reads ids.
    """

    numbers: npt.NDArray[np.int64]
    words: list[tuple[int, Word]]


def mirror_of(lengths: Tensor, time: int) -> Tensor:
    """Return the index (batch, time) that reverses each row within its length, not its padding."""
    position = torch.arange(time, device=lengths.device)
    return torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)


def aligned(read: Tensor, mirror: Tensor) -> Tensor:
    """Return what each direction read, (depth, directions, batch, time, width), in the text's order.

    Returns:
        (depth, batch, time, directions * width).
    """
    if read.shape[1] == 1:
        return read[:, 0]
    forward, backward = read.unbind(1)
    index = mirror[None, :, :, None].expand_as(backward)
    return torch.cat([forward, backward.gather(2, index)], 3)


def as_read(ids: Tensor, mirror: Tensor, starts: Sequence[int]) -> Tensor:
    """Return ids (batch, time) as each direction reads them, (directions, time + 1, batch)."""
    read = (ids, ids.gather(1, mirror))[: len(starts)]
    begun = [F.pad(one, (1, 0), value=start) for one, start in zip(read, starts, strict=True)]
    return torch.stack(begun).transpose(1, 2)


def in_text_order(values: Floats, tokens: int, start: int) -> Iterator[tuple[slice, Floats]]:
    """Yield for each direction which tokens of a text a row's outputs belong to, and their vectors.

    Position 0 of a stream is the boundary token; position p is the p-th token that the direction reads.

    Args:
        values: (directions, positions, direction_width).
        tokens: number of tokens of the text.
        start: stream position of ``values[:, 0]``.

    Yields:
        The tokens, and (tokens, direction_width); nothing if no position is a token.
    """
    first, last = max(start, 1), min(start + values.shape[1], tokens + 1)
    if first >= last:
        return
    part = slice(first - start, last - start)
    yield slice(first - 1, last - 1), values[0, part]
    if len(values) == 2:
        yield slice(tokens - last + 1, tokens - first + 1), values[1, part][::-1]


def put(array: Floats, layer: int, values: Floats, start: int) -> None:
    """Write a row's outputs into the vectors of a text, (layers, tokens, dim).

    Args:
        array: the vectors of all wanted layers.
        layer: index of the layer among them.
        values, start: as in `in_text_order`.
    """
    width = values.shape[2]
    for direction, (tokens, found) in enumerate(in_text_order(values, array.shape[1], start)):
        array[layer, tokens, direction * width : (direction + 1) * width] = found


def distribute(
    chunks: Callable[[Sequence[Sequence[Token]]], Iterator[tuple[int, list[Tensor]]]],
    texts: Sequence[Sequence[Token]],
    puts: Sequence[Put],
    names: Sequence[str],
) -> None:
    """Pass what is computed for a batch to each of its texts.

    Args:
        chunks: computes texts, the longest first. It yields the first position of a chunk, and for each
            layer (directions, positions, rows, direction_width) of the first rows.
        texts: tokens of each text.
        puts: receives the vectors of each text.
        names: what the layers are called in a message.

    Raises:
        VectorError: if there is NaN or infinity.
    """
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))

    def hand_out(start: int, copied: Callable[[], list[Floats]]) -> None:
        for index, values in enumerate(copied()):
            if not np.isfinite(values).all():
                raise VectorError(names[index])
            for row in range(values.shape[2]):
                puts[order[row]](index, values[:, :, row], start)

    copies: deque[tuple[int, Callable[[], list[Floats]]]] = deque()
    for start, layers in chunks([texts[number] for number in order]):
        copies.append((start, to_host(layers)))
        if len(copies) > is_asynchronous(layers[0].device):
            hand_out(*copies.popleft())
    for copy in copies:
        hand_out(*copy)


def is_asynchronous(device: torch.device) -> bool:
    """Return True if operations on a device are queued, and the host goes on before they are done."""
    return device.type == "cuda"


def to_device(array: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device, without waiting for a GPU."""
    tensor = torch.from_numpy(array)
    if not is_asynchronous(device):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> Callable[[], list[Floats]]:
    """Begin to copy tensors of one device to the host, as float32; copies from a GPU are in pinned memory.

    Returns:
        A function that waits for the copies and returns them.
    """
    device, done = tensors[0].device, None
    is_queued = is_asynchronous(device)
    copies = [tensor.float().to("cpu", non_blocking=is_queued) for tensor in tensors]
    if is_queued:
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(device))

    def copied() -> list[Floats]:
        if done is not None:
            done.synchronize()
        return [copy.numpy() for copy in copies]

    return copied


def targets_of(ids: Sequence[int], starts: tuple[int, int], predictable: int) -> Int64Ids:
    """Return the targets of both directions, (2, tokens + 1): each token, then the closing boundary.

    Args:
        ids: token ids of a text.
        starts: boundary tokens that the forward and the backward language model begin with.
        predictable: ids from this one on count as the unknown token.
    """
    before, after = starts
    targets = np.array([[*ids, after], [*ids[::-1], before]], np.int64)
    targets[targets >= predictable] = UNKNOWN
    return targets


def padded_targets(targets: Sequence[Int64Ids], directions: int) -> Int64Ids:
    """Stack the targets of texts, (directions, time, texts); padding is `IGNORE`."""
    longest = max(of_text.shape[1] for of_text in targets)
    padded = np.full((directions, longest, len(targets)), IGNORE, np.int64)
    for row, of_text in enumerate(targets):
        padded[:, : of_text.shape[1], row] = of_text[:directions]
    return padded
