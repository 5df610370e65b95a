"""Deduplication by buckets against a plain dictionary, and the side a document falls on."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import dedup, storage
from preprocess.dedup import (
    content_hash,
    count_buckets,
    deduplicate_bucket,
    read_drops,
    split_of,
    write_hashes,
)


def drops(work: str, units: list[list[int]], buckets: int, backwards: bool) -> list[list[int]]:
    """What each unit drops, with units and buckets worked on in either order."""
    order = list(enumerate(units))[:: -1 if backwards else 1]
    bounds = {unit: write_hashes(work, unit, hashes, buckets) for unit, hashes in order}
    for bucket in range(buckets)[:: -1 if backwards else 1]:
        deduplicate_bucket(
            work, bucket, [(u, bounds[u][bucket], bounds[u][bucket + 1]) for u in sorted(bounds)]
        )
    return [read_drops(work, unit, buckets).tolist() for unit in range(len(units))]


# Few values, so that many are equal; some differ in the high or in the low half alone.
HASHES = st.builds(
    lambda high, low: high << 64 | low,
    st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    st.sampled_from([0, 1, 2, 2**63, 2**64 - 1]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(HASHES, max_size=12), min_size=1, max_size=5), st.integers(1, 6))
def test_of_equal_documents_the_first_stays_whatever_the_units_and_buckets(
    units: list[list[int]], buckets: int
) -> None:
    seen: set[int] = set()
    expected = []
    for hashes in units:
        first = [value not in seen and not seen.add(value) for value in hashes]  # type: ignore[func-returns-value]
        expected.append([number for number, kept in enumerate(first) if not kept])
    for backwards in (False, True):
        work = "memory://dedup"
        storage.remove_tree(work)
        assert drops(work, units, buckets, backwards) == expected


def test_texts_are_equal_by_their_bytes() -> None:
    assert content_hash("añb".encode()) == content_hash(b"a\xc3\xb1b")
    assert content_hash(b"") == 0x99AA06D3014798D86001C324468D497F
    assert len({content_hash(text) for text in (b"", b"a", b"A", b"a ")}) == 4


def test_a_bucket_that_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = str(tmp_path)
    drops(work, [[1, 1], [1]], 1, False)
    monkeypatch.setattr(dedup, "write_bytes", None)
    deduplicate_bucket(work, 0, [(0, 0, 2), (1, 0, 1)])
    assert read_drops(work, 1, 1).tolist() == [0]


def test_a_unit_reads_its_slice_of_a_drop_list_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = str(tmp_path)
    drops(work, [[5] * 1000, [5], [6]], 1, False)
    read: list[int] = []

    def counting(path: str, start: int = 0, end: int | None = None) -> bytes:
        data = storage.read_bytes(path, start, end)
        read.append(len(data))
        return data

    monkeypatch.setattr(dedup, "read_bytes", counting)
    assert read_drops(work, 1, 1).tolist() == [0]
    assert read_drops(work, 2, 1).tolist() == []
    assert sum(read) == 16 + 4 + 16


def test_buckets_follow_from_the_size_alone() -> None:
    assert [count_buckets(n) for n in (0, 1, 512 << 20, (512 << 20) + 1)] == [1, 1, 1, 2]
    assert count_buckets(10**12) == 1863


def test_documents_fall_on_the_sides_in_the_shares_asked() -> None:
    hashes = [content_hash(str(n).encode()) for n in range(20_000)]
    shares = Counter(split_of(value, 0.1, 0.3) for value in hashes)
    assert abs(shares["valid"] / 20_000 - 0.1) < 0.01
    assert abs(shares["test"] / 20_000 - 0.3) < 0.01
    assert {split_of(value, 0.0, 0.0) for value in hashes} == {"train"}
    # The side is pinned to the high bits: a document stays on it in every version.
    assert [split_of(value, 0.5, 0.25) for value in (2**127 - 1, 2**127, 3 * 2**126)] == [
        "valid",
        "test",
        "train",
    ]
    assert {split_of(value, 0.5, 0.5) for value in hashes} == {"valid", "test"}


@settings(deadline=None)
@given(st.integers(0, 2**128 - 1), st.floats(0, 0.9), st.floats(0, 0.09))
def test_a_held_out_document_stays_held_out_when_more_is_held_out(
    value: int, fraction: float, more: float
) -> None:
    if split_of(value, fraction, 0.0) == "valid":
        assert split_of(value, fraction + more, 0.0) == "valid"
    assert split_of(2**128 - 1, fraction, 0.0) == "train"


def test_sides_do_not_follow_from_buckets() -> None:
    for bucket in range(3):
        values = [content_hash(str(n).encode()) for n in range(9000)]
        inside = [value for value in values if value % 2**64 % 3 == bucket]
        share = sum(split_of(value, 0.5, 0.0) == "valid" for value in inside) / len(inside)
        assert abs(share - 0.5) < 0.05
