"""A tiny language model, and vectors of random texts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.tasks.features import Features, Padded
from lightning_modules.tasks.stored_vectors import StoredVectors
from lightning_modules.vectors.pretrained import BiLM

DEPTH, DIM = 3, 6


@pytest.fixture(scope="package")
def model(trained: Path) -> BiLM:
    return BiLM.from_pretrained(trained / "export")


@pytest.fixture(scope="package")
def random_features() -> Callable[..., Features]:
    """(lengths, seed) -> vectors of as many texts, (DEPTH, length, DIM) each."""

    def make(lengths: list[int], seed: int = 0) -> Features:
        draw, stored = np.random.default_rng(seed), StoredVectors(1 << 20)
        for length in lengths:
            stored.add(draw.normal(size=(DEPTH, length, DIM)).astype(np.float32))
        stored.finish()
        keys = [f"{seed} {number}".encode() for number in range(len(lengths))]
        return Features(DEPTH, DIM, "word", "m", np.arange(len(lengths)), keys, stored)

    return make


@pytest.fixture(scope="package")
def padded(random_features: Callable[..., Features]) -> Callable[..., Padded]:
    """(lengths, extra padding) -> a batch of random texts."""

    def make(lengths: list[int], extra: int = 0) -> Padded:
        batch = random_features(lengths).batch(range(len(lengths)))
        return Padded(torch.nn.functional.pad(batch.layers, (0, 0, 0, extra)), batch.lengths)

    return make
