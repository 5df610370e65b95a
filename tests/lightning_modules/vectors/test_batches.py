"""Batches of texts."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.vectors.batches import (
    FIXED_ROWS,
    FIXED_TOKENS,
    LEAST,
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
    assert [lengths[n] for batch in batches for n in batch] == sorted(lengths)
    sizes = [size_of([lengths[n] for n in batch], padding) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        assert len(batch) == 1 or size <= tokens
    for batch, after in pairwise(batches):
        larger = [lengths[n] for n in (*batch, after[0])]
        assert size_of(larger, padding) > tokens  # each is as large as possible


def size_of(lengths: list[int], padding: bool) -> int:
    inside = [max(1, length) for length in lengths]
    if padding:
        return len(inside) * max(inside)
    return max(sum(inside), len(inside) * min(max(inside) + 1, LEAST))


def test_a_long_text_among_many_short_ones_has_few_rows_beside_it() -> None:
    lengths = [1] * 4096 + [4090]
    batches = plan_batches(lengths, 8192, padding=False)
    assert max(len(batch) * max(lengths[n] for n in batch) for batch in batches) <= 512 * 4090
    assert max(len(batch) for batch in batches if 4096 in batch) <= 8192 // LEAST


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
