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
    hash_keys,
    key_buckets,
    known_hash_keys,
    read_copies,
    read_drops,
    read_duplicates,
    write_keys,
)
from preprocess.files import storage
from preprocess.text.splits import hash_halves
from preprocess.work import groups, shuffle
from preprocess.work.damage import DamagedWork
from preprocess.work.groups import write_groups
from preprocess.work.shuffle import Layout, group_rows
from tests.preprocess.comparing import compare_all

WORK = "memory://dedup"
Hashes = list[int]


def write(
    work: str, unit: int, segment: int, first: int, hashes: Hashes, buckets: int, units: int = 1
) -> None:
    """Write the keys of a segment whose documents have these hashes."""
    data = b"".join(value.to_bytes(16, "big") for value in hashes)
    keys = hash_keys(hash_halves(data), first)
    write_keys(work, "hashes", unit, segment, keys, Layout(units, buckets))


def drops(work: str, kind: Kind, units: int, buckets: int) -> list[list[int]]:
    """Compare the keys, and return the drops of each unit."""
    layout = Layout(units, buckets)
    compare_all(work, kind, layout)
    return [read_drops(work, kind, unit, layout).tolist() for unit in range(units)]


Originals = list[dict[int, tuple[int, int]]]


def originals(work: str, kind: Kind, units: int, buckets: int) -> Originals:
    """Return (unit, number) of the earlier document of each dropped one, by its number."""
    found: Originals = []
    for unit in range(units):
        numbers, earlier = read_duplicates(work, kind, unit, Layout(units, buckets))
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
    st.lists(st.lists(HASHES, max_size=6), min_size=1, max_size=4),
    st.lists(st.lists(HASHES, max_size=4), min_size=1, max_size=3),
    st.integers(1, 6),
    st.booleans(),
)
def test_documents_of_known_units_come_first_and_are_compared_by_the_low_half(
    units: list[Hashes], known: list[Hashes], buckets: int, only_known: bool
) -> None:
    layout = Layout(len(units) + len(known), buckets, len(known))
    of_known: dict[int, tuple[int, int]] = {}
    for unit, hashes in enumerate(known, len(units)):
        for number, value in enumerate(hashes):
            of_known.setdefault(value % 2**64, (unit, 3 * number))
    expected: Originals = []
    seen: dict[int, tuple[int, int]] = {}
    for unit, hashes in enumerate(units):
        expected.append({})
        for number, value in enumerate(hashes):
            if value % 2**64 in of_known:
                expected[-1][number] = of_known[value % 2**64]
            elif value in seen and not only_known:
                expected[-1][number] = seen[value]
            seen.setdefault(value, (unit, number))
    storage.remove_tree(WORK)
    for unit, hashes in enumerate(units):
        data = b"".join(value.to_bytes(16, "big") for value in hashes)
        write_keys(WORK, "hashes", unit, 0, hash_keys(hash_halves(data), 0), layout)
    for unit, hashes in enumerate(known, len(units)):
        low = np.array([value % 2**64 for value in hashes], np.uint64)
        keys = known_hash_keys(low, 3 * np.arange(len(hashes), dtype=np.uint32))
        write_keys(WORK, "hashes", unit, 0, keys, layout)
    compare_all(WORK, "hashes", layout, only_known)
    found = []
    for unit in range(len(units)):
        numbers, earlier = read_duplicates(WORK, "hashes", unit, layout)
        found.append(dict(zip(numbers.tolist(), map(tuple, earlier.tolist()), strict=True)))
    assert found == expected


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), max_size=80), st.integers(1, 4))
def test_copies_are_counted_by_number_of_occurrences(values: list[int], buckets: int) -> None:
    storage.remove_tree(WORK)
    write(WORK, 0, 0, 0, values[:40], buckets)
    write(WORK, 1, 0, 0, values[40:], buckets)
    drops(WORK, "hashes", 2, buckets)
    assert read_copies(WORK, "hashes", Layout(2, buckets)) == copies_of(values)


def test_each_band_of_a_document_is_a_row_with_its_sketch() -> None:
    # The second document has one band.
    bands = np.array([[1, 2], [3, 2**32 - 1]], np.uint32)
    sketches = np.arange(8, dtype=np.uint64).reshape(2, 4)
    rows = band_keys((bands, sketches), np.array([5, 9], np.uint32))
    assert rows["document"].tolist() == [5, 5, 9]
    assert rows["low"].tolist() == [1, 2, 3]
    assert rows["sketch"].tolist() == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]]


def test_units_and_segments_are_ordered_by_number_not_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = str(tmp_path)
    # Sorted as text, the later names would come first.
    # Each of these two units is a run.
    monkeypatch.setattr(Layout, "run_units", 1_000_000)
    monkeypatch.setattr(Layout, "run_of", lambda _, unit: unit - 999_999)
    monkeypatch.setattr(Layout, "units_of", lambda _, run: range(999_999 + run, 1_000_000 + run))
    monkeypatch.setattr(Layout, "runs", 2)
    units = 1_000_001
    layout = Layout(units, 1)
    write(work, 999_999, 9_999, 0, [5, 6], 1, units)
    write(work, 999_999, 10_000, 2, [6], 1, units)
    write(work, 1_000_000, 0, 0, [5], 1, units)
    compare_all(work, "hashes", layout)
    assert read_drops(work, "hashes", 999_999, layout).tolist() == [2]
    assert read_drops(work, "hashes", 1_000_000, layout).tolist() == [0]


def test_temporary_files_of_a_killed_writer_are_ignored(tmp_path: Path) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1], 1)
    (tmp_path / "hashes" / "000001").mkdir()
    (tmp_path / "hashes" / "000001" / f"{storage.TEMPORARY}host-1-000001-0000.bin").write_bytes(
        b"\x00"
    )
    assert drops(work, "hashes", 2, 1) == [[], []]


def test_units_without_documents_drop_nothing(tmp_path: Path) -> None:
    assert drops(str(tmp_path), "hashes", 2, 2) == [[], []]
    assert read_copies(str(tmp_path), "hashes", Layout(2, 2)) == {}


def test_a_finished_bucket_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = str(tmp_path)
    write(work, 0, 0, 0, [1, 1], 1)
    write(work, 1, 0, 0, [1], 1)
    drops(work, "hashes", 2, 1)
    monkeypatch.setattr(groups, "write_bytes", None)
    compare_all(work, "hashes", Layout(2, 1))
    assert read_drops(work, "hashes", 1, Layout(2, 1)).tolist() == [0]


def test_a_unit_reads_only_its_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = str(tmp_path)
    for unit, hashes in enumerate([[5] * 1000, [5], [6]]):
        write(work, unit, 0, 0, hashes, 1)
    drops(work, "hashes", 3, 1)
    read: list[int] = []

    def counting(path: str, start: int = 0, end: int | None = None) -> bytes:
        data = storage.read_bytes(path, start, end)
        read.append(len(data))
        return data

    monkeypatch.setattr(groups, "read_bytes", counting)
    assert read_drops(work, "hashes", 1, Layout(3, 1)).tolist() == [0]
    assert read_drops(work, "hashes", 2, Layout(3, 1)).tolist() == []
    assert sum(read) == 16 + dedup.DROP.itemsize + 8 + 16


def test_keys_that_a_former_version_wrote_in_other_buckets_are_compared(tmp_path: Path) -> None:
    work, layout = str(tmp_path), Layout(2, 3)
    data = b"".join(value.to_bytes(16, "big") for value in (9, 1, 9, 4, 1))
    keys = hash_keys(hash_halves(data), 0)
    rows, bounds = group_rows(keys, keys["low"] % np.uint64(5), 5)
    write_groups(f"{work}/hashes/000000-0000.bin", rows.tobytes(), bounds * rows.dtype.itemsize)
    write(work, 1, 0, 0, [4, 7], 3, 2)
    compare_all(work, "hashes", layout)
    assert read_drops(work, "hashes", 0, layout).tolist() == [2, 4]
    assert read_drops(work, "hashes", 1, layout).tolist() == [0]


@pytest.mark.parametrize("name", ["drops/hashes-000000.runs", "run-drops/hashes-000000.units"])
def test_a_damaged_list_is_told(tmp_path: Path, name: str) -> None:
    work = str(tmp_path / "_work" / ("a" * 64))
    write(work, 0, 0, 0, [1, 1, 1], 1)
    drops(work, "hashes", 1, 1)
    path = Path(work) / name
    path.write_bytes(path.read_bytes()[:-1])
    if name.startswith("drops"):
        (Path(work) / "run-drops" / "hashes-000000.units").unlink()
    with pytest.raises(DamagedWork, match=r"(runs|units) is damaged .*; delete .*, which holds"):
        drops(work, "hashes", 1, 1)


def test_the_number_of_buckets_follows_from_the_size_alone() -> None:
    size, most = dedup.BUCKET_BYTES, shuffle.MOST_LISTS
    assert [key_buckets(n) for n in (0, 1, size, size + 1)] == [1, 1, 1, 2]
    assert key_buckets(size * most) == key_buckets(size * most + 1) == most
    # Above the limit, a list has several buckets.
    assert key_buckets(2 * 10**12) == 8 * most
    for n in (0, size + 1, size * most * 40):
        assert key_buckets(n, "bands") == dedup.BAND_BUCKETS * key_buckets(n)
