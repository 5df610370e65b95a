"""Vectors of labelled texts: all layers, computed once by a frozen model or taken from a cache.

Legend of shapes: depth is the number of layers, the input included. dim is the size of a vector in
one layer. A unit is what has a vector: a token, a word or a whole text.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.tasks.stored_vectors import StoredVectors
from lightning_modules.tasks.threads import embedding_threads
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Unit
from preprocess.errors import UserError
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.shard import Text, text_key

Floats = npt.NDArray[np.float32]

MEMORY_BYTES = 1 << 29
"""Vectors that are kept in memory; the others are in temporary files."""
SHOWN = 3
"""Missing texts that a message shows."""


class FeatureError(UserError):
    """Raised if a model or a cache cannot give the vectors of the texts."""


class Progress(Protocol):
    """A progress bar."""

    def update(self, done: float, note: str = "") -> None:
        """Set the bar to ``done`` and show ``note`` beside it."""


class Padded(NamedTuple):
    """The vectors of a batch of texts.

    Attributes:
        layers: (depth, batch, units, dim) float32, 0 past the end of a text.
        lengths: number of units of each text, (batch,) int64.
    """

    layers: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> "Padded":
        """Return the batch on a device."""
        return Padded(self.layers.to(device), self.lengths.to(device))


class Features:
    """The vectors of texts, by index.

    Equal texts share their vectors.

    Args:
        depth: layers of a text.
        dim: size of a vector in one layer.
        unit: what has a vector.
        model: ``content`` hash of the model that computed the vectors.
        slots: for each text the index of its vectors in ``stored``.
        keys: for each text its key, as `preprocess.vectors.shard.text_key` gives it.
        stored: the vectors of each distinct text, each (depth, units, dim).

    Attributes:
        depth, dim, unit, model: the arguments.
        lengths: number of units of each text, (texts,) int64.
    """

    def __init__(
        self,
        depth: int,
        dim: int,
        unit: str,
        model: str,
        slots: npt.NDArray[np.int64],
        keys: Sequence[bytes],
        stored: StoredVectors,
    ) -> None:
        self.depth, self.dim, self.unit, self.model = depth, dim, unit, model
        self._slots, self._keys, self._stored = slots, keys, stored
        self.lengths = stored.lengths[slots]

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> Floats:
        """Return the vectors of a text, (depth, units, dim) float32; do not write to it.

        Raises:
            IndexError: if no text has this index.
        """
        return self._stored.get(int(self._slots[index]))

    def __iter__(self) -> Iterator[Floats]:
        return (self[index] for index in range(len(self)))

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Features":
        """Return the features of some texts, in the given order, without a copy of the vectors."""
        chosen = np.asarray(indices, np.int64)
        keys = [self._keys[index] for index in chosen.tolist()]
        slots = self._slots[chosen]
        return Features(self.depth, self.dim, self.unit, self.model, slots, keys, self._stored)

    def batch(self, indices: Sequence[int], most_units: int | None = None) -> Padded:
        """Return the vectors of some texts, padded to the longest one.

        Args:
            indices: indices of the texts.
            most_units: number of units of a text that are used; None means all.
        """
        lengths = np.minimum(self.lengths[list(indices)], most_units or np.iinfo(np.int64).max)
        layers = np.zeros((self.depth, len(indices), int(lengths.max(initial=0)), self.dim), "f4")
        for row, (index, length) in enumerate(zip(indices, lengths.tolist(), strict=True)):
            layers[:, row, :length] = self[index][:, :length]
        return Padded(torch.from_numpy(layers), torch.from_numpy(lengths))

    @property
    def content(self) -> str:
        """A hash of the model, the unit and the texts, in hexadecimal."""
        digest = blake2b(f"{self.model} {self.unit} {self.depth}".encode(), digest_size=16)
        for key in self._keys:
            digest.update(key)
        return digest.hexdigest()


def features_of(
    model: BiLM | None,
    cache: VectorCache | None,
    texts: Sequence[Text],
    unit: Unit,
    progress: Progress | None = None,
    memory_bytes: int = MEMORY_BYTES,
    batch_tokens: int = 8192,
) -> Features:
    """Return the vectors of all layers of each text.

    Each distinct text is computed once, without gradients. A text of the cache is read from it; the
    model computes the others. Vectors of a cache stay there and are read when they are requested.

    Args:
        model: the model, or None if the cache has all texts.
        cache: a vector cache, or None.
        texts: strings, or lists of words. An empty text has vectors of shape (depth, 0, dim).
        unit: what has a vector: each "token", each "word", or the whole text ("sentence").
        progress: set to the number of texts that are done.
        memory_bytes: vectors that are kept in memory; the others are in temporary files in
            ``TMPDIR``.
        batch_tokens: tokens per batch. With 1, each text is a batch by itself, so that
            its vectors do not depend on the other texts, to the bit.

    Raises:
        FeatureError: if there is neither a model nor a cache, the cache has another unit, another
            model or not all layers of the model, a text is not in it and there is no model, or it
            holds NaN or infinity.
        CacheError: if the cache is damaged.
        ScratchError: if the disk has no room for a temporary file.
        VectorError: if the model computes NaN or infinity.
    """
    depth, dim = _sizes(model, cache, unit)
    keys = [text_key(text) for text in texts]
    slot_of: dict[bytes, int] = {}
    slots = np.array([slot_of.setdefault(key, len(slot_of)) for key in keys], np.int64)
    distinct = [texts[index] for index in np.unique(slots, return_index=True)[1].tolist()]
    stored = StoredVectors(memory_bytes)
    with embedding_threads(model, batch_tokens) if model else nullcontext():
        _fill(stored, model, cache, distinct, unit, (depth, dim), progress, batch_tokens)
    stored.finish()
    content = model.content if model else cache.model if cache else ""
    return Features(depth, dim, unit, content, slots, keys, stored)


def _sizes(model: BiLM | None, cache: VectorCache | None, unit: str) -> tuple[int, int]:
    """Return depth and dim, after a check that the cache fits the model and the unit."""
    if cache is None:
        if model is None:
            raise FeatureError("no vectors: pass a model, a vector cache, or both")
        return model.depth, model.dim
    if cache.unit != unit:
        raise FeatureError(
            f"{cache.path}: this vector cache has a vector for each {cache.unit}, but {unit} vectors are "
            f"requested; set unit={cache.unit}, or make another cache with `biloom embed "
            f"embed.unit={unit}`"
        )
    if cache.manifest.details.get("vectors", {}).get("kind", "vector") != "vector":
        raise FeatureError(
            f"{cache.path}: this vector cache holds gradients, but a task reads vectors; make a cache of "
            "vectors with `biloom embed embed.kind=vector`, or pass the model folder"
        )
    if model is None:
        return cache.layers, cache.dim
    if model.content and cache.model != model.content:
        raise FeatureError(
            f"{cache.path}: this vector cache was made by another model ({cache.model[:12]}, not "
            f"{model.content[:12]}); use the cache of this model, or make one with `biloom embed`"
        )
    if (cache.layers, cache.dim) != (model.depth, model.dim):
        raise FeatureError(
            f"{cache.path}: this vector cache has {cache.layers} layers of {cache.dim} dimensions, but "
            f"the model has {model.depth} of {model.dim}; make a cache of all layers with `biloom embed "
            "embed.layers=all`"
        )
    return model.depth, model.dim


def _fill(
    stored: StoredVectors,
    model: BiLM | None,
    cache: VectorCache | None,
    texts: Sequence[Text],
    unit: Unit,
    sizes: tuple[int, int],
    progress: Progress | None,
    batch_tokens: int,
) -> None:
    """Store the vectors of distinct texts, in order."""
    has = cache.has(b"".join(map(text_key, texts))) if cache else np.zeros(len(texts), np.bool_)
    missing = [text for text, found in zip(texts, has, strict=True) if not found]
    if model is None:
        assert cache is not None, "checked by _sizes"
        # A string without characters has no units in any model, so it needs no entry.
        missing = [text for text in missing if not _is_empty(text)]
        if missing:
            raise FeatureError(_missing(cache, missing, len(texts)))
    computed = iter(model.iter_embed(missing, batch_tokens, unit=unit) if model and missing else ())
    began, units = time.monotonic(), 0
    for done, (text, found) in enumerate(zip(texts, has, strict=True), 1):
        if found:
            assert cache is not None, "only a cache has texts"
            stored.refer(cache, text, _checked(cache, text))
        else:
            embedding = next(computed, None)
            vectors = (
                np.zeros((sizes[0], 0, sizes[1]), "f4") if embedding is None else embedding.vectors
            )
            stored.add(vectors)
            units += vectors.shape[1]
        if progress:
            speed = units / max(time.monotonic() - began, 1e-9)
            progress.update(done, f"{speed:,.0f} {unit}s/s" if units else "")


def _is_empty(text: Text) -> bool:
    return not (text.strip() if isinstance(text, str) else text)


def _checked(cache: VectorCache, text: Text) -> int:
    """Return the number of units of a text in a cache, after a check of its vectors."""
    vectors = cache[text]
    if not np.isfinite(vectors).all():
        raise FeatureError(
            f"{cache.path}: the vectors of {_shown(text)} hold NaN or infinity; make the cache again "
            "with `biloom embed --overwrite`, of a model whose weights are finite"
        )
    return int(vectors.shape[1])


def _missing(cache: VectorCache, missing: Sequence[Text], total: int) -> str:
    shown = "; ".join(map(_shown, missing[:SHOWN]))
    more = "; ..." if len(missing) > SHOWN else ""
    return (
        f"{cache.path}: {len(missing):,} of {total:,} texts are not in this vector cache ({shown}{more}); "
        "pass the model folder, or add the texts to the cache with `biloom embed`, exactly as they are "
        "in the labelled file"
    )


def _shown(text: Text) -> str:
    return f"{text if isinstance(text, str) else ' '.join(text)!r:.60}"
