"""Which vectors of a text are wanted: which layers, or what is made of them, and of which unit.

Legend: depth = layers, that of the input included; dim = dimensions of a token's vector in a layer,
forward half, then backward half.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lightning_modules.config import MixConfig
from lightning_modules.nn.scalar_mix import EPSILON, mix_layers
from lightning_modules.vectors.scratch import Allocate
from preprocess.errors import UserError

Layers = Literal["all", "top", "mean", "mix", "concat"] | tuple[int, ...]
Unit = Literal["token", "word", "sentence"]
Pooling = Literal["direction", "mean", "first", "last"]
Floats = npt.NDArray[np.float32]

BLOCK_BYTES = 1 << 24


class SelectionError(UserError):
    """Layers that a model has not, or weights for another number of layers."""


class Spans(NamedTuple):
    """For each unit the first and the last of its tokens, int64 (units,)."""

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """What is made of all layers of all tokens.

    layers: "all"; "top"; "mean" of all; "mix", their weighted sum; "concat", one after the other in
    one vector; or numbers of layers, 0 that of the input, negative ones from the top.
    unit: a "token", a "word" or the whole "sentence" has a vector.
    pooling: how a word or sentence has one vector. "direction": the forward half at its last token
    and the backward half at its first, where each has read all of it; "mean" of its tokens; both
    halves at its "first" or its "last".
    mix: for "mix" alone.
    """

    layers: Layers = "all"
    unit: Unit = "token"
    pooling: Pooling = "direction"
    mix: MixConfig = field(default_factory=MixConfig)

    def check(self, depth: int) -> None:
        """Raise SelectionError where a model of this depth cannot give that."""
        if isinstance(self.layers, tuple):
            if not self.layers:
                raise SelectionError("layers: an empty list names no layer; name one, or 'all'")
            for layer in self.layers:
                if not -depth <= layer < depth:
                    raise SelectionError(
                        f"layers: this model has no layer {layer}; there are 0 (the input's) to "
                        f"{depth - 1}, or -1 for the top one"
                    )
        elif self.layers not in ("all", "top", "mean", "mix", "concat"):
            raise SelectionError(
                f"layers: {self.layers!r} is none of all, top, mean, mix, concat, nor a list of numbers"
            )
        if self.unit not in ("token", "word", "sentence"):
            raise SelectionError(f"unit: {self.unit!r} is none of token, word, sentence")
        if self.pooling not in ("direction", "mean", "first", "last"):
            raise SelectionError(
                f"pooling: {self.pooling!r} is none of direction, mean, first, last"
            )
        weights = self.mix.weights
        if self.layers == "mix" and weights is not None and len(weights) != depth:
            raise SelectionError(
                f"mix.weights: {len(weights)} weights, but this model has {depth} layers, that of the "
                "input included"
            )

    def read_layers(self, depth: int) -> list[int]:
        """The layers that are needed, from 0 on."""
        if isinstance(self.layers, tuple):
            return [layer % depth for layer in self.layers]
        return [depth - 1] if self.layers == "top" else list(range(depth))

    def shape(self, depth: int, dim: int) -> tuple[int, int]:
        """Layers and dimensions of what is given for each unit."""
        if self.layers == "concat":
            return 1, depth * dim
        if self.layers in ("top", "mean", "mix"):
            return 1, dim
        return len(self.read_layers(depth)), dim

    def of(self, read: Floats, spans: Spans, directions: int, new: Allocate) -> Floats:
        """The vectors of a text's units, (layers, units, dim), in pieces of bounded memory.

        Args:
            read: (layers that are needed, tokens, dim) of one text.
            spans: the tokens of each unit.
            directions: 2 where a vector has two halves, 1 where the forward language model is alone.
            new: makes the result's array.
        """
        if self.layers == "all" and self.unit == "token":
            return read
        depth, _, dim = read.shape
        layers, width = self._made(depth, dim)
        found = new((layers, len(spans.first), width))
        norms = _norms(read) if self.layers == "mix" and self.mix.layer_norm else None
        for part in _pieces(len(spans.first), depth * dim * 4):
            pooled = self._pool(read, Spans(spans.first[part], spans.last[part]), directions)
            if norms is not None:
                # A weighted mean of vectors: normalising before or after pooling is the same.
                pooled = (pooled - norms[0]) / norms[1]
            found[:, part] = self._combine(pooled)
        return found

    def _made(self, depth: int, dim: int) -> tuple[int, int]:
        if self.layers == "concat":
            return 1, depth * dim
        return (1, dim) if self.layers in ("mean", "mix") else (depth, dim)

    def _pool(self, read: Floats, spans: Spans, directions: int) -> Floats:
        """(layers, tokens, dim) -> (layers, units, dim)."""
        if self.pooling == "mean" and self.unit != "token":
            return _means(read, spans)
        ends = {"first": (spans.first,) * 2, "last": (spans.last,) * 2}
        forward, backward = ends.get(self.pooling, (spans.last, spans.first))
        if directions == 1 or forward is backward or np.array_equal(forward, backward):
            return read[:, forward]
        half = read.shape[2] // 2
        return np.concatenate([read[:, forward, :half], read[:, backward, half:]], 2)

    def _combine(self, pooled: Floats) -> Floats:
        """(layers, units, dim) -> (layers that are given, units, their dim)."""
        depth, units, dim = pooled.shape
        if self.layers == "concat":
            return pooled.transpose(1, 0, 2).reshape(1, units, depth * dim)
        if self.layers == "mean":
            mean: Floats = pooled.mean(0, keepdims=True)
            return mean
        if self.layers == "mix":
            weights = torch.tensor(self.mix.weights or (0.0,) * depth, dtype=torch.float64)
            mixed: Floats = mix_layers(torch.from_numpy(pooled), weights, self.mix.gamma).numpy()
            return mixed[None]
        return pooled


def _pieces(count: int, bytes_each: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // bytes_each)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _norms(read: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each layer over tokens and dimensions, both (layers, 1, 1)."""
    depth, tokens, dim = read.shape
    count = max(1, tokens * dim)
    mean, square = np.zeros(depth), np.zeros(depth)
    for part in _pieces(tokens, depth * dim * 8):
        mean += read[:, part].sum((1, 2), dtype=np.float64) / count
    for part in _pieces(tokens, depth * dim * 8):
        apart = read[:, part].astype(np.float64) - mean[:, None, None]
        square += np.square(apart).sum((1, 2)) / count
    deviation = np.sqrt(square + EPSILON)
    return tuple(one.astype(np.float32)[:, None, None] for one in (mean, deviation))  # type: ignore[return-value]


def _means(read: Floats, spans: Spans) -> Floats:
    """The mean of each unit's tokens, (layers, units, dim)."""
    depth, _, dim = read.shape
    found = np.empty((depth, len(spans.first), dim), np.float32)
    for unit, (first, last) in enumerate(zip(spans.first, spans.last, strict=True)):
        total = np.zeros((depth, dim))
        for part in _pieces(last + 1 - first, depth * dim * 8):
            total += read[:, first + part.start : first + part.stop].sum(1, dtype=np.float64)
        found[:, unit] = total / (last + 1 - first)
    return found
