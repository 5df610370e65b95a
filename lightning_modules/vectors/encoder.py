"""Convert texts to the vectors of all layers: with gradients, or for inference in bounded memory.

Each direction reads a text after the boundary token that training put before a document. The vector
of that boundary token is left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.window import Types
from lightning_modules.vectors.forks import before_computing
from lightning_modules.vectors.scratch import allocate
from lightning_modules.vectors.type_vectors import BEGIN, END, Advance, TypeVectors, Word
from preprocess.errors import UserError
from preprocess.tokenizers.base import BOS, Token
from preprocess.tokenizers.spellings import Spellings

POSITIONS, LEAST = 1024, 16
"""Positions per call of the network: ``POSITIONS`` over all rows, but at least ``LEAST`` in each row.

Enough for an efficient matmul of the gates, and few enough for the gates to stay in the processor's
cache."""

Floats = npt.NDArray[np.float32]


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


class Encoder:
    """Runs a network over texts.

    Args:
        network: the model. Only `layers` follows its mode; the other methods apply no dropout.
        starts: boundary tokens that the forward and the backward language model begin with.
        spellings: how the tokenizer's ids are spelled, if the model reads words by their spelling.
        types: the vectors of words, if the model reads words by their spelling.
    """

    def __init__(
        self,
        network: BiLMNetwork,
        starts: tuple[int, int],
        spellings: Spellings | None = None,
        types: TypeVectors | None = None,
    ) -> None:
        self._network, self._starts = network, starts[: network.directions]
        self._spellings, self._types = spellings, types

    def layers(self, ids: Tensor, lengths: Tensor, spellings: Spellings | None = None) -> Tensor:
        """Return all layers with gradients; see `BiLM.forward`."""
        mirror = _mirror(lengths, ids.shape[1])
        inputs = self.inputs(_streams(ids, mirror, self._starts), spellings)
        layers, _ = self._network.layers(inputs, self._network.zero_state(len(ids)))
        # (depth, directions, batch, time, direction_width)
        read = torch.stack(layers)[:, :, 1:].transpose(2, 3)
        if len(self._starts) == 1:
            return read[:, 0]
        forward, backward = read.unbind(1)
        index = mirror[None, :, :, None].expand_as(backward)
        return torch.cat([forward, backward.gather(2, index)], 3)

    def inputs(self, ids: Tensor, spellings: Spellings | None = None) -> Tensor | Types:
        """Convert ids to what the network's input encoder reads: ids, or `Types` for a character CNN.

        Args:
            ids: token ids, int64 (directions, time, rows).
            spellings: spelling of each id. None means the tokenizer's.
        """
        spellings = spellings or self._spellings
        if spellings is None:
            return ids
        types = types_of_window(ids.cpu().numpy(), spellings)
        characters = tuple(bucket.to(ids.device) for bucket in types.characters)
        return Types(characters, types.positions.to(ids.device))

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Compute without gradients and in the dtype of the weights in this block.

        The methods below must be called in it. Cached vectors of words are discarded if the weights have
        changed. Autocast is off, so that neither the vectors nor the cache depend on the caller.
        """
        before_computing()
        device = next(self._network.parameters()).device
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            if self._types is not None:
                # A CharCNN, or a module that wraps one.
                self._types.refresh(cast(CharCNN, self._network.input))
            yield

    def learn(self, texts: Iterable[Sequence[Token]], advance: Advance) -> None:
        """Compute and cache the vectors of all words of some texts, faster than batch by batch.

        Does nothing if the model reads ids, or if the vectors do not fit into the cache.

        Args:
            texts: tokens of each text.
            advance: called with the number of words, whenever some were computed.
        """
        if self._types is not None:
            words: dict[Word, int] = {}
            for text in texts:
                words.update((token.spelling, token.id) for token in text)
                if len(words) > self._types.capacity:
                    return
            self._types.learn(list(words), list(words.values()), advance)

    def encode(
        self,
        texts: Sequence[Sequence[Token]],
        layers: Sequence[int],
        state: Tensor,
        memory_bytes: int,
        advance: Advance,
    ) -> list[Floats]:
        """Return the vectors of each text, (layers, tokens, dim) float32.

        Args:
            texts: tokens of each text of a batch.
            layers: indices of the wanted layers; 0 is the input.
            state: initial state, (recurrent layers, directions, 1, state_width).
            memory_bytes: vectors of a text that need more bytes are written to a scratch file.
            advance: called with the number of positions, whenever some were computed.

        Raises:
            ScratchError: if the disk has no room for a scratch file.
            VectorError: if a vector holds NaN or infinity.
        """
        network = self._network
        lengths = [len(text) for text in texts]
        found = [allocate((len(layers), n, network.width), memory_bytes) for n in lengths]
        order = sorted(range(len(texts)), key=lambda number: -lengths[number])
        streams = self.streams([texts[number] for number in order])
        state = state.expand(-1, -1, len(texts), -1)
        start = end = 0
        # Rows are sorted by length, so the rows that have not ended are the first ones.
        while rows := sum(length + 1 > end for length in lengths):
            start, end = end, end + max(LEAST, POSITIONS // rows)
            # (directions, end - start, rows, direction_width)
            x = self.vectors(streams, slice(start, end), rows, state.device)
            run = network.recurrent(x, state[:, :, :rows].contiguous(), training=False)
            state = run.state
            read = (x, *run.outputs)
            for index, layer in enumerate(layers):
                values = read[layer].float().cpu().numpy()
                if not np.isfinite(values).all():
                    raise VectorError(f"layer {layer} of a text")
                for row, number in enumerate(order[:rows]):
                    _put(values[:, :, row], found[number][index], start)
            advance(x.shape[1] * rows)
        return found

    def state_after(self, tokens: Sequence[Token], state: Tensor) -> Tensor:
        """Return the state after each direction has read a text, shaped as ``state``."""
        streams = self.streams([tokens])
        for start in range(0, len(tokens) + 1, POSITIONS):
            x = self.vectors(streams, slice(start, start + POSITIONS), 1, state.device)
            state = self._network.recurrent(x, state, training=False).state
        return state

    def streams(self, texts: Sequence[Sequence[Token]]) -> Streams:
        """Return the tokens of texts as each direction reads them."""
        number: dict[tuple[int, Word], int] = {}
        starts = self._starts
        if self._types is not None:
            marks = ((start, BEGIN if start == BOS else END) for start in self._starts)
            starts = tuple(number.setdefault(mark, len(number)) for mark in marks)
        lengths = torch.from_numpy(np.array([len(text) for text in texts], np.int64))
        ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
        for row, text in zip(ids, texts, strict=True):
            read: Iterable[int] = (token.id for token in text)
            if self._types is not None:
                words = ((token.id, token.spelling) for token in text)
                read = (number.setdefault(word, len(number)) for word in words)
            row[: len(text)] = np.fromiter(read, np.int64, len(text))
        streams = _streams(torch.from_numpy(ids), _mirror(lengths, ids.shape[1]), starts)
        return Streams(streams.numpy(), list(number))

    def vectors(self, streams: Streams, part: slice, rows: int, device: torch.device) -> Tensor:
        """Return the input vectors of the first rows, (directions, positions, rows, direction_width).

        Args:
            streams: texts of a batch.
            part: positions in time.
            rows: number of rows.
            device: device of the result.
        """
        numbers = streams.numbers[:, part, :rows]
        if self._types is None:
            ids = torch.from_numpy(numbers).to(device)
            vectors: Tensor = self._network.input(ids, training=False)
            return vectors
        distinct, indices = np.unique(numbers, return_inverse=True)
        words = [streams.words[number] for number in distinct.tolist()]
        table = self._types.of([word for _, word in words], [id_ for id_, _ in words])
        return F.embedding(torch.from_numpy(indices.reshape(numbers.shape)).to(device), table)


def _mirror(lengths: Tensor, time: int) -> Tensor:
    """Return the index (batch, time) that reverses each row within its length, not its padding."""
    position = torch.arange(time, device=lengths.device)
    return torch.where(position < lengths[:, None], lengths[:, None] - 1 - position, position)


def _streams(ids: Tensor, mirror: Tensor, starts: Sequence[int]) -> Tensor:
    """Return ids (batch, time) as each direction reads them, (directions, time + 1, batch)."""
    read = (ids, ids.gather(1, mirror))[: len(starts)]
    begun = [F.pad(one, (1, 0), value=start) for one, start in zip(read, starts, strict=True)]
    return torch.stack(begun).transpose(1, 2)


def _put(values: Floats, array: Floats, start: int) -> None:
    """Write a row's outputs, which begin at stream position ``start``, into a text's vectors.

    Position 0 is the boundary token; position p is the p-th token that the direction reads.

    Args:
        values: (directions, positions, direction_width).
        array: (tokens, dim).
        start: stream position of ``values[:, 0]``.
    """
    tokens, width = len(array), values.shape[2]
    first, last = max(start, 1), min(start + values.shape[1], tokens + 1)
    if first >= last:
        return
    part = slice(first - start, last - start)
    array[first - 1 : last - 1, :width] = values[0, part]
    if len(values) == 2:
        array[tokens - last + 1 : tokens - first + 1, width:] = values[1, part][::-1]
