"""Vectors of texts as a transformer of scikit-learn.

The vectors of a text in all layers are kept in memory, by model and pooling. A grid search over layers,
or over the classifier behind, therefore embeds each text once in each process.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lightning_modules.config import DEFAULT_POOLING
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import (
    Layers,
    Pooling,
    Selection,
    SelectionError,
    Text,
    layers_of,
)
from lightning_modules.vectors.sentences import move, warn_of_empty_texts
from lightning_modules.vectors.type_vectors import fingerprint
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import NAME, read_manifest
from preprocess.tokenizers.aligned_text import checked_texts

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
except ImportError as error:
    raise UserError("BiLMTransformer needs scikit-learn: pip install 'biloom[tasks]'") from error

Floats = npt.NDArray[np.float32]
MODELS_IN_MEMORY = 2
"""Models that a process keeps after loading them from a path."""


class BiLMTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A transformer that maps texts to one vector each.

    It learns nothing, so `transform` works without `fit`. A process loads a model folder once, for all
    transformers with the same path. A pickled transformer holds the path, so that jobs in other
    processes (``n_jobs``) and saved pipelines are small; a transformer with a `BiLM` is pickled with
    all its weights.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> pipeline = make_pipeline(BiLMTransformer("runs/base/export"), LogisticRegression())
        >>> pipeline.fit(texts, labels).predict(["A new text."])

    Args:
        model: path or URL of a model folder, or a `BiLM`.
        layers: "concat" (all layers in one vector), "mean", "top", a layer number, or several, whose
            vectors are concatenated. 0 is the input, -1 the top layer.
        pooling: how the vectors of tokens become that of a text, as in `BiLM.embed`.
        normalize: whether to scale each vector to length 1.
        batch_tokens: tokens per batch.
        device: device that the model is moved to. None means that it stays where it is.
        cache_bytes: bytes of vectors that a process keeps for one model; 0 keeps none.

    Attributes:
        content_: content hash of the model that `fit` has seen.
    """

    def __init__(
        self,
        model: str | Path | BiLM,
        *,
        layers: Layers | Sequence[int] | int = "concat",
        pooling: Pooling | None = None,
        normalize: bool = False,
        batch_tokens: int = 8192,
        device: str | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        self.model = model
        self.layers = layers
        self.pooling = pooling
        self.normalize = normalize
        self.batch_tokens = batch_tokens
        self.device = device
        self.cache_bytes = cache_bytes

    def fit(self, X: Iterable[Text], y: object = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Load the model and check the settings. Neither the texts nor ``y`` are used.

        Raises:
            SelectionError: if the model has no such layer or pooling.
            UserError: if the model cannot be loaded.
        """
        model = self._loaded()
        self._selection(model)
        self.content_ = model.content
        return self

    def transform(self, X: Iterable[Text]) -> Floats:  # noqa: N803
        """Return one vector per text, (texts, size) float32; 0 for a text without tokens.

        Args:
            X: strings or lists of words: a list, a one-dimensional array or a column of a data frame.

        Raises:
            TypeError: if a text is neither a string nor a list of words.
            UserError: if the model folder has changed since `fit`.
            VectorError: if the model computes NaN or infinity.

        Warns:
            EmptyTextWarning: the number of texts without tokens.
        """
        texts = list(checked_texts(X))
        model = self._loaded()
        fitted = getattr(self, "content_", model.content)
        if fitted != model.content:
            raise UserError(
                f"{self.model}: this is another model than the one that the transformer was fitted with "
                f"(content {model.content[:12]}, not {fitted[:12]}); fit the pipeline again, or name the "
                "folder of that model with set_params"
            )
        selection = self._selection(model)
        layers = _cache_of(model).layers(texts, self.pooling, self.batch_tokens, self.cache_bytes)
        found = np.zeros(
            (len(texts), int(np.prod(selection.shape(model.depth, model.dim)))), np.float32
        )
        for row, vectors in zip(found, layers, strict=True):
            if vectors is not None:
                combined = selection.combine(vectors[selection.read_layers(model.depth), None])
                row[:] = combined.reshape(-1)
                if self.normalize:
                    row /= max(float(np.linalg.norm(row)), 1e-12)
        warn_of_empty_texts(sum(vectors is None for vectors in layers), len(texts))
        return found

    @property
    def _n_features_out(self) -> int:
        """Size of a vector, for the names of the features."""
        model = self._loaded()
        count, dim = self._selection(model).shape(model.depth, model.dim)
        return count * dim

    def __sklearn_clone__(self) -> "BiLMTransformer":
        """Return an unfitted copy with the same settings, which shares a `BiLM`."""
        # A copy, because a clone also keeps what `set_output` and requests for metadata have set. The
        # model in the memo is not copied.
        copied = deepcopy(self, {id(self.model): self.model})
        copied.__dict__.pop("content_", None)
        return copied

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _loaded(self) -> BiLM:
        if isinstance(self.model, BiLM):
            move(self.model, self.device)
            return self.model
        path = str(self.model)
        with _LOCK:
            return _load(path, _content(path), self.device)

    def _selection(self, model: BiLM) -> Selection:
        layers = layers_of(self.layers)
        if layers == "mix":
            raise SelectionError(
                "layers: a BiLMTransformer has no learned mix; use mean, top, concat or layer numbers, or "
                "a BiLMEmbedder"
            )
        selection = Selection(layers, "sentence", self.pooling)
        selection.check(model.depth)
        return selection


_LOCK = threading.RLock()
_CACHES: "weakref.WeakKeyDictionary[BiLM, _Cache]" = weakref.WeakKeyDictionary()


def _content(path: str) -> str:
    """Return the content hash of a model folder; "" if there is no folder."""
    found = storage.exists(storage.join(path, NAME))
    return read_manifest(path, "export").content if found else ""


@lru_cache(maxsize=MODELS_IN_MEMORY)
def _load(path: str, content: str, device: str | None) -> BiLM:
    """Load a model; ``content`` is a part of the key, because the folder may be made again."""
    model = BiLM.from_pretrained(path)
    move(model, device)
    return model


def _cache_of(model: BiLM) -> "_Cache":
    """Return the cache of a model with its present weights."""
    weights = fingerprint(model.network)
    with _LOCK:
        cache = _CACHES.get(model)
        if cache is None or cache.weights != weights:
            cache = _CACHES[model] = _Cache(model, weights)
        return cache


class _Cache:
    """The vectors of texts in all layers, by text and pooling; the oldest are dropped first.

    Args:
        model: the model; it is not kept alive.
        weights: fingerprint of its weights.
    """

    def __init__(self, model: BiLM, weights: str) -> None:
        self._model, self.weights = weakref.ref(model), weights
        self._kept: OrderedDict[tuple[object, Pooling], Floats | None] = OrderedDict()
        self._lock = threading.Lock()

    def layers(
        self, texts: Sequence[Text], pooling: Pooling | None, batch_tokens: int, most: int
    ) -> list[Floats | None]:
        """Return the vectors of each text in all layers, (depth, dim); None for no tokens.

        Args:
            texts: the texts.
            pooling: as in `Selection`.
            batch_tokens: tokens per batch.
            most: bytes to keep.
        """
        model = self._model()
        assert model is not None
        chosen = pooling or DEFAULT_POOLING["sentence"]
        keys = [(text if isinstance(text, str) else tuple(text), chosen) for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        options: dict[str, Any] = {"unit": "sentence", "pooling": chosen}
        embeddings = model.iter_embed(new.values(), batch_tokens, **options)
        for key, embedding in zip(new, embeddings, strict=True):
            found[key] = np.array(embedding.vectors[:, 0]) if embedding.tokens else None
        room = max(0, most) // (4 * model.depth * model.dim)
        with self._lock:
            self._kept.update((key, found[key]) for key in new)
            while len(self._kept) > room:
                self._kept.popitem(last=False)
        return [found[key] for key in keys]
