"""Tokens of texts to all layers' vectors, for inference: padded batches, long texts in chunks.

Every text begins with the boundary token that training put before a document, in each direction, and
that token's own vector is left out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.vectors.scratch import allocate
from lightning_modules.vectors.type_vectors import BEGIN, END, TypeVectors, Word
from preprocess.tokenizers.base import BOS, Token

POSITIONS, LEAST = 1024, 16
"""Tokens of all rows, and at least of each row, that are in the network at once: enough for a matmul of
their gates, and few enough for these to stay in the cache. The state is carried on from them."""

Floats = npt.NDArray[np.float32]


class Encoder:
    """Runs a network over texts.

    Args:
        starts: the boundary token that the forward and the backward language model begin with.
        type_vectors: see `TypeVectors`.
    """

    def __init__(
        self, network: BiLMNetwork, starts: tuple[int, int], type_vectors: Tensor | None = None
    ) -> None:
        self._network, self._starts = network, starts[: network.directions]
        self._types: TypeVectors | None = None
        if isinstance(network.input, CharCNN):
            self._types = TypeVectors(network.input, type_vectors)

    def learn(self, texts: Iterable[Sequence[Token]]) -> None:
        """Where words are read by their spelling: compute those of all these texts at once."""
        if self._types is not None:
            words: dict[Word, int] = {}
            for text in texts:
                words.update((token.spelling, token.id) for token in text)
                if len(words) > self._types.capacity:
                    return
            self._types.learn(list(words), list(words.values()))

    def encode(
        self,
        texts: Sequence[Sequence[Token]],
        layers: Sequence[int],
        state: Tensor,
        memory_bytes: int,
    ) -> list[Floats]:
        """The vectors of each text, (layers, tokens, dim) float32.

        Args:
            texts: the texts of a batch, their tokens.
            layers: numbers of the layers that are wanted, 0 that of the input.
            state: to start from, (recurrent layers, directions, 1, state_width).
            memory_bytes: beyond which a text's vectors lie in a scratch file.

        Raises:
            ScratchError: there is no room for that file.
        """
        network = self._network
        lengths = [len(text) for text in texts]
        found = [allocate((len(layers), n, network.width), memory_bytes) for n in lengths]
        order = sorted(range(len(texts)), key=lambda number: -lengths[number])
        streams = self.streams([texts[number] for number in order])
        state = state.expand(-1, -1, len(texts), -1)
        start = end = 0
        # A row whose text has ended takes no further part.
        while rows := sum(length + 1 > end for length in lengths):
            start, end = end, end + max(LEAST, POSITIONS // rows)
            # (directions, end - start, rows, direction_width)
            x = self.vectors(streams, slice(start, end), rows, state.device)
            run = network.recurrent(x, state[:, :, :rows].contiguous())
            state = run.state
            read = (x, *run.outputs)
            for place, layer in enumerate(layers):
                values = read[layer].cpu().numpy()
                for row, number in enumerate(order[:rows]):
                    _put(values[:, :, row], found[number][place], start)
        return found

    def state_after(self, tokens: Sequence[Token], state: Tensor) -> Tensor:
        """The state when each direction has read a text from its side, shaped as ``state``."""
        x = self.vectors(self.streams([tokens]), slice(None), 1, state.device)
        after: Tensor = self._network.recurrent(x, state).state
        return after

    def streams(self, texts: Sequence[Sequence[Token]]) -> "Streams":
        """Texts as each direction reads them."""
        spelt = self._types is not None
        number: dict[tuple[int, Word], int] = {}
        starts: list[tuple[int, Word]] = [
            (start, BEGIN if start == BOS else END) for start in self._starts
        ]
        longest = max(map(len, texts), default=0)
        streams = np.empty((len(starts), longest + 1, len(texts)), np.int64)
        for direction, start in enumerate(starts):
            streams[direction] = number.setdefault(start, len(number)) if spelt else start[0]
        for row, text in enumerate(texts):
            read: Iterable[int] = (token.id for token in text)
            if spelt:
                words = ((token.id, token.spelling) for token in text)
                read = (number.setdefault(word, len(number)) for word in words)
            forward = np.fromiter(read, np.int64, len(text))
            streams[0, 1 : len(text) + 1, row] = forward
            if len(streams) == 2:
                streams[1, 1 : len(text) + 1, row] = forward[::-1]
        return Streams(streams, list(number))

    def vectors(self, streams: "Streams", part: slice, rows: int, device: torch.device) -> Tensor:
        """The input vectors of the first rows for some time, (directions, part, rows, direction_width)."""
        numbers = streams.numbers[:, part, :rows]
        if self._types is None:
            found: Tensor = self._network.input(torch.from_numpy(numbers).to(device))
            return found
        different, places = np.unique(numbers, return_inverse=True)
        words = [streams.words[number] for number in different.tolist()]
        table = self._types.of([word for _, word in words], [number for number, _ in words])
        return F.embedding(torch.from_numpy(places.reshape(numbers.shape)).to(device), table)


class Streams(NamedTuple):
    """Texts as each direction reads them, padded with its boundary token.

    numbers: int64 (directions, time + 1, batch), ids, or where words are read by their spelling the
    place in ``words``; words: id and spelling of each different word.
    """

    numbers: npt.NDArray[np.int64]
    words: list[tuple[int, Word]]


def _put(values: Floats, array: Floats, start: int) -> None:
    """A row's values (directions, chunk, direction_width) from stream position ``start`` on.

    array: (tokens, dim); position p of a stream is token p - 1, counted from its own side.
    """
    tokens, width = len(array), values.shape[2]
    first, last = max(start, 1), min(start + values.shape[1], tokens + 1)
    if first >= last:
        return
    part = slice(first - start, last - start)
    array[first - 1 : last - 1, :width] = values[0, part]
    if len(values) == 2:
        array[tokens - last + 1 : tokens - first + 1, width:] = values[1, part][::-1]
