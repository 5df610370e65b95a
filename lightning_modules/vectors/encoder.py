"""Convert texts to the vectors of all layers: with gradients, or for inference in bounded memory.

Each direction reads a text after the boundary token that training put before a document. The vector
of that boundary token is left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.mode import constant_weights
from lightning_modules.nn.window import Types
from lightning_modules.vectors.batches import LEAST
from lightning_modules.vectors.forks import before_computing
from lightning_modules.vectors.streams import (
    Put,
    Streams,
    VectorError,
    Word,
    aligned,
    as_read,
    distribute,
    mirror_of,
    to_device,
    to_host,
)
from lightning_modules.vectors.type_vectors import BEGIN, END, Advance, TypeVectors
from preprocess.tokenizers.base import BOS, EOS, Token
from preprocess.tokenizers.spellings import Spellings

POSITIONS = 1024
"""Positions per call of the network over all rows, but at least `LEAST` in each row: enough for an efficient
matmul of the gates, and few enough for the gates to stay in the processor's cache."""
GPU_POSITIONS = 8192
"""The same on a GPU, which needs more of them to be busy. The gates of a layer of ELMo's size take 1 GB."""


class Encoder:
    """Runs a network over texts.

    Args:
        network: the model. Only `layers` follows its mode; the other methods apply no dropout.
        starts: boundary tokens that the forward and the backward language model begin with.
        spellings: how the tokenizer's ids are spelled, if the model reads words by their spelling.
        types: the vectors of words, if the model reads words by their spelling.
        matmul_dtype: dtype of matrix products, except in `layers` and `input_vectors`; None means that of
            the weights.
    """

    def __init__(
        self,
        network: BiLMNetwork,
        starts: tuple[int, int],
        spellings: Spellings | None = None,
        types: TypeVectors | None = None,
        matmul_dtype: torch.dtype | None = None,
    ) -> None:
        self._network, self._starts = network, starts[: network.directions]
        self._spellings, self._types = spellings, types
        self._matmul_dtype = matmul_dtype

    def layers(
        self,
        ids: Tensor,
        lengths: Tensor,
        spellings: Spellings | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor:
        """Return all layers with gradients; see `BiLM.forward`."""
        mirror = mirror_of(lengths, ids.shape[1])
        state = self._network.zero_state(len(ids))
        if inputs is None:
            read = self.inputs(as_read(ids, mirror, self._starts), spellings)
            layers, _ = self._network.layers(read, state)
        else:
            x = self._begun(inputs, mirror)
            layers = (x, *self._network.recurrent(x, state).outputs)
        return _stacked(layers, mirror)

    def input_vectors(self, ids: Tensor, spellings: Spellings | None = None) -> Tensor:
        """Return the vector of each id under the input encoder; see `BiLM.input_vectors`."""
        vectors: Tensor = self._network.input(self.inputs(ids[None], spellings))
        return vectors[0]

    def layers_of_inputs(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return all layers with gradients for the input vectors only, without dropout.

        Not affected by the caller's autocast.

        Args:
            inputs: as in `BiLM.forward`.
            lengths: number of tokens of each row, (batch,) int64.
        """
        recurrent = constant_weights(self._network.recurrent)
        mirror = mirror_of(lengths, inputs.shape[1])
        with self._autocast(inputs.device):
            x = self._begun(inputs, mirror, fixed=True)
            state = self._network.zero_state(len(inputs))
            run = recurrent(x, state, training=False)
        return _stacked((x, *run.outputs), mirror)

    def frozen_layers(
        self, ids: Tensor, lengths: Tensor, spellings: Spellings | None = None
    ) -> Tensor:
        """Return all layers as `layers` does, without gradients and without dropout.

        The text is read in chunks, so the memory is that of the result. Vectors of words are cached.
        Not affected by the caller's autocast.

        Raises:
            VectorError: if a vector holds NaN or infinity.
        """
        network, (batch, time) = self._network, ids.shape
        weights = next(network.parameters())
        order = lengths.cpu().argsort(descending=True, stable=True)
        ids, counts = ids.cpu()[order], lengths.cpu()[order]
        mirror = mirror_of(counts, time)
        streams = self._words(as_read(ids, mirror, self._starts), spellings)
        # (depth, directions, batch, time + 1, direction_width); a tensor that autograd may save
        shape = (network.recurrent.config.layers + 1, len(self._starts), batch, time + 1)
        with torch.inference_mode(False):
            found = weights.new_zeros(*shape, network.direction_width).requires_grad_(False)
        with self.inference():
            state = network.zero_state(batch)
            for start, read in self._chunks(streams, counts.tolist(), state):
                for index, values in enumerate(read):
                    part = slice(start, start + values.shape[1])
                    found[index, :, : values.shape[2], part] = values.transpose(1, 2)
        if not found.isfinite().all():
            raise VectorError("a layer of a text")
        inverse = order.argsort().to(found.device)
        return aligned(found[:, :, :, 1:], mirror.to(found.device))[:, inverse]

    def inputs(self, ids: Tensor, spellings: Spellings | None = None) -> Tensor | Types:
        """Convert ids to what the network's input encoder reads: ids, or `Types` for a character CNN.

        Args:
            ids: token ids, int64 (directions, time, rows).
            spellings: spelling of each id. None means the tokenizer's.
        """
        own = self._spellings
        if spellings is not None and own is not None:
            # A batch knows its words; the model knows how they are spelled.
            spellings = Spellings(spellings.spelling, 0, own.max_characters, own.speller)
        spellings = spellings or own
        if spellings is None:
            return ids
        types = types_of_window(ids.cpu().numpy(), spellings)
        characters = tuple(bucket.to(ids.device) for bucket in types.characters)
        return Types(characters, types.positions.to(ids.device))

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Compute without gradients in this block, with matrix products in ``matmul_dtype``.

        The methods below must be called in it. Cached vectors of words are discarded if the weights have
        changed. The caller's autocast is replaced, so that neither the vectors nor the cache depend on it.
        """
        before_computing()
        device = next(self._network.parameters()).device
        with torch.inference_mode(), self._autocast(device):
            if self._types is not None:
                # A CharCNN, or a module that wraps one.
                network = cast(CharCNN, self._network.input)
                self._types.refresh(network, self._matmul_dtype)
            yield

    def _autocast(self, device: torch.device) -> torch.autocast:
        dtype = self._matmul_dtype
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

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
        puts: Sequence[Put],
        advance: Advance,
    ) -> None:
        """Compute the vectors of each text of a batch, some positions at a time.

        Args:
            texts: tokens of each text of a batch.
            layers: indices of the wanted layers; 0 is the input.
            state: initial state, (recurrent layers, directions, 1, state_width).
            puts: receives the vectors of each text.
            advance: called with the number of positions, whenever some were computed.

        Raises:
            VectorError: if a vector holds NaN or infinity.
        """
        if not self._network.reading_directions and self._types is None:
            self._look_up(texts, layers, puts, advance)
            return

        def chunks(texts: Sequence[Sequence[Token]]) -> Iterator[tuple[int, list[Tensor]]]:
            states = state.expand(-1, -1, len(texts), -1)
            for start, read in self._chunks(self.streams(texts), [*map(len, texts)], states):
                yield start, [read[layer] for layer in layers]
                advance(read[0].shape[1] * read[0].shape[2])

        distribute(chunks, texts, puts, [f"layer {layer} of a text" for layer in layers])

    def _look_up(
        self,
        texts: Sequence[Sequence[Token]],
        layers: Sequence[int],
        puts: Sequence[Put],
        advance: Advance,
    ) -> None:
        """Do the work of `encode` for a model without recurrent layers, which reads no boundary token."""
        device = next(self._network.parameters()).device
        ids = np.array([token.id for text in texts for token in text], np.int64)
        ends = np.cumsum([len(text) for text in texts])
        for start in range(0, len(ids), GPU_POSITIONS):
            part = ids[start : start + GPU_POSITIONS]
            read = to_device(part, device)[None, :, None]
            [vectors] = to_host([self._network.input(read, training=False)])()
            if not np.isfinite(vectors).all():
                raise VectorError("layer 0 of a text")
            first, last = np.searchsorted(ends, [start, start + len(part) - 1], "right")
            for number in range(first, last + 1):
                begin = ends[number] - len(texts[number])
                inside = slice(max(begin, start) - start, ends[number] - start)
                for index in range(len(layers)):
                    puts[number](index, vectors[:, inside, 0], max(start - begin, 0) + 1)
            advance(len(part))

    def _chunks(
        self, streams: Streams, lengths: Sequence[int], state: Tensor
    ) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Run the network over a batch, some positions at a time.

        Args:
            streams: the texts, the longest first.
            lengths: number of tokens of each text, without the boundary token.
            state: initial state, (recurrent layers, directions, batch, state_width).

        Yields:
            The first position of a chunk, and the vectors of each layer, (directions, positions, rows,
            direction_width), of the rows that have not ended.
        """
        positions = GPU_POSITIONS if state.device.type == "cuda" else POSITIONS
        start = end = 0
        while rows := sum(length + 1 > end for length in lengths):
            start, end = end, min(end + max(LEAST, positions // rows), max(lengths) + 1)
            x = self.vectors(streams, slice(start, end), rows, state.device)
            run = self._network.recurrent(x, state[:, :, :rows].contiguous(), training=False)
            state = run.state
            yield start, (x, *run.outputs)

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
        streams = as_read(torch.from_numpy(ids), mirror_of(lengths, ids.shape[1]), starts)
        return Streams(streams.numpy(), list(number))

    def _words(self, ids: Tensor, spellings: Spellings | None) -> Streams:
        """Return ids on the CPU, (directions, time + 1, batch), as `streams` returns texts."""
        spellings = spellings or self._spellings
        if self._types is None or spellings is None:
            return Streams(ids.numpy(), [])
        distinct, numbers = np.unique(ids.numpy(), return_inverse=True)
        marks: dict[int, Word] = {BOS: BEGIN, EOS: END}
        words = [(id_, marks.get(id_) or spellings.spelling(id_)) for id_ in distinct.tolist()]
        return Streams(numbers.reshape(ids.shape), words)

    def _begun(self, inputs: Tensor, mirror: Tensor, fixed: bool = False) -> Tensor:
        """Return input vectors (batch, time, direction_width) as each direction reads them.

        The vector of the boundary token comes first: (directions, time + 1, batch, direction_width).
        It has a gradient unless ``fixed``.
        """
        marks = torch.tensor(self._starts, device=inputs.device)[:, None, None]
        first: Tensor = self._network.input(self.inputs(marks), training=False).to(inputs.dtype)
        first = first.detach() if fixed else first
        reverse = inputs.gather(1, mirror[..., None].expand_as(inputs))
        read = torch.stack((inputs, reverse)[: len(self._starts)]).transpose(1, 2)
        return torch.cat([first.expand(-1, -1, len(inputs), -1), read], 1)

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
            ids = to_device(numbers, device)
            vectors: Tensor = self._network.input(ids, training=False)
            return vectors
        distinct, indices = np.unique(numbers, return_inverse=True)
        words = [streams.words[number] for number in distinct.tolist()]
        table = self._types.of([word for _, word in words], [id_ for id_, _ in words])
        return F.embedding(to_device(indices.reshape(numbers.shape), device), table)


def _stacked(layers: Sequence[Tensor], mirror: Tensor) -> Tensor:
    """Return layers (directions, time + 1, batch, width) as `BiLM.forward` does."""
    # (depth, directions, batch, time, width)
    return aligned(torch.stack(tuple(layers))[:, :, 1:].transpose(2, 3), mirror)
