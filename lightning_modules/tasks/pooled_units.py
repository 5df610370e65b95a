"""One vector for each layer of a text, pooled while the text is read, in memory that its length does not
change much.

Legend of shapes: depth is the number of layers, dim the size of a token's vector in one layer.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.threads import embedding_threads
from lightning_modules.vectors.batches import plan_batches
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Selection, Text, units_of
from lightning_modules.vectors.streams import in_text_order
from preprocess.tokenizers.aligned_text import Tokenised

Floats = npt.NDArray[np.float32]
Pooling = Literal["mean", "max", "mean_max"]


class RunningPool:
    """Mean and maximum over the units of a text, whose vectors arrive in parts.

    A word's vector has the forward half of its last token and the backward half of its first, so the model
    must have recurrent layers if ``unit`` is "word".

    Args:
        text: the text.
        unit: "token" or "word".
        depth, dim: as above.

    Attributes:
        units: number of units.
    """

    def __init__(
        self, text: Tokenised, unit: Literal["token", "word"], depth: int, dim: int
    ) -> None:
        _, spans = units_of(text, unit)
        self.units, tokens = len(spans.first), len(text.tokens)
        # How many units have their half of a direction at each token; None means one at each.
        self._counts: list[npt.NDArray[np.int64] | None] = [None, None]
        if unit == "word":
            self._counts = [
                np.bincount(ends, minlength=tokens) for ends in (spans.last, spans.first)
            ]
        self._tokens = tokens
        self._sum = np.zeros((depth, dim))
        self._max = np.full((depth, dim), -np.inf, np.float32)

    def put(self, layer: int, values: Floats, start: int) -> None:
        """Receive some positions, as `lightning_modules.vectors.streams.Put`."""
        width = values.shape[2]
        for direction, (part, found) in enumerate(in_text_order(values, self._tokens, start)):
            half = slice(direction * width, (direction + 1) * width)
            counts = self._counts[direction]
            if counts is None:
                total = found.sum(0, dtype=np.float64)
            else:
                times = counts[part]
                total = (found * times[:, None]).sum(0, dtype=np.float64)
                found = found[times > 0]
            self._sum[layer, half] += total
            self._max[layer, half] = np.maximum(
                self._max[layer, half], found.max(0, initial=-np.inf)
            )

    def pooled(self, pooling: Pooling) -> Floats:
        """Return (depth, dim), or for "mean_max" (depth, 2 dim); zeros without units."""
        parts = []
        if pooling in ("mean", "mean_max"):
            parts.append((self._sum / max(self.units, 1)).astype(np.float32))
        if pooling in ("max", "mean_max"):
            parts.append(self._max if self.units else np.zeros_like(self._max))
        return np.concatenate(parts, 1)


def pooled_units(
    model: BiLM,
    texts: Sequence[Text],
    unit: Literal["token", "word"],
    pooling: Pooling,
    batch_tokens: int,
) -> list[tuple[Floats, int]]:
    """Return the pooled vectors of each text, and its number of units.

    Args:
        model: the language model.
        texts: the texts.
        unit: what is pooled.
        pooling: how.
        batch_tokens: tokens per batch. With 1, each text is a batch by itself.

    Raises:
        VectorError: the model computes NaN or infinity.
    """
    read = model.reader.read(texts)
    model.reader.warn_of_no_spaces([unit == "word" and text.lacks_spaces for text in read])
    if unit == "word" and not model.network.reading_directions:
        return _pooled_means(model, texts, pooling, batch_tokens)
    found: dict[int, RunningPool] = {}
    with embedding_threads(model, batch_tokens), model.encoder.inference():
        state = model.network.zero_state(1)
        model.encoder.learn((text.tokens for text in read), lambda _: None)
        lengths = [len(text.tokens) for text in read]
        for batch in plan_batches(lengths, batch_tokens, padding=False):
            pools = [RunningPool(read[number], unit, model.depth, model.dim) for number in batch]
            model.encoder.encode(
                [read[number].tokens for number in batch],
                range(model.depth),
                state,
                [pool.put for pool in pools],
                lambda _: None,
            )
            found.update(zip(batch, pools, strict=True))
    return [(found[n].pooled(pooling), found[n].units) for n in range(len(texts))]


def _pooled_means(
    model: BiLM, texts: Sequence[Text], pooling: Pooling, batch_tokens: int
) -> list[tuple[Floats, int]]:
    """Return `pooled_units` of words whose vectors are the means of their tokens."""
    pooled = []
    for one in model.embed_selection(texts, Selection("all", "word"), batch_tokens):
        parts = []
        units = one.vectors.shape[1]
        if pooling in ("mean", "mean_max"):
            total = one.vectors.sum(1, dtype=np.float64)
            parts.append((total / max(units, 1)).astype(np.float32))
        if pooling in ("max", "mean_max"):
            parts.append(one.vectors.max(1, initial=-np.inf if units else 0))
        pooled.append((np.concatenate(parts, 1), units))
    return pooled
