"""The nearest items of a stream by key equal those of a sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocess.vectors.search.nearest import NearestByKey


@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 300), st.integers(0, 1000))
def test_the_nearest_keys_are_exact(most: int, keys: int, number: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    found: NearestByKey[int] = NearestByKey(most)
    stream = list(
        zip(
            random.integers(keys, size=number).tolist(), random.random(number).tolist(), strict=True
        )
    )
    best: dict[int, float] = {}
    for n, (key, cosine) in enumerate(stream):
        found.add(key, cosine, lambda n=n: n)  # type: ignore[misc]
        best[key] = max(cosine, best.get(key, -1))
    wanted = sorted(best.items(), key=lambda one: -one[1])[:most]
    assert [(one.key, one.cosine) for one in found.ordered()[:most]] == wanted
    assert all(stream[one.item] == (one.key, one.cosine) for one in found.ordered())
    assert len(found.ordered()) <= 2 * most
