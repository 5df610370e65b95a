"""Histograms: every document is in the bin of its size, for any batches."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.corpus.histograms import TOKENS_PER_WORD, Histograms
from preprocess.shards.format import DOCUMENT

U4 = (1 << 32) - 1
SIZES = st.tuples(
    st.integers(0, 70) | st.sampled_from([2**20 - 1, 2**20, 2**31, U4]), st.integers(0, 12)
)


def rows(sizes: list[tuple[int, int]]) -> npt.NDArray[Any]:
    """Make document rows from pairs (tokens, words)."""
    found = np.zeros(len(sizes), DOCUMENT)
    found["tokens"] = [tokens for tokens, _ in sizes]
    found["words"] = [words for _, words in sizes]
    return found


def binned(*batches: list[tuple[int, int]]) -> dict[str, dict[str, int]]:
    histograms = Histograms()
    for batch in batches:
        histograms.add(rows(batch))
    return histograms.to_dict()


def test_lengths_are_binned_by_powers_of_two() -> None:
    lengths = [0, 0, 1, 2, 3, 4, 7, 8, 1023, 1024, U4]
    assert binned([(length, 1) for length in lengths])["tokens"] == {
        "0": 2, "1": 1, "2": 2, "4": 2, "8": 1, "512": 1, "1024": 1, "2147483648": 1,
    }  # fmt: skip


def test_tokens_per_word_are_binned_up_to_each_bound_if_there_are_words() -> None:
    sizes = [(0, 0), (9, 0), (0, 4), (4, 4), (5, 4), (6, 4), (32, 4), (33, 4), (513, 4), (U4, 1)]
    assert binned(sizes)["tokens_per_word"] == {
        "0": 2, "1": 1, "1.25": 1, "6": 1, "8": 1, "128": 2,
    }  # fmt: skip


def test_without_documents_there_are_no_bins() -> None:
    assert binned() == binned([]) == {"tokens": {}, "tokens_per_word": {}}


def test_bounds_rise_and_are_written_exactly() -> None:
    assert all(low < high for low, high in pairwise(TOKENS_PER_WORD))
    assert [float(f"{bound:g}") for bound in TOKENS_PER_WORD] == list(TOKENS_PER_WORD)


@settings(deadline=None, max_examples=60)
@given(st.lists(SIZES, max_size=30), st.integers(0, 30))
def test_every_document_is_in_its_bin_for_any_batches(
    sizes: list[tuple[int, int]], cut: int
) -> None:
    lengths = Counter(
        max(bound for bound in (0, *(1 << n for n in range(32))) if bound <= tokens)
        for tokens, _ in sizes
    )
    ratios = Counter(
        max((bound for bound in TOKENS_PER_WORD if bound < tokens / words), default=0.0)
        for tokens, words in sizes
        if words
    )
    found = binned(sizes[:cut], sizes[cut:])
    assert {int(least): n for least, n in found["tokens"].items()} == lengths
    assert {float(least): n for least, n in found["tokens_per_word"].items()} == ratios
    for bins in found.values():
        assert list(bins) == sorted(bins, key=float)
