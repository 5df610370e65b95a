"""Batches of texts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.vectors.batches import plan_batches


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 100))
def test_batches_hold_every_text_once_within_their_size(lengths: list[int], tokens: int) -> None:
    batches = plan_batches(lengths, tokens)

    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[n] for n in batch)
        assert len(batch) == 1 or len(batch) * max(1, longest) <= tokens
