"""Repeated text, in a sample and estimated for more."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.corpus.sampling.repeats import Repeats


def counted(batches: list[list[str]]) -> Repeats:
    repeats = Repeats()
    for batch in batches:
        repeats.add(batch)
    return repeats


@given(st.lists(st.lists(st.text(max_size=3), max_size=5), max_size=8), st.floats(1, 1e6))
def test_the_share_of_the_sample_is_exact_and_the_estimate_is_a_share(
    batches: list[list[str]], times: float
) -> None:
    repeats = counted(batches)
    texts = [text.encode() for batch in batches for text in batch]
    size = sum(map(len, texts))
    distinct = sum(map(len, set(texts)))
    assert repeats.share == pytest.approx(1 - distinct / size if size else 0)
    assert repeats.share_of(1) == repeats.share
    assert 0 <= repeats.share_of(times) <= 1


def test_text_without_repeats_stays_so() -> None:
    repeats = counted([[f"text {n} {i}" for i in range(10)] for n in range(10)])
    assert (repeats.share, repeats.share_of(1000)) == (0, 0)


def test_an_estimate_is_near_the_truth_for_templates() -> None:
    """A third of the documents are drawn from 1,000 templates, so a larger corpus repeats more."""
    draw = random.Random(1)

    def batch(number: int) -> list[str]:
        return [
            f"template {draw.randrange(1000):06d}"
            if draw.random() < 1 / 3
            else f"own {number:06d} {i:05d}"
            for i in range(100)
        ]

    batches = [batch(number) for number in range(200)]
    truth = counted(batches).share
    sample = counted(batches[:20])
    assert sample.share < 0.7 * truth
    assert sample.share_of(10) == pytest.approx(truth, rel=0.35)
