"""The shuffle through files, compared with a dictionary."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import storage
from preprocess.files.storage import TEMPORARY, join, list_names
from preprocess.work import groups, shuffle
from preprocess.work.damage import DamagedWork
from preprocess.work.groups import write_groups
from preprocess.work.shuffle import Layout, Shuffle, Slices, group_rows

FOLDER = "memory://shuffle"


def pairs(slices: Slices) -> list[tuple[int, int]]:
    """Return (unit, value) of rows that are single numbers."""
    units = np.repeat(slices.units, slices.sizes // 8)
    values = np.frombuffer(slices.data, "<u8")
    return [*zip(units.tolist(), values.tolist(), strict=True)]


def merge_all(shuffle: Shuffle, layout: Layout) -> None:
    for run in reversed(range(layout.runs)):
        shuffle.merge(run)


def files(folder: str) -> dict[str, bytes]:
    """Return the pieces in a folder by name."""
    merged = join(folder, "merged")
    return {name: storage.read_bytes(join(merged, name)) for name in list_names(merged)}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 2), st.lists(st.integers(0, 99))),
        unique_by=lambda part: part[:2],
    ),
    *(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9)),
    *(st.sampled_from([1, 100, 1 << 20]), st.sampled_from([1, 100, 1 << 20])),
)
def test_a_list_has_its_rows_in_the_order_of_units(
    parts: list[tuple[int, int, list[int]]],
    buckets: int,
    lists: int,
    runs: int,
    piece_bytes: int,
    read_bytes: int,
) -> None:
    layout = Layout(8, buckets)
    storage.remove_tree(FOLDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "MOST_LISTS", lists)
        patch.setattr(shuffle, "LEAST_RUNS", runs)
        patch.setattr(shuffle, "PIECE_BYTES", piece_bytes)
        patch.setattr(shuffle, "READ_BYTES", read_bytes)
        files = Shuffle(FOLDER, layout)
        expected: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for unit, _, values in sorted(parts):
            for value in values:
                expected[value % buckets].append((unit, value))
        for unit, part, values in reversed(parts):
            rows = np.array(values, "<u8")
            files.write_rows(unit, part, rows, rows % buckets)
        merge_all(files, layout)
        seen: list[int] = []
        for number in range(layout.lists):
            found: dict[int, list[tuple[int, int]]] = defaultdict(list)
            for slices in files.read(number):
                for unit, value in pairs(slices):
                    found[value % buckets].append((unit, value))
            by_piece = [pair for slices in files.read_by_piece(number) for pair in pairs(slices)]
            for bucket in layout.buckets_of(number):
                seen.append(bucket)
                assert found[bucket] == expected[bucket]
                assert [p for p in by_piece if p[1] % buckets == bucket] == expected[bucket]
    assert seen == [*range(buckets)]


@pytest.mark.parametrize(
    ("units", "run_units", "runs"),
    [(0, 1, 0), (1, 1, 1), (127, 1, 127), (128, 2, 64), (10_000, 156, 65), (100_000, 256, 391)],
)
def test_the_size_of_a_run_follows_from_the_number_of_units(
    units: int, run_units: int, runs: int
) -> None:
    layout = Layout(units, 10)
    assert (layout.run_units, layout.runs) == (run_units, runs)
    assert [unit for run in range(runs) for unit in layout.units_of(run)] == [*range(units)]
    assert all(unit in layout.units_of(layout.run_of(unit)) for unit in range(0, units, 97))


def test_a_corpus_without_units_has_no_rows(folder: str) -> None:
    [slices] = Shuffle(folder, Layout(0, 1)).read(0)
    assert slices.data == b""


def test_rows_of_several_columns_stay_whole(folder: str) -> None:
    rows = np.arange(12, dtype=np.uint64).reshape(4, 3)
    files = Shuffle(folder, Layout(8, 2))
    files.write_rows(7, 0, rows, np.array([1, 0, 1, 0]))
    merge_all(files, Layout(8, 2))
    [slices] = files.read(1)
    assert (slices.units.tolist(), slices.sizes.tolist()) == ([7], [48])
    assert np.frombuffer(slices.data, "<u8").reshape(-1, 3).tolist() == [[0, 1, 2], [6, 7, 8]]


def test_unit_numbers_longer_than_the_padding_are_in_order(folder: str) -> None:
    layout = Layout(1_000_001, 1)
    files = Shuffle(folder, layout)
    for unit in (1_000_000, 999_999):
        files.write(unit, 0, b"abc", [0, 3])
    run = layout.run_of(1_000_000)
    assert [part.unit for part in files.parts(run)] == [999_999, 1_000_000]


def test_temporary_files_and_records_are_not_read(folder: str) -> None:
    files = Shuffle(folder, Layout(2, 1))
    files.write(0, 0, b"ab", [0, 2])
    storage.write_bytes(f"{folder}/000001/{TEMPORARY}host-1-000001-0000.bin", b"half")
    storage.write_bytes(f"{folder}/000001.json", b"{}")
    merge_all(files, Layout(2, 1))
    assert [slices.data for slices in files.read(0)] == [b"ab"]


def test_parts_of_a_former_version_are_merged(folder: str) -> None:
    layout = Layout(2, 1)
    write_groups(f"{folder}/000000-0000.bin", b"old", [0, 3])
    write_groups(f"{folder}/000001-0000.bin", b"old", [0, 3])
    files = Shuffle(folder, layout)
    # The same part, written again by a run of this version.
    files.write(1, 0, b"new", [0, 3])
    files.write(1, 1, b"more", [0, 4])
    merge_all(files, layout)
    [slices] = files.read(0)
    assert (slices.units.tolist(), slices.data) == ([0, 1, 1], b"oldnewmore")


def test_a_part_with_another_number_of_buckets_is_refused(folder: str) -> None:
    write_groups(f"{folder}/000000-0000.bin", b"ab", [0, 1, 2])
    with pytest.raises(DamagedWork, match="it has 2 buckets, not 3"):
        Shuffle(folder, Layout(1, 3)).merge(0)


def test_a_merge_that_is_done_twice_or_was_killed_gives_the_same_bytes(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "PIECE_BYTES", 5)
    files_of = Shuffle(folder, Layout(1, 2))
    for part in range(4):
        files_of.write(0, part, b"abcd", [0, 1, 4])
    files_of.merge(0)
    expected = files(folder)
    assert [*expected] == [*(f"000000-000{n}.bin" for n in range(3)), "000000-0003.end"]
    write, left = shuffle.write_pieces, [0]

    def killed(path: str, groups: list[list[bytes]]) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(path, groups)

    monkeypatch.setattr(shuffle, "write_pieces", killed)
    for pieces in range(4):
        storage.remove_tree(join(folder, "merged"))
        left[0] = pieces
        with pytest.raises(KeyboardInterrupt):
            files_of.merge(0)
        with pytest.raises(DamagedWork, match=r"000000-0000\.end is damaged \(it is missing\)"):
            next(files_of.read(0))
        left[0] = 4
        files_of.merge(0)
        assert files(folder) == expected
        # Nothing is written for a run that is merged.
        left[0] = 0
        files_of.merge(0)


def test_pieces_of_a_killed_merge_with_other_limits_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_of = Shuffle(str(tmp_path), Layout(1, 1))
    for part in range(3):
        files_of.write(0, part, b"ab", [0, 2])
    with monkeypatch.context() as patch:
        patch.setattr(shuffle, "PIECE_BYTES", 1)
        files_of.merge(0)
    (tmp_path / "merged" / "000000-0002.end").unlink()
    files_of.merge(0)
    assert [slices.data for slices in files_of.read(0)] == [b"ababab"]


def test_a_missing_or_damaged_piece_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shuffle, "PIECE_BYTES", 1)
    work = tmp_path / "_work" / ("a" * 64)
    files_of = Shuffle(str(work / "hashes"), Layout(1, 1))
    for part in range(3):
        files_of.write(0, part, b"ab", [0, 2])
    files_of.merge(0)
    path = work / "hashes" / "merged" / "000000-0001.bin"
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(DamagedWork, match=r"0001\.bin is damaged .*; delete .*, which holds"):
            list(files_of.read(0))
    path.unlink()
    with pytest.raises(DamagedWork, match=r"0001\.bin is damaged \(it is missing\)"):
        list(files_of.read(0))


def test_the_number_of_requests_does_not_grow_with_units_times_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units, buckets = 256, 64
    layout = Layout(units, buckets)
    files_of = Shuffle(str(tmp_path), layout)
    for unit in range(units):
        rows = np.arange(100, dtype="<u8")
        files_of.write_rows(unit, 0, rows, rows % buckets)
    requests = []
    read = groups.read_bytes
    monkeypatch.setattr(groups, "read_bytes", lambda *a: requests.append(a) or read(*a))
    merge_all(files_of, layout)
    assert len(requests) == units
    requests.clear()
    for number in range(layout.lists):
        assert sum(len(slices.data) for slices in files_of.read(number))
    assert len(requests) == 2 * layout.runs * layout.lists == 2 * 64 * 64


def test_a_long_list_on_a_store_is_requested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    storage.remove_tree(FOLDER)
    monkeypatch.setattr(shuffle, "MOST_LISTS", 2)
    monkeypatch.setattr(shuffle, "READ_BYTES", 100)
    layout = Layout(64, 16)
    files_of = Shuffle(FOLDER, layout)
    for unit in range(64):
        rows = np.arange(16, dtype="<u8")
        files_of.write_rows(unit, 0, rows, rows % 16)
    merge_all(files_of, layout)
    requests = []
    read = groups.read_bytes
    monkeypatch.setattr(groups, "read_bytes", lambda *a: requests.append(a) or read(*a))
    assert [len(slices.data) for slices in files_of.read(1)] == [64 * 8] * 8
    assert len(requests) == 2 * layout.runs


def test_rows_keep_their_order_within_a_bucket() -> None:
    rows, bounds = group_rows(np.array([5, 3, 1, 2]), np.array([1, 0, 1, 0]), 3)
    assert rows.tolist() == [3, 2, 5, 1]
    assert bounds.tolist() == [0, 2, 4, 4]
