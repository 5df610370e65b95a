"""Repeated n-grams against a count of all n-grams."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.text.quality.hashing import scrambled
from preprocess.text.quality.layout import Spans
from preprocess.text.quality.ngrams import repeated_ngrams

LARGEST = 6
numbers = st.lists(st.integers(0, 2), max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=6))
def test_repeated_ngrams_are_those_that_occur_twice_in_one_text(texts: list[list[int]]) -> None:
    bounds = np.cumsum([0, *map(len, texts)])
    joined = np.array([number for text in texts for number in text], np.uint64)
    words = Spans(np.arange(len(joined)), np.arange(len(joined)) + 1, bounds)
    found = {}
    for grams in repeated_ngrams(scrambled(joined), words, LARGEST):
        places, copies = grams.different()
        found[grams.size] = (
            dict(zip(places.tolist(), copies.tolist(), strict=True)),
            dict(zip(grams.later.tolist(), grams.earlier.tolist(), strict=True)),
        )
    for size in range(2, LARGEST + 1):
        occurrences = defaultdict(list)
        for number, text in enumerate(texts):
            for at in range(len(text) - size + 1):
                occurrences[number, *text[at : at + size]].append(int(bounds[number]) + at)
        repeated = [every for every in occurrences.values() if len(every) > 1]
        firsts = {every[0]: len(every) for every in repeated}
        pairs = {later: earlier for places in repeated for earlier, later in pairwise(places)}
        assert found.pop(size, ({}, {})) == (firsts, pairs)
    assert not found


def test_no_words_have_no_ngrams() -> None:
    words = Spans(np.empty(0, np.intp), np.empty(0, np.intp), np.zeros(3, np.intp))
    for grams in repeated_ngrams(np.empty(0, np.uint64), words, LARGEST):
        assert not len(grams.later)
