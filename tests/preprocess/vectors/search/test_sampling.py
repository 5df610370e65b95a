"""Samples of uses and texts: uniform, bounded, and the same for a seed."""

import numpy as np
import pytest

from preprocess.vectors.search.layer import CacheLayer
from preprocess.vectors.search.marked_text import QueryError
from preprocess.vectors.search.sampling import Reservoir, sample_texts, sample_uses


def test_a_reservoir_is_a_uniform_sample():
    hits = np.zeros(20)
    for seed in range(400):
        drawn = Reservoir(5, seed)
        for number in range(20):
            drawn.add(lambda number=number: number)
        kept = [item for _, item in drawn.kept.values()]
        assert len(set(kept)) == 5
        hits[kept] += 1
    assert hits.min() > 60
    assert hits.max() < 140


def test_uses_are_sampled_for_each_word(cache_of, banks):
    cache = cache_of(banks)
    layer = CacheLayer.of(cache)
    every = sample_uses(cache, ["bank", "shore"], layer, 100, 1)
    assert every.of == {"bank": 40, "shore": 20}
    assert [one.group for one in every.items] == ["bank"] * 40 + ["shore"] * 20
    few = sample_uses(cache, ["Bank", "shore"], layer, 6, 1)
    assert [one.group for one in few.items] == ["Bank"] * 3 + ["shore"] * 3
    again = sample_uses(cache, ["Bank", "shore"], layer, 6, 1)
    assert [one.snippet for one in few.items] == [one.snippet for one in again.items]
    other = sample_uses(cache, ["Bank", "shore"], layer, 6, 2)
    assert [one.snippet for one in few.items] != [one.snippet for one in other.items]
    for one in few.items:
        text = f"{one.snippet.before}{one.snippet.word}{one.snippet.after}"
        at = 1 if one.group == "Bank" else 3
        np.testing.assert_array_equal(one.vector, cache[text][1][at])


def test_texts_without_tokens_are_no_points(cache_of, banks):
    cache = cache_of([*banks, []])
    sample = sample_texts(cache, CacheLayer.of(cache), 100, 1)
    assert sample.of == {"": 40}
    assert sample.items[0].snippet.before == "a0 bank b0 shore reed"
    assert sample.items[0].text == "a0bankb0shorereed"


def test_a_word_that_does_not_occur_is_told(cache_of, banks):
    cache = cache_of(banks)
    with pytest.raises(QueryError, match="'money' does not occur in the texts"):
        sample_uses(cache, ["bank", "money"], CacheLayer.of(cache), 5, 1)
    cache = cache_of(banks, unit="sentence")
    with pytest.raises(QueryError, match="show its texts with --texts"):
        sample_uses(cache, ["bank"], CacheLayer.of(cache), 5, 1)
