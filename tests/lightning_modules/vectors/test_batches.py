"""Batches of texts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.vectors.batches import plan_batches, window_characters


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 100))
def test_batches_hold_every_text_once_within_their_size(lengths: list[int], tokens: int) -> None:
    batches = plan_batches(lengths, tokens)

    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[n] for n in batch)
        assert len(batch) == 1 or len(batch) * max(1, longest) <= tokens


def test_windows_are_larger_on_a_gpu_by_a_fixed_factor() -> None:
    small = window_characters(3, 1024)
    assert small == (1 << 28) // (4 * 3 * 1024) * 2
    assert window_characters(3, 1024, 4) == 4 * small
    assert window_characters(1, 8, 4) == 4 * 200_000
