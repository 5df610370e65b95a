"""Deduplication by buckets against a plain dictionary, and the side a document falls on."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import SPLITS
from preprocess.corpus import dedup
from preprocess.corpus.dedup import (
    Kind,
    band_keys,
    content_hash,
    content_hashes,
    count_buckets,
    deduplicate_bucket,
    halves,
    hash_keys,
    read_copies,
    read_drops,
    split_of,
    splits_of,
    write_keys,
)
from preprocess.files import storage

WORK = "memory://dedup"
Hashes = list[int]
Bands = list[tuple[int, int, int]]


def write(work: str, unit: int, segment: int, first: int, hashes: Hashes, buckets: int) -> None:
    """Write the hashes of the documents of a segment."""
    data = b"".join(value.to_bytes(16, "big") for value in hashes)
    write_keys(work, "hashes", unit, segment, hash_keys(halves(data), first), buckets)


def write_bands(work: str, unit: int, segment: int, first: int, bands: Bands, buckets: int) -> None:
    """Write the bands of the documents of a segment."""
    table = np.array(bands, np.uint64).reshape(-1, 3)
    write_keys(work, "bands", unit, segment, band_keys(table, first), buckets)


def drops(work: str, kind: Kind, units: int, buckets: int) -> list[list[int]]:
    """What each unit drops, with buckets worked on from the last to the first."""
    for bucket in reversed(range(buckets)):
        deduplicate_bucket(work, kind, units, bucket)
    return [read_drops(work, kind, unit, buckets).tolist() for unit in range(units)]


def copies_of(values: list[int]) -> dict[int, int]:
    """How many values occur 2, 3-4, 5-8 ... times."""
    times = [n for n in Counter(values).values() if n > 1]
    return Counter(max(low for low in (2, 3, 5, 9, 17, 33, 65) if low <= n) for n in times)


# Few values, so that many are equal; some differ in the high or in the low half alone.
HASHES = st.builds(
    lambda high, low: high << 64 | low,
    st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    st.sampled_from([0, 1, 2, 2**63, 2**64 - 1]),
)
BAND = st.sampled_from([0, 1, 2, 2**64 - 1])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.lists(HASHES, max_size=6), max_size=3), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_of_equal_documents_the_first_stays_whatever_the_units_segments_and_buckets(
    units: list[list[Hashes]], buckets: int
) -> None:
    seen: set[int] = set()
    expected: list[list[int]] = []
    for segments in units:
        expected.append([])
        for number, value in enumerate(chain(*segments)):
            if value in seen:
                expected[-1].append(number)
            seen.add(value)
    storage.remove_tree(WORK)
    for unit, segments in reversed(list(enumerate(units))):
        first = 0
        for number, hashes in enumerate(segments):
            write(WORK, unit, number, first, hashes, buckets)
            first += len(hashes)
    assert drops(WORK, "hashes", len(units), buckets) == expected


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(BAND, BAND, BAND), max_size=8),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 6),
)
def test_a_document_is_dropped_iff_an_earlier_one_has_its_key_at_the_same_band(
    units: list[Bands], buckets: int
) -> None:
    seen: set[tuple[int, int]] = set()
    expected: list[list[int]] = []
    for documents in units:
        expected.append([])
        for number, bands in enumerate(documents):
            keys = set(enumerate(bands))
            if keys & seen:
                expected[-1].append(number)
            # Also where it is dropped itself.
            seen |= keys
    storage.remove_tree(WORK)
    for unit, documents in reversed(list(enumerate(units))):
        write_bands(WORK, unit, 0, 0, documents, buckets)
    assert drops(WORK, "bands", len(units), buckets) == expected


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=80), st.integers(1, 4))
def test_copies_are_counted_by_how_often_a_text_occurs(values: list[int], buckets: int) -> None:
    storage.remove_tree(WORK)
    write(WORK, 0, 0, 0, values[:40], buckets)
    write(WORK, 1, 0, 0, values[40:], buckets)
    drops(WORK, "hashes", 2, buckets)
    assert read_copies(WORK, "hashes", buckets) == copies_of(values)


def test_hashes_and_bands_lie_apart(tmp_path: Path) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1, 2, 1], 1)
    write_bands(work, 0, 0, 0, [(1, 2, 3), (1, 0, 0), (0, 0, 3)], 2)
    assert drops(work, "hashes", 1, 1) == [[2]]
    assert drops(work, "bands", 1, 2) == [[1, 2]]


def test_units_and_segments_come_by_number_not_by_name(tmp_path: Path) -> None:
    work = str(tmp_path)
    # As names, the later ones would sort first.
    write(work, 999_999, 9_999, 0, [5, 6], 1)
    write(work, 999_999, 10_000, 2, [6], 1)
    write(work, 1_000_000, 0, 0, [5], 1)
    deduplicate_bucket(work, "hashes", 1_000_001, 0)
    assert read_drops(work, "hashes", 999_999, 1).tolist() == [2]
    assert read_drops(work, "hashes", 1_000_000, 1).tolist() == [0]


def test_what_a_killed_writer_left_is_no_key(tmp_path: Path) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1], 1)
    (tmp_path / "hashes" / f"{storage.TEMPORARY}host-1-000001-0000.bin").write_bytes(b"\x00")
    assert drops(work, "hashes", 2, 1) == [[], []]


def test_units_without_documents_drop_none(tmp_path: Path) -> None:
    assert drops(str(tmp_path), "hashes", 2, 2) == [[], []]
    assert read_copies(str(tmp_path), "hashes", 2) == {}


def test_a_bucket_that_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1, 1], 1)
    write(work, 1, 0, 0, [1], 1)
    drops(work, "hashes", 2, 1)
    monkeypatch.setattr(dedup, "write_bytes", None)
    deduplicate_bucket(work, "hashes", 2, 0)
    assert read_drops(work, "hashes", 1, 1).tolist() == [0]


def test_a_unit_reads_its_slice_of_a_drop_list_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = str(tmp_path)
    for unit, hashes in enumerate([[5] * 1000, [5], [6]]):
        write(work, unit, 0, 0, hashes, 1)
    drops(work, "hashes", 3, 1)
    read: list[int] = []

    def counting(path: str, start: int = 0, end: int | None = None) -> bytes:
        data = storage.read_bytes(path, start, end)
        read.append(len(data))
        return data

    monkeypatch.setattr(dedup, "read_bytes", counting)
    assert read_drops(work, "hashes", 1, 1).tolist() == [0]
    assert read_drops(work, "hashes", 2, 1).tolist() == []
    assert sum(read) == 16 + 4 + 16


def test_texts_are_equal_by_their_bytes() -> None:
    assert content_hash("añb".encode()) == content_hash(b"a\xc3\xb1b")
    assert content_hash(b"") == 0x99AA06D3014798D86001C324468D497F
    assert len({content_hash(text) for text in (b"", b"a", b"A", b"a ")}) == 4


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_hashes_of_many_texts_are_those_of_each(texts: list[bytes]) -> None:
    found = halves(content_hashes(texts))
    assert found.shape == (len(texts), 2)
    assert [high << 64 | low for high, low in found.tolist()] == [*map(content_hash, texts)]


def test_buckets_follow_from_the_size_alone() -> None:
    size, most = dedup.BUCKET_BYTES, dedup.BUCKETS
    assert [count_buckets(n) for n in (0, 1, size, size + 1)] == [1, 1, 1, 2]
    # Four times the text in twice the buckets, each of twice the size.
    assert [count_buckets(size * most * n) for n in (1, 4, 100)] == [most, 2 * most, 10 * most]
    for n in (0, size + 1, size * most * 4):
        assert count_buckets(n, "bands") == dedup.BAND_BUCKETS * count_buckets(n)


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
@given(
    st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**63, 2**63 - 1, 2**64 - 1])),
    st.floats(0, 1) | st.just(0.5),
    st.floats(0, 1),
)
def test_the_sides_of_many_are_those_of_each(highs: list[int], valid: float, test: float) -> None:
    sides = splits_of(np.array(highs, np.uint64), valid, test)
    assert [SPLITS[side] for side in sides] == [split_of(h << 64, valid, test) for h in highs]


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
