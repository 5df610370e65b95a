"""Batches of texts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.vectors.batches import (
    FIXED_ROWS,
    FIXED_TOKENS,
    plan_batches,
    plan_fixed_batches,
    window_characters,
)


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 100), st.booleans())
def test_batches_hold_every_text_once_within_their_size(
    lengths: list[int], tokens: int, padding: bool
) -> None:
    batches = plan_batches(lengths, tokens, padding)

    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    sizes = []
    for batch in batches:
        inside = [max(1, lengths[n]) for n in batch]
        sizes.append(len(batch) * max(inside) if padding else sum(inside))
        assert len(batch) == 1 or sizes[-1] <= tokens
    assert [lengths[n] for batch in batches for n in batch] == sorted(lengths)
    if not padding:  # and each batch is as large as possible
        for size, after in zip(sizes, batches[1:], strict=False):
            assert size + max(1, lengths[after[0]]) > tokens


@settings(deadline=None)
@given(st.lists(st.integers(0, 2 * FIXED_TOKENS), max_size=60))
def test_the_shape_of_a_fixed_batch_depends_on_the_length_of_each_text(lengths: list[int]) -> None:
    batches = plan_fixed_batches(lengths)

    assert sorted({n for batch in batches for n in batch}) == list(range(len(lengths)))
    assert len({n for batch in batches for n in batch}) == sum(len({*batch}) for batch in batches)
    for batch in batches:
        [length] = {lengths[n] for n in batch}
        assert len(batch) == (1 if length > FIXED_TOKENS else FIXED_ROWS)


def test_windows_are_larger_on_a_gpu_by_a_fixed_factor() -> None:
    small = window_characters(3, 1024)
    assert small == (1 << 28) // (4 * 3 * 1024) * 2
    assert window_characters(3, 1024, 4) == 4 * small
    assert window_characters(1, 8, 4) == 4 * 200_000
