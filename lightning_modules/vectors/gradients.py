"""The gradient representation: how the loss of a text changes with each of its vectors.

L_f and L_b are the losses of the forward and of the backward language model on a text: the sums of
-log p over all its tokens and the closing boundary, in nats, over the full vocabulary, without
dropout. The gradient representation has the shape of the vectors, (layers, tokens, dim):

    G[l, t] = (dL_f / dh_f[l, t], dL_b / dh_b[l, t])

h_f[l, t] and h_b[l, t] are the halves of the vector of token t in layer l, after clips and the residual
connection. Layer 0 is the input, which each direction reads for itself. There are two paths:

- "upward" holds all other vectors of layer l constant: the loss is a function of the vectors of layer l
  through the layers above it and the output layer.
- "total" also counts that the hidden state h of layer l is read by the next step of the same layer. In an
  LSTM the cell state c of token t is held constant.

The paths agree in layer 0, which has no state. A clipped value has gradient 0.

A long text is computed in chunks: forwards, to know the state before each chunk, then backwards, where the
gradient of the state before a chunk is carried to the chunk before it. Nothing is truncated.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.nn.bilm import BiLMNetwork, NoHead
from lightning_modules.nn.mode import constant_weights
from lightning_modules.nn.window import Window
from lightning_modules.vectors.batches import LEAST
from lightning_modules.vectors.encoder import POSITIONS, Encoder
from lightning_modules.vectors.selection import GradientPath, SelectionError
from lightning_modules.vectors.streams import (
    Int64Ids,
    Put,
    Streams,
    distribute,
    padded_targets,
    targets_of,
)
from lightning_modules.vectors.type_vectors import Advance
from preprocess.tokenizers.base import Token


def needs_head(layers: int) -> str:
    """Return why a model without an output layer has no gradients, and what to do.

    Args:
        layers: number of its recurrent layers.
    """
    if not layers:
        return (
            "kind: the gradient of the loss needs a language model, but this model is static (it has no "
            "recurrent layers); name the model that it was made from, or use kind vector"
        )
    return (
        "kind: the gradient of the loss needs the output layer, which this model lacks; export it again with "
        "export.head=true, or use kind vector"
    )


class _Chunk(NamedTuple):
    """Positions of a batch that are computed at once."""

    part: slice  # in time
    rows: int  # texts that have not ended before it; they are the first ones


class GradientEncoder:
    """Computes gradients where `Encoder.encode` computes vectors.

    Args:
        encoder: the encoder of the network.
        network: the model, which must have an output layer.
        starts: boundary tokens that the forward and the backward language model begin with.
        path: as in the module's docstring.

    Raises:
        SelectionError: if the model has no output layer.
    """

    def __init__(
        self, encoder: Encoder, network: BiLMNetwork, starts: tuple[int, int], path: GradientPath
    ) -> None:
        if isinstance(network.head, NoHead):
            raise SelectionError(needs_head(network.recurrent.config.layers))
        self._encoder, self._starts, self._path = encoder, starts, path
        self._network = constant_weights(network)

    def encode(
        self,
        texts: Sequence[Sequence[Token]],
        layers: Sequence[int],
        state: Tensor,
        puts: Sequence[Put],
        advance: Advance,
    ) -> None:
        """Compute the gradients of each text of a batch, some positions at a time.

        It must be called in `Encoder.inference`. Arguments are those of `Encoder.encode`.

        Raises:
            VectorError: if a gradient holds NaN or infinity.
        """
        chunks = partial(self._chunks, layers=layers, state=state, advance=advance)
        names = [f"the gradient of layer {layer} of a text" for layer in layers]
        distribute(chunks, texts, puts, names)

    def _chunks(
        self,
        texts: Sequence[Sequence[Token]],
        layers: Sequence[int],
        state: Tensor,
        advance: Advance,
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield the first position and the gradients of each chunk, the last chunk first.

        Gradients are (directions, positions, rows, direction_width), one for each of ``layers``.

        Args:
            texts: tokens of each text, longest text first.
            layers: indices of the wanted layers.
            state: initial state, (recurrent layers, directions, 1, state_width).
            advance: called with the number of positions, whenever some were computed.
        """
        network = self._network
        predictable = network.output_vocabulary
        targets = [targets_of([t.id for t in text], self._starts, predictable) for text in texts]
        padded = padded_targets(targets, network.directions)
        streams = self._encoder.streams(texts)
        chunks = _plan([len(text) for text in texts])
        before = [state.expand(-1, -1, len(texts), -1)]  # the state before each chunk
        for chunk, after in pairwise(chunks):
            x = self._encoder.vectors(streams, chunk.part, chunk.rows, state.device)
            run = network.recurrent(x, before[-1].contiguous(), training=False)
            before.append(run.state[:, :, : after.rows])
            advance(x.shape[1] * chunk.rows)
        adjoint: Tensor | None = None  # gradient of the state after the chunk
        for chunk in reversed(chunks):
            gradients, adjoint = self._chunk(streams, padded, chunk, layers, before.pop(), adjoint)
            yield chunk.part.start, gradients
            advance(gradients[0].shape[1] * chunk.rows)

    def _chunk(
        self,
        streams: Streams,
        targets: Int64Ids,
        chunk: _Chunk,
        layers: Sequence[int],
        state: Tensor,
        adjoint: Tensor | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Return the gradients of the wanted layers and of the state before the chunk.

        Args:
            streams: the texts.
            targets: int64 (directions, time, texts).
            chunk: positions and rows.
            layers: indices of the wanted layers.
            state: state before the chunk.
            adjoint: gradient of the state after the chunk, for its first rows; None after the end.
        """
        network = self._network
        part, rows = chunk
        x = self._encoder.vectors(streams, part, rows, state.device)
        with torch.inference_mode(False), torch.enable_grad():
            ids = torch.from_numpy(targets[:, part, :rows]).to(state.device)
            # Copies, because tensors made in inference mode have no gradient.
            x = x[:, : ids.shape[1]].clone().requires_grad_()
            state = state.clone(memory_format=torch.contiguous_format).requires_grad_()
            taps = None
            if self._path == "total":
                taps = [
                    x.new_zeros(()).expand_as(x).requires_grad_() for _ in network.recurrent.layers
                ]
            run = network.recurrent(x, state, training=False, taps=taps)
            nll = network.target_nll(run.outputs[-1], Window(ids, ids), training=False)
            results, weights = [nll.sum()], [nll.new_ones(())]
            if adjoint is not None:
                results.append(run.state[:, :, : adjoint.shape[2]])
                weights.append(adjoint)
            points = (x, *(taps or run.outputs))
            *gradients, before = torch.autograd.grad(
                results, [*(points[layer] for layer in layers), state], weights
            )
        return gradients, before


def _plan(lengths: Sequence[int]) -> list[_Chunk]:
    """Divide texts of these lengths, longest first, into chunks, as `Encoder.encode` does."""
    chunks: list[_Chunk] = []
    end = 0
    while rows := sum(length + 1 > end for length in lengths):
        start, end = end, end + max(LEAST, POSITIONS // rows)
        chunks.append(_Chunk(slice(start, end), rows))
    return chunks
