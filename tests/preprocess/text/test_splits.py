"""Content hashes, and splits by hash."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.text.config import SPLITS
from preprocess.text.splits import capped_fraction, hash_halves, splits_of, text_hash, text_hashes


def split_of(content: int, valid_fraction: float, test_fraction: float) -> str:
    """Reference implementation: the split of one text, by the upper 53 bits of its hash."""
    position = (content >> 75) / (1 << 53)
    if position < valid_fraction:
        return "valid"
    return "test" if position < valid_fraction + test_fraction else "train"


def test_a_hash_depends_on_the_bytes_of_a_text() -> None:
    assert text_hash("añb".encode()) == text_hash(b"a\xc3\xb1b")
    assert text_hash(b"") == 0x99AA06D3014798D86001C324468D497F
    assert len({text_hash(text) for text in (b"", b"a", b"A", b"a ")}) == 4


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_bulk_hashes_equal_single_hashes(texts: list[bytes]) -> None:
    found = hash_halves(text_hashes(texts))
    assert found.shape == (len(texts), 2)
    assert [high << 64 | low for high, low in found.tolist()] == [*map(text_hash, texts)]


def test_splits_have_the_configured_shares() -> None:
    hashes = [text_hash(str(n).encode()) for n in range(20_000)]
    shares = Counter(split_of(value, 0.1, 0.3) for value in hashes)
    assert abs(shares["valid"] / 20_000 - 0.1) < 0.01
    assert abs(shares["test"] / 20_000 - 0.3) < 0.01
    assert {split_of(value, 0.0, 0.0) for value in hashes} == {"train"}
    # Fixed in every version: a document's split follows from the high bits.
    assert [split_of(value, 0.5, 0.25) for value in (2**127 - 1, 2**127, 3 * 2**126)] == [
        "valid",
        "test",
        "train",
    ]
    assert {split_of(value, 0.5, 0.5) for value in hashes} == {"valid", "test"}


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**63, 2**63 - 1, 2**64 - 1])),
    st.floats(0, 1) | st.just(0.5),
    st.floats(0, 1),
)
def test_bulk_splits_equal_single_splits(highs: list[int], valid: float, test: float) -> None:
    splits = splits_of(np.array(highs, np.uint64), valid, test)
    assert [SPLITS[split] for split in splits] == [split_of(h << 64, valid, test) for h in highs]


@settings(deadline=None)
@given(st.integers(0, 2**128 - 1), st.floats(0, 0.9), st.floats(0, 0.09))
def test_a_held_out_document_stays_held_out_at_a_larger_fraction(
    value: int, fraction: float, more: float
) -> None:
    if split_of(value, fraction, 0.0) == "valid":
        assert split_of(value, fraction + more, 0.0) == "valid"
    assert split_of(2**128 - 1, fraction, 0.0) == "train"


def test_splits_are_independent_of_hash_buckets() -> None:
    for bucket in range(3):
        values = [text_hash(str(n).encode()) for n in range(9000)]
        inside = [value for value in values if value % 2**64 % 3 == bucket]
        share = sum(split_of(value, 0.5, 0.0) == "valid" for value in inside) / len(inside)
        assert abs(share - 0.5) < 0.05


def test_a_sources_split_applies_to_all_its_texts() -> None:
    highs = np.array([0, 2**63, 2**64 - 1], np.uint64)
    assert splits_of(highs, 0.5, 0.1, "test").tolist() == [SPLITS.index("test")] * 3


def test_the_share_of_a_split_is_capped_in_large_corpora_only() -> None:
    assert capped_fraction(0.01, 200_000, 0) == 0.01
    assert capped_fraction(0.01, 200_000, 20 * 10**6) == 0.01
    assert capped_fraction(0.01, 200_000, 2 * 10**9) == pytest.approx(0.0001)
    assert capped_fraction(0.0, 200_000, 2 * 10**9) == 0.0
