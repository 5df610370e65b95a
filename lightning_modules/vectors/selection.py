"""The choice of vectors: layers, or a combination of them, for tokens, words or whole texts.

Legend of shapes: depth is the number of layers, including the input. dim is the size of a token's
vector in one layer: the forward half, then the backward half.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lightning_modules.config import DEFAULT_POOLING, MixConfig
from lightning_modules.config import Pooling as Pooling
from lightning_modules.config import Unit as Unit
from lightning_modules.nn.scalar_mix import EPSILON, ScalarMix, mix_layers
from lightning_modules.vectors.scratch import Allocate
from preprocess.errors import UserError
from preprocess.tokenizers.aligned_text import NO_ID, Tokenised
from preprocess.tokenizers.base import Token
from preprocess.tokenizers.segmentation.segmenters import check_segmenter

Layers = Literal["all", "top", "mean", "mix", "concat"] | tuple[int, ...]
Kind = Literal["vector", "gradient"]
GradientPath = Literal["total", "upward"]
Floats = npt.NDArray[np.float32]
Text = str | Sequence[str]
"""A text, or its words."""

SHOWN_TEXT = 60
"""Characters of a text that the `repr` of its vectors shows."""

BLOCK_BYTES = 1 << 24
"""Size of the pieces in which vectors are combined, to bound the memory of temporary arrays."""


class SelectionError(UserError):
    """Raised for a choice that a model does not offer, such as a layer it does not have."""


@dataclass(frozen=True)
class Embedding:
    """The vectors of a text.

    Attributes:
        text: the text after cleaning.
        tokens: the units that have a vector: tokens, words, or the whole text. Their offsets
            ``start`` and ``end`` are characters of ``text``.
        vectors: (layers, tokens, dim) float32, also for a single layer or token. The vectors of a
            very long text are a `numpy.memmap` of a temporary file, deleted with the array.
        truncated: number of words that were cut because they are longer than the model reads.
        lacks_spaces: whether the tokens are words that were separated by whitespace, in a text that has
            none between its words.
    """

    text: str
    tokens: tuple[Token, ...]
    vectors: npt.NDArray[np.float32]
    truncated: int = 0
    lacks_spaces: bool = False

    def __repr__(self) -> str:
        layers, tokens, dim = self.vectors.shape
        text = self.text if len(self.text) <= SHOWN_TEXT else f"{self.text[: SHOWN_TEXT - 3]}..."
        sizes = f"{layers} layer{'s' * (layers != 1)}, {tokens} token{'s' * (tokens != 1)}"
        return f"Embedding({sizes}, dim {dim}: {text!r})"


def layers_of(layers: Layers | Sequence[int] | int) -> Layers:
    """Return a choice of layers as `Selection` has it.

    Args:
        layers: a name, an index, or a list or array of indices. Indices may be NumPy integers.

    Raises:
        SelectionError: if it is none of them.
    """
    if isinstance(layers, str):
        return layers
    indices = layers if isinstance(layers, Iterable) else [layers]
    if any(isinstance(one, bool) or not isinstance(one, Integral) for one in indices):
        raise SelectionError(
            f"layers: {layers!r} is unknown; use all, top, mean, mix, concat or a list of layer numbers"
        )
    return tuple(int(one) for one in indices)


class Spans(NamedTuple):
    """Indices of the first and the last token of each unit, int64 (units,)."""

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Which vectors to compute from all layers of all tokens.

    Attributes:
        layers: "all", "top", "mean" (their average), "mix" (their weighted sum), "concat" (all layers
            in one vector), or layer indices: 0 is the input, negative ones count from the top.
        unit: what has a vector: each "token", each "word", or the whole text ("sentence").
        pooling: how the vectors of several tokens become the vector of a word or a text.
            "direction" takes the forward half at the last token and the backward half at the first,
            because there each direction has read the whole unit. "mean", "first" and "last" take
            both halves from these tokens. None means `DEFAULT_POOLING` of the unit. In a model without
            recurrent layers, no direction has read the unit, and "direction" takes the mean.
        mix: settings of ``layers="mix"``; ignored otherwise.
        segmenter: finds the words of strings for ``unit="word"``, one of `segmenters.SEGMENTERS`; None
            means that words are separated by whitespace.
        kind: "vector", or "gradient": the gradient of the text's loss in place of each vector, see
            `lightning_modules.vectors.gradients`.
        path: the paths that a gradient counts, "total" or "upward"; ignored for vectors.
    """

    layers: Layers = "all"
    unit: Unit = "token"
    pooling: Pooling | None = None
    mix: MixConfig = field(default_factory=MixConfig)
    segmenter: str | None = None
    kind: Kind = "vector"
    path: GradientPath = "total"

    @property
    def chosen_pooling(self) -> Pooling:
        """The pooling, or the default of the unit."""
        return self.pooling or DEFAULT_POOLING[self.unit]

    @property
    def counts_padding(self) -> bool:
        """Whether padding counts in `plan_batches`: for gradients, the states of all calls are in memory."""
        return self.kind == "gradient"

    def check(self, depth: int) -> None:
        """Check the choice against a model.

        Raises:
            SelectionError: if a setting is unknown, or a model of this depth does not offer it.
            SegmenterError: if the segmenter is unknown or not installed.
        """
        if isinstance(self.layers, tuple):
            if not self.layers:
                raise SelectionError("layers: the list is empty; name a layer, or write 'all'")
            for layer in self.layers:
                if not -depth <= layer < depth:
                    raise SelectionError(
                        f"layers: this model has no layer {layer}; its layers are 0 (the input) to "
                        f"{depth - 1}, and -1 is the top one"
                    )
        elif self.layers not in ("all", "top", "mean", "mix", "concat"):
            raise SelectionError(
                f"layers: {self.layers!r} is unknown; use all, top, mean, mix, concat or a list of "
                "layer numbers"
            )
        if self.unit not in ("token", "word", "sentence"):
            raise SelectionError(f"unit: {self.unit!r} is unknown; use token, word or sentence")
        if self.pooling not in (None, "direction", "mean", "first", "last"):
            raise SelectionError(
                f"pooling: {self.pooling!r} is unknown; use direction, mean, first or last"
            )
        if self.segmenter is not None:
            if self.unit != "word":
                raise SelectionError(
                    f"segmenter: {self.segmenter} finds words, but the unit is {self.unit}; use the "
                    "unit word, or no segmenter"
                )
            check_segmenter(self.segmenter)
        if self.kind not in ("vector", "gradient"):
            raise SelectionError(f"kind: {self.kind!r} is unknown; use vector or gradient")
        if self.path not in ("total", "upward"):
            raise SelectionError(f"path: {self.path!r} is unknown; use total or upward")
        weights = self.mix.weights
        if self.layers == "mix" and weights is not None and len(weights) != depth:
            raise SelectionError(
                f"mix.weights: {len(weights)} weights, but this model has {depth} layers, including "
                "the input; give one weight per layer"
            )

    def read_layers(self, depth: int) -> list[int]:
        """Return the indices of the layers that are needed, counted from 0."""
        if isinstance(self.layers, tuple):
            return [layer % depth for layer in self.layers]
        return [depth - 1] if self.layers == "top" else list(range(depth))

    def shape(self, depth: int, dim: int) -> tuple[int, int]:
        """Return the number of layers and the size of the vectors of a unit.

        Args:
            depth: layers of the model.
            dim: size of a token's vector in one layer.
        """
        return self._combined_shape(len(self.read_layers(depth)), dim)

    def of(self, read: Floats, spans: Spans, directions: int, new: Allocate) -> Floats:
        """Compute the vectors of a text's units in bounded memory.

        Args:
            read: the layers `read_layers` names, (layers, tokens, dim).
            spans: the tokens of each unit.
            directions: 2; 1 for a forward language model, whose vectors have no backward half; or 0 for
                a model without recurrent layers.
            new: allocates the result.

        Returns:
            (layers, units, size), with layers and size as `shape` gives them.
        """
        if self.layers == "all" and self.unit == "token":
            return read
        depth, _, dim = read.shape
        layers, size = self._combined_shape(depth, dim)
        found = new((layers, len(spans.first), size))
        norms = _norms(read) if self.layers == "mix" and self.mix.layer_norm else None
        for part in _pieces(len(spans.first), depth * dim * 4):
            pooled = self._pool(read, Spans(spans.first[part], spans.last[part]), directions)
            if norms is not None:
                # A weighted mean of vectors: normalising before or after pooling is the same.
                pooled = (pooled - norms[0]) / norms[1]
            found[:, part] = self.combine(pooled)
        return found

    def _combined_shape(self, depth: int, dim: int) -> tuple[int, int]:
        """Layers and size that `_combine` makes of ``depth`` layers."""
        if self.layers == "concat":
            return 1, depth * dim
        return (1, dim) if self.layers in ("mean", "mix") else (depth, dim)

    def _pool(self, read: Floats, spans: Spans, directions: int) -> Floats:
        """(layers, tokens, dim) -> (layers, units, dim)."""
        is_mean = self.chosen_pooling == ("mean" if directions else "direction")
        if self.unit != "token" and (is_mean or self.chosen_pooling == "mean"):
            return _means(read, spans)
        ends = {"first": (spans.first,) * 2, "last": (spans.last,) * 2}
        forward, backward = ends.get(self.chosen_pooling, (spans.last, spans.first))
        if directions == 1 or forward is backward or np.array_equal(forward, backward):
            return read[:, forward]
        half = read.shape[2] // 2
        return np.concatenate([read[:, forward, :half], read[:, backward, half:]], 2)

    def combine(self, pooled: Floats) -> Floats:
        """(layers, units, dim) -> (layers, units, size) as in `shape`."""
        depth, units, dim = pooled.shape
        if self.layers == "concat":
            return pooled.transpose(1, 0, 2).reshape(1, units, depth * dim)
        if self.layers == "mean":
            mean: Floats = pooled.mean(0, keepdims=True)
            return mean
        if self.layers == "mix":
            weights = torch.tensor(
                self.mix.weights or (0.0,) * depth, dtype=torch.float64, device="cpu"
            )
            mixed: Floats = mix_layers(torch.from_numpy(pooled), weights, self.mix.gamma).numpy()
            return mixed[None]
        return pooled


def _pieces(count: int, bytes_each: int) -> Iterator[slice]:
    step = max(1, BLOCK_BYTES // bytes_each)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _norms(read: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each layer over tokens and dimensions, (layers, 1, 1)."""
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
    """Return the mean of each unit's tokens, (layers, units, dim)."""
    depth, _, dim = read.shape
    found = np.empty((depth, len(spans.first), dim), np.float32)
    for unit, (first, last) in enumerate(zip(spans.first, spans.last, strict=True)):
        total = np.zeros((depth, dim))
        for part in _pieces(last + 1 - first, depth * dim * 8):
            total += read[:, first + part.start : first + part.stop].sum(1, dtype=np.float64)
        found[:, unit] = total / (last + 1 - first)
    return found


def units_of(text: Tokenised, unit: Unit) -> tuple[tuple[Token, ...], Spans]:
    """Return the units of a text that get a vector, and the tokens of each."""
    count = len(text.tokens)
    if unit == "word":
        return text.words, Spans(*text.word_spans())
    if unit == "token":
        return text.tokens, Spans(np.arange(count), np.arange(count))
    whole = (Token(NO_ID, text.text, 0, len(text.text)),) if count else ()
    return whole, Spans(np.zeros(len(whole), np.int64), np.full(len(whole), count - 1))


def mix_config(mix: MixConfig | ScalarMix | None) -> MixConfig:
    """Return the settings that mix layers as ``mix`` does; None means the default settings.

    Raises:
        SelectionError: if ``mix`` normalises over a batch.
    """
    if not isinstance(mix, ScalarMix):
        return mix or MixConfig()
    if mix.layer_norm == "batch":
        raise SelectionError(
            "mix: with layer_norm='batch', the vectors of a text depend on the other texts of its "
            "batch; use layer_norm='text', or apply the ScalarMix to the layers of BiLM.forward"
        )
    weights = tuple(mix.weights.detach().tolist())
    return MixConfig(weights=weights, gamma=mix.gamma.item(), layer_norm=bool(mix.layer_norm))
