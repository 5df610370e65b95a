"""One vector per text, and the similarity of such vectors."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_modules.vectors.selection import (
    Embedding,
    Layers,
    Pooling,
    Selection,
    SelectionError,
    Text,
)
from preprocess.tokenizers.aligned_text import check_texts

if TYPE_CHECKING:
    from lightning_modules.vectors.pretrained import BiLM


Vectors = Tensor | npt.NDArray[Any]


class EmptyTextWarning(UserWarning):
    """Warns of texts without tokens, whose vectors are 0."""


def layers_of(layers: Layers | Sequence[int] | int) -> Layers:
    """Return a choice of layers, given as a name, as an index or as indices, as `Selection` has it."""
    if isinstance(layers, str):
        return layers
    return (layers,) if isinstance(layers, int) else tuple(layers)


def encode(
    model: "BiLM",
    texts: Iterable[Text],
    batch_tokens: int,
    layers: Layers | Sequence[int] | int,
    pooling: Pooling | None,
    unit_length: bool,
    progress: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Return a vector per text, (texts, size), on the CPU; see `BiLM.encode`."""
    check_texts(texts)
    texts = list(texts)
    selection = Selection(layers_of(layers), "sentence", pooling)
    selection.check(model.depth)
    count, dim = selection.shape(model.depth, model.dim)
    found = torch.zeros(len(texts), count * dim, dtype=dtype, device="cpu")
    empty = 0
    options: dict[str, Any] = {"layers": selection.layers, "pooling": pooling}
    embeddings = model.iter_embed(texts, batch_tokens, unit="sentence", **options)
    for row, embedding in enumerate(_shown(embeddings, len(texts), progress)):
        if embedding.tokens:
            vector = torch.from_numpy(embedding.vectors.reshape(-1))
            found[row] = normalize(vector, dim=0) if unit_length else vector
        else:
            empty += 1
    if empty:
        warnings.warn(
            f"{empty:,} of {len(texts):,} texts have no tokens; their vectors are 0",
            EmptyTextWarning,
            stacklevel=3,
        )
    return found


def _shown(items: Iterable[Embedding], total: int, progress: bool) -> Iterator[Embedding]:
    """Yield items and, if ``progress``, show on standard error how many of the total have passed."""
    if not progress:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, "texts", total, console=Console(stderr=True))


def similarity(a: Vectors, b: Vectors | None) -> Vectors:
    """Return the cosine of each pair of vectors; see `BiLM.similarity`."""
    first, second = (torch.as_tensor(a if one is None else one).float() for one in (a, b))
    for one in (first, second):
        if one.dim() != 2:
            raise SelectionError(
                f"similarity compares vectors of shape (texts, size), not {tuple(one.shape)}; pass the "
                "result of `encode`"
            )
    if first.shape[1] != second.shape[1]:
        raise SelectionError(
            f"the vectors have the sizes {first.shape[1]} and {second.shape[1]}; encode both with the "
            "same model and the same layers"
        )
    cosines = normalize(first, dim=1) @ normalize(second, dim=1).T
    return cosines if isinstance(a, Tensor) else cosines.numpy()
