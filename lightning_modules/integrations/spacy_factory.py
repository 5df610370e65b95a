"""The spaCy component ``biloom``: contextual vectors of the tokens of a Doc.

    nlp = spacy.blank("en")
    nlp.add_pipe("biloom", config={"model": "runs/quickstart/export"})
    doc = nlp("A first text.")
    doc.tensor  # (tokens, dim); token.vector, span.vector, doc.vector and similarity use it

`spacy_tok2vec` has the layer for components that are trained.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import srsly
from spacy.language import Language
from spacy.util import minibatch

from lightning_modules.config import MixConfig
from lightning_modules.integrations.spacy_model import ModelSource, PipelineError, spanned
from lightning_modules.vectors.selection import Selection, layers_of
from lightning_modules.vectors.sentences import move

Floats = npt.NDArray[np.float32]
DEFAULTS = {
    "layers": "mean",
    "pooling": None,
    "device": "cpu",
    "batch_tokens": 8192,
    "set_hooks": True,
    "bundle": False,
}


def make_biloom(
    nlp: Language,
    name: str,
    model: str,
    layers: str | int | list[int],
    pooling: str | None,
    device: str,
    batch_tokens: int,
    set_hooks: bool,
    bundle: bool,
) -> "BiLMVectors":
    """Make the component; the arguments are those of `BiLMVectors`."""
    source = ModelSource(model, bundle)
    return BiLMVectors(name, source, layers, pooling, device, batch_tokens, set_hooks)


class BiLMVectors:
    """A spaCy component that stores the contextual vectors of a Doc's tokens in ``doc.tensor``.

    The model reads the text of the Doc as it is, and each spaCy token gets the vector of its
    characters. A token that the model does not read, such as a line break, gets the vector 0. A model
    with a `word` tokenizer reads the spaCy tokens as its words.

    Args:
        name: name in the pipeline.
        source: the language model.
        layers: "mean", "top", "mix" (equal weights), "concat", or an index or indices of layers, whose
            vectors are joined to one.
        pooling: how the vectors of several subwords become that of a token, as in `BiLM.embed`.
        device: torch device.
        batch_tokens: tokens of the model per batch.
        set_hooks: whether ``vector`` and ``similarity`` of Docs, spans and tokens use ``doc.tensor``
            even if the vocabulary has static vectors.
    """

    def __init__(
        self,
        name: str,
        source: ModelSource,
        layers: str | int | list[int],
        pooling: str | None,
        device: str,
        batch_tokens: int,
        set_hooks: bool,
    ) -> None:
        self.name, self._source, self._device = name, source, device
        chosen: Any = layers
        chosen_pooling: Any = pooling
        self._selection = Selection(layers_of(chosen), "word", chosen_pooling, MixConfig())
        self._batch_tokens, self._set_hooks = batch_tokens, set_hooks

    def __call__(self, doc: Any) -> Any:
        """Set the vectors of a Doc, and return it."""
        self._annotate([doc])
        return doc

    def pipe(self, stream: Iterable[Any], *, batch_size: int = 128) -> Iterator[Any]:
        """Set the vectors of Docs, a batch at a time; yield them in order."""
        for docs in minibatch(stream, batch_size):
            self._annotate(docs)
            yield from docs

    def _annotate(self, docs: Sequence[Any]) -> None:
        model = self._source.model
        move(model, self._device)
        texts = [spanned(doc) for doc in docs]
        numbers = [text.numbers for text in model.reader.read(texts)]
        embedded = model.embed_selection(texts, self._selection, self._batch_tokens)
        layers, size = self._selection.shape(model.depth, model.dim)
        for doc, rows, one in zip(docs, numbers, embedded, strict=True):
            tensor = np.zeros((len(doc), layers * size), np.float32)
            # (layers, tokens, size) -> (tokens, layers * size)
            joined = one.vectors.transpose(1, 0, 2).reshape(len(rows), layers * size)
            tensor[np.array(rows, np.int64)] = joined
            doc.tensor = tensor
            if self._set_hooks:
                for hooks, vector in (
                    (doc.user_hooks, _mean),
                    (doc.user_span_hooks, _mean),
                    (doc.user_token_hooks, _row),
                ):
                    hooks.update(vector=vector, has_vector=_has, similarity=_cosine)
                # Spans have none: spaCy 3.8 answers their vector_norm with the vector of the hook.
                for hooks in (doc.user_hooks, doc.user_token_hooks):
                    hooks["vector_norm"] = _norm

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return the content hash of the language model and, if it is bundled, its files."""
        data: bytes = srsly.msgpack_dumps(self._source.save())
        return data

    def from_bytes(self, data: bytes, *, exclude: Iterable[str] = ()) -> "BiLMVectors":
        """Load the language model that `to_bytes` describes.

        Raises:
            PipelineError: it is missing or another one.
        """
        saved = srsly.msgpack_loads(data)
        if not isinstance(saved, dict) or saved.keys() != {"content", "files"}:
            raise PipelineError(
                f"{self.name}: the pipeline holds no component of biloom; save it again"
            )
        self._source.restore(saved)  # type: ignore[arg-type]
        return self

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write `to_bytes` to a file."""
        Path(path).write_bytes(self.to_bytes())

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "BiLMVectors":
        """Load what `to_disk` wrote; errors as in `from_bytes`."""
        return self.from_bytes(Path(path).read_bytes())


def _row(token: Any) -> Floats:
    row: Floats = token.doc.tensor[token.i]
    return row


def _mean(tokens: Any) -> Floats:
    """Return the mean vector of a Doc or a span; 0 if it is empty."""
    doc = getattr(tokens, "doc", tokens)
    rows = doc.tensor[tokens.start : tokens.end] if tokens is not doc else doc.tensor
    mean: Floats = rows.mean(0) if len(rows) else np.zeros(rows.shape[1], np.float32)
    return mean


def _norm(one: Any) -> float:
    return float(np.linalg.norm(one.vector))


def _has(one: Any) -> bool:
    return bool(one.vector.any())


def _cosine(one: Any, other: Any) -> float:
    """Return the cosine of two vectors; 0 if one of them is 0."""
    norms = float(np.linalg.norm(one.vector) * np.linalg.norm(other.vector))
    return float(one.vector @ other.vector) / norms if norms else 0.0


Language.factory("biloom", assigns=["doc.tensor"], default_config=DEFAULTS, func=make_biloom)
