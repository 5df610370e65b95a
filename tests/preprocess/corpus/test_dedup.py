"""Deduplication by buckets against a plain dictionary."""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.corpus import dedup
from preprocess.corpus.dedup import (
    Kind,
    band_keys,
    deduplicate_bucket,
    hash_keys,
    key_buckets,
    read_copies,
    read_drops,
    read_duplicates,
    write_keys,
)
from preprocess.files import storage
from preprocess.text.splits import hash_halves
from preprocess.work import shuffle

WORK = "memory://dedup"
Hashes = list[int]
Bands = list[tuple[int, int, int]]


def write(work: str, unit: int, segment: int, first: int, hashes: Hashes, buckets: int) -> None:
    """Write the keys of a segment whose documents have these hashes."""
    data = b"".join(value.to_bytes(16, "big") for value in hashes)
    write_keys(work, "hashes", unit, segment, hash_keys(hash_halves(data), first), buckets)


def write_bands(work: str, unit: int, segment: int, first: int, bands: Bands, buckets: int) -> None:
    """Write the keys of a segment whose documents have these bands."""
    table = np.array(bands, np.uint64).reshape(-1, 3)
    write_keys(work, "bands", unit, segment, band_keys(table, first), buckets)


def drops(work: str, kind: Kind, units: int, buckets: int) -> list[list[int]]:
    """Deduplicate the buckets from last to first, and return the drops of each unit."""
    for bucket in reversed(range(buckets)):
        deduplicate_bucket(work, kind, units, bucket)
    return [read_drops(work, kind, unit, buckets).tolist() for unit in range(units)]


Originals = list[dict[int, tuple[int, int]]]


def originals(work: str, kind: Kind, units: int, buckets: int) -> Originals:
    """Return (unit, number) of the earlier document of each dropped one, by its number."""
    found: Originals = []
    for unit in range(units):
        numbers, earlier = read_duplicates(work, kind, unit, buckets)
        found.append(dict(zip(numbers.tolist(), map(tuple, earlier.tolist()), strict=True)))
    return found


def copies_of(values: list[int]) -> dict[int, int]:
    """Return how many values occur 2, 3 to 4, 5 to 8 ... times, by the lower bound."""
    times = [n for n in Counter(values).values() if n > 1]
    return Counter(max(low for low in (2, 3, 5, 9, 17, 33, 65) if low <= n) for n in times)


# Few distinct values; some differ only in the high or in the low half.
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
def test_the_first_of_equal_documents_stays_for_any_units_segments_and_buckets(
    units: list[list[Hashes]], buckets: int
) -> None:
    seen: dict[int, tuple[int, int]] = {}
    expected: Originals = []
    for unit, segments in enumerate(units):
        expected.append({})
        for number, value in enumerate(chain(*segments)):
            if value in seen:
                expected[-1][number] = seen[value]
            seen.setdefault(value, (unit, number))
    storage.remove_tree(WORK)
    for unit, segments in reversed(list(enumerate(units))):
        first = 0
        for number, hashes in enumerate(segments):
            write(WORK, unit, number, first, hashes, buckets)
            first += len(hashes)
    assert drops(WORK, "hashes", len(units), buckets) == [*map(list, expected)]
    assert originals(WORK, "hashes", len(units), buckets) == expected


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
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    expected: Originals = []
    for unit, documents in enumerate(units):
        expected.append({})
        for number, bands in enumerate(documents):
            keys = list(enumerate(bands))
            if earlier := [seen[key] for key in keys if key in seen]:
                expected[-1][number] = min(earlier)
            # Even if the document is dropped itself.
            for key in keys:
                seen.setdefault(key, (unit, number))
    storage.remove_tree(WORK)
    for unit, documents in reversed(list(enumerate(units))):
        write_bands(WORK, unit, 0, 0, documents, buckets)
    assert drops(WORK, "bands", len(units), buckets) == [*map(list, expected)]
    assert originals(WORK, "bands", len(units), buckets) == expected


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=80), st.integers(1, 4))
def test_copies_are_counted_by_number_of_occurrences(values: list[int], buckets: int) -> None:
    storage.remove_tree(WORK)
    write(WORK, 0, 0, 0, values[:40], buckets)
    write(WORK, 1, 0, 0, values[40:], buckets)
    drops(WORK, "hashes", 2, buckets)
    assert read_copies(WORK, "hashes", buckets) == copies_of(values)


def test_hashes_and_bands_are_stored_separately(tmp_path: Path) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1, 2, 1], 1)
    write_bands(work, 0, 0, 0, [(1, 2, 3), (1, 0, 0), (0, 0, 3)], 2)
    assert drops(work, "hashes", 1, 1) == [[2]]
    assert drops(work, "bands", 1, 2) == [[1, 2]]


def test_units_and_segments_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    work = str(tmp_path)
    # Sorted as text, the later names would come first.
    write(work, 999_999, 9_999, 0, [5, 6], 1)
    write(work, 999_999, 10_000, 2, [6], 1)
    write(work, 1_000_000, 0, 0, [5], 1)
    deduplicate_bucket(work, "hashes", 1_000_001, 0)
    assert read_drops(work, "hashes", 999_999, 1).tolist() == [2]
    assert read_drops(work, "hashes", 1_000_000, 1).tolist() == [0]


def test_temporary_files_of_a_killed_writer_are_ignored(tmp_path: Path) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1], 1)
    (tmp_path / "hashes" / f"{storage.TEMPORARY}host-1-000001-0000.bin").write_bytes(b"\x00")
    assert drops(work, "hashes", 2, 1) == [[], []]


def test_units_without_documents_drop_nothing(tmp_path: Path) -> None:
    assert drops(str(tmp_path), "hashes", 2, 2) == [[], []]
    assert read_copies(str(tmp_path), "hashes", 2) == {}


def test_a_finished_bucket_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1, 1], 1)
    write(work, 1, 0, 0, [1], 1)
    drops(work, "hashes", 2, 1)
    monkeypatch.setattr(shuffle, "write_bytes", None)
    deduplicate_bucket(work, "hashes", 2, 0)
    assert read_drops(work, "hashes", 1, 1).tolist() == [0]


def test_a_unit_reads_only_its_part_of_a_drop_list(
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

    monkeypatch.setattr(shuffle, "read_bytes", counting)
    assert read_drops(work, "hashes", 1, 1).tolist() == [0]
    assert read_drops(work, "hashes", 2, 1).tolist() == []
    assert sum(read) == 16 + dedup.DROP.itemsize + 8 + 16


def test_the_number_of_buckets_follows_from_the_size_alone() -> None:
    size, most = dedup.BUCKET_BYTES, dedup.LINEAR_BUCKETS
    assert [key_buckets(n) for n in (0, 1, size, size + 1)] == [1, 1, 1, 2]
    # Above the limit, four times the text is in twice as many buckets of twice the size.
    assert [key_buckets(size * most * n) for n in (1, 4, 100)] == [most, 2 * most, 10 * most]
    for n in (0, size + 1, size * most * 4):
        assert key_buckets(n, "bands") == dedup.BAND_BUCKETS * key_buckets(n)
