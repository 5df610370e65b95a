"""Counts of what is predicted: tokens each way, ends forward, begins backward."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.shards.format import Corpus
from preprocess.shards.stream import TokenStream, target_counts
from preprocess.tokenizers.base import UNKNOWN

Tiny = Any  # of conftest.py


@pytest.fixture(scope="module")
def corpus(tiny: Tiny) -> Corpus:
    return Corpus.open(str(Path(tiny.root) / "prepare"))


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
@pytest.mark.parametrize("directions", [1, 2])
def test_they_are_those_of_a_pass(corpus: Corpus, boundary: Any, directions: int) -> None:
    stream = TokenStream(corpus.shards("train"), boundary)
    left, right = stream.read(0, 0, len(stream))
    targets = np.concatenate([right, left][:directions])
    expected = np.bincount(targets, minlength=corpus.vocabulary)

    found = target_counts(corpus, boundary, directions, corpus.vocabulary)

    assert found.tolist() == expected.tolist()


def test_ids_that_cannot_be_predicted_count_as_the_unknown_one(corpus: Corpus) -> None:
    whole = target_counts(corpus, "eos", 2, corpus.vocabulary)

    found = target_counts(corpus, "eos", 2, 50)

    assert len(found) == 50
    assert found[UNKNOWN] == whole[UNKNOWN] + whole[50:].sum() > whole[UNKNOWN]
    assert found[1:].tolist() == whole[1:50].tolist()
