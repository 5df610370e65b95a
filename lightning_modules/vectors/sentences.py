"""One vector per text, and the similarity of such vectors."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.vectors.selection import (
    Embedding,
    Layers,
    Pooling,
    Selection,
    SelectionError,
    Text,
    layers_of,
)
from preprocess.errors import one_line
from preprocess.tokenizers.aligned_text import checked_texts

Vectors = Tensor | npt.NDArray[Any]


class EmptyTextWarning(UserWarning):
    """Warns of texts without tokens, whose vectors are 0."""


class SentenceEncoding(nn.Module):
    """One vector per text of a `BiLM`."""

    depth: int
    dim: int
    iter_embed: Callable[..., Iterator[Embedding]]

    def encode(
        self,
        texts: str | Iterable[Text],
        batch_tokens: int = 8192,
        *,
        layers: Layers | Sequence[int] | int = "concat",
        pooling: Pooling | None = None,
        normalize: bool = False,
        progress: bool = False,
        device: str | torch.device | None = None,
        tensor: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> Vectors:
        """Return one vector per text, (texts, size), without gradients.

        The result keeps one vector per text in memory; for more texts than that, make a cache.

        Args:
            texts: strings, or lists of words. They are cleaned as the training corpus was. For a single
                string, the result is one vector, (size,).
            batch_tokens: tokens per batch.
            layers, pooling: as in `embed`. Several layers become one long vector. The default, all layers
                and the mean of the tokens, was best for classification.
            normalize: scale each vector to length 1.
            progress: show a progress bar on standard error.
            device: device that the model is moved to first. None means that it stays where it is.
            tensor: return a tensor on the device of the model instead of a NumPy array.
            dtype: dtype of the result. NumPy has no bfloat16, which therefore needs ``tensor=True``.

        Returns:
            A NumPy array, or a tensor. The vector of a text without tokens is 0; their number is
            shown by an `EmptyTextWarning`.

        Raises:
            TypeError, SelectionError, VectorError: as `embed`.

        Example:
            >>> vectors = model.encode(["A first text.", "A second."], normalize=True)
            >>> model.similarity(vectors)  # cosines, (2, 2)
        """
        if dtype == torch.bfloat16 and not tensor:
            raise SelectionError("NumPy has no bfloat16; pass tensor=True, or another dtype")
        move(self, device)
        is_single = isinstance(texts, str)
        texts = list(checked_texts([texts] if is_single else texts))
        selection = Selection(layers_of(layers), "sentence", pooling)
        selection.check(self.depth)
        count, size = selection.shape(self.depth, self.dim)
        found = torch.zeros(len(texts), count * size, dtype=dtype, device="cpu")
        empty = 0
        options: dict[str, Any] = {"layers": selection.layers, "pooling": pooling}
        embeddings = self.iter_embed(texts, batch_tokens, unit="sentence", **options)
        for row, embedding in zip(found, _shown(embeddings, len(texts), progress), strict=True):
            if embedding.tokens:
                vector = torch.from_numpy(embedding.vectors.reshape(-1))
                row[:] = F.normalize(vector, dim=0) if normalize else vector
            else:
                empty += 1
        warn_of_empty_texts(empty, len(texts), stacklevel=3)
        if is_single:
            found = found[0]
        return found.to(next(self.parameters()).device) if tensor else found.numpy()

    @staticmethod
    def similarity(a: Vectors, b: Vectors | None = None) -> Vectors:
        """Return the cosine of each vector of ``a`` with each of ``b``, (rows of a, rows of b).

        Args:
            a: vectors, (rows, size), all arrays or all tensors. One vector, (size,), is one row.
            b: vectors of the same size; None means ``a``. The cosine with a vector of zeros is 0.

        Raises:
            SelectionError: if the vectors have other shapes, or not the same size.
        """
        return similarity(a, b)


def move(model: nn.Module, device: str | torch.device | None) -> None:
    """Move a model to a device; None means that it stays where it is.

    Raises:
        SelectionError: if torch does not know the device, or cannot use it.
    """
    if device is None:
        return
    try:
        model.to(device)
    # A torch without CUDA raises AssertionError for "cuda".
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise SelectionError(
            f"device: the model cannot be moved to {str(device)!r} ({one_line(str(error))}); use cpu, or "
            "a device that this installation of torch supports"
        ) from error


def warn_of_empty_texts(empty: int, texts: int, stacklevel: int = 2) -> None:
    """Warn that the vectors of texts without tokens are 0, if there are any."""
    if empty:
        warnings.warn(
            f"{empty:,} of {texts:,} texts have no tokens; their vectors are 0",
            EmptyTextWarning,
            stacklevel=stacklevel,
        )


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
    given = (torch.as_tensor(a if one is None else one).float() for one in (a, b))
    first, second = (one[None] if one.dim() == 1 else one for one in given)
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
    cosines = F.normalize(first, dim=1) @ F.normalize(second, dim=1).T
    return cosines if isinstance(a, Tensor) else cosines.numpy()
