"""One thread for small matrix products, in which a second thread costs more than it saves.

The threads of a product wait for each other after it, and a waiting thread uses its core. If another
process needs this core, each product takes many times as long. torch, NumPy and SciPy also have threads of
their own each, which wait beside each other.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.one_thread import one_thread
from lightning_modules.vectors.pretrained import BiLM

LONG = 2e-3
"""Seconds of a product on one core from which it is shared among the cores."""
MULTIPLICATIONS, NUMBERS = 35e9, 3e9
"""What a core does in a second: multiplications of a large product, and numbers read from memory."""
TYPICAL_TOKENS = 32
"""Assumed length of a text in a batch."""


def is_small(numbers: int, vectors: int) -> bool:
    """Return True if the product of a matrix of ``numbers`` numbers and ``vectors`` vectors is short.

    This depends on the sizes only, so that the same computation has the same number of threads.
    """
    return max(numbers * vectors / MULTIPLICATIONS, numbers / NUMBERS) < LONG


def embedding_threads(model: BiLM, batch_tokens: int) -> AbstractContextManager[None]:
    """Return `threads_for` for a model that embeds texts in batches of ``batch_tokens`` tokens."""
    network = model.network
    parts: list[nn.Module] = [network.recurrent]
    if isinstance(network.input, CharCNN):
        parts.append(network.input)
    # A model without recurrent layers has no products.
    weights = max((weight.numel() for part in parts for weight in part.parameters()), default=0)
    return threads_for(weights, max(1, batch_tokens // TYPICAL_TOKENS))


def module_threads(module: nn.Module, texts: int, units: float) -> AbstractContextManager[None]:
    """Return `threads_for` for a network that reads batches of texts.

    Args:
        module: the network.
        texts: texts of a batch.
        units: mean number of units of a text. A convolution multiplies all at once, a recurrent network
            those of a step.
    """
    products = [(0, 1)]
    for part in module.modules():
        vectors = texts * max(1, round(units)) if isinstance(part, nn.Conv1d) else texts
        if not isinstance(part, nn.Embedding):
            products += [(weight.numel(), vectors) for weight in part.parameters(recurse=False)]
    return threads_for(*max(products, key=lambda product: product[0] * product[1]))


@contextmanager
def threads_for(numbers: int, vectors: int, *, blas: bool = False) -> Iterator[None]:
    """Compute with one thread in the block if its largest product `is_small`.

    Args:
        numbers, vectors: sizes of the largest product that is computed again and again.
        blas: whether the block also computes with NumPy, SciPy or scikit-learn, whose threads are then
            limited, too. They must have been imported.
    """
    if torch.get_num_threads() == 1 or not is_small(numbers, vectors):
        yield
        return
    with one_thread(), _one_blas_thread() if blas else nullcontext():
        yield


def _one_blas_thread() -> Any:
    # A dependency of scikit-learn; a tagger needs neither.
    if find_spec("threadpoolctl") is None:
        return nullcontext()
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1)
