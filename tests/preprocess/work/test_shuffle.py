"""The shuffle through files, compared with a dictionary."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import storage
from preprocess.files.storage import TEMPORARY
from preprocess.work import shuffle
from preprocess.work.damage import DamagedWork
from preprocess.work.shuffle import Shuffle, count_groups, group_rows, read_group, write_groups

FOLDER = "memory://shuffle"


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.lists(st.integers(0, 99))),
        unique_by=lambda part: part[:2],
    ),
    st.integers(1, 5),
)
def test_a_bucket_yields_its_rows_in_the_order_of_units(
    parts: list[tuple[int, int, list[int]]], buckets: int
) -> None:
    storage.remove_tree(FOLDER)
    shuffle = Shuffle(FOLDER)
    expected: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for unit, _, values in sorted(parts):
        for value in values:
            expected[value % buckets].append((unit, value))
    for unit, part, values in reversed(parts):
        rows = np.array(values, "<u8")
        shuffle.write_rows(unit, part, rows, rows % buckets, buckets)
    for bucket in range(buckets):
        found = [
            (unit, value)
            for unit, data in shuffle.read(bucket)
            for value in np.frombuffer(data, "<u8").tolist()
        ]
        assert found == expected[bucket]


def test_rows_of_several_columns_stay_whole() -> None:
    storage.remove_tree(FOLDER)
    rows = np.arange(12, dtype=np.uint64).reshape(4, 3)
    Shuffle(FOLDER).write_rows(7, 0, rows, np.array([1, 0, 1, 0]), 2)
    [(unit, data)] = Shuffle(FOLDER).read(1)
    assert unit == 7
    assert np.frombuffer(data, "<u8").reshape(-1, 3).tolist() == [[0, 1, 2], [6, 7, 8]]


def test_unit_numbers_longer_than_the_padding_are_in_order() -> None:
    storage.remove_tree(FOLDER)
    shuffle = Shuffle(FOLDER)
    for unit in (1_000_000, 999_999):
        shuffle.write(unit, 0, str(unit).encode(), [0, len(str(unit))])
    assert [unit for unit, _ in shuffle.read(0)] == [999_999, 1_000_000]


def test_temporary_files_and_records_are_not_read() -> None:
    storage.remove_tree(FOLDER)
    shuffle = Shuffle(FOLDER)
    shuffle.write(0, 0, b"ab", [0, 2])
    storage.write_bytes(f"{FOLDER}/{TEMPORARY}host-1-000001-0000.bin", b"half")
    storage.write_bytes(f"{FOLDER}/000001.json", b"{}")
    assert list(shuffle.read(0)) == [(0, b"ab")]


def test_a_group_is_read_alone() -> None:
    path = f"{FOLDER}/groups.bin"
    write_groups(path, b"onethree", [0, 3, 3, 8])
    assert [read_group(path, number) for number in range(3)] == [b"one", b"", b"three"]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_a_changed_byte_is_noticed_or_has_no_effect(
    groups: list[bytes], data: st.DataObject
) -> None:
    path = f"{FOLDER}/_work/{'a' * 64}/hashes/groups.bin"
    bounds = np.cumsum([0, *map(len, groups)])
    write_groups(path, b"".join(groups), bounds)
    written = bytearray(storage.read_bytes(path))
    written[data.draw(st.integers(0, len(written) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    storage.write_bytes(path, bytes(written))
    noticed = []
    for number, group in enumerate(groups):
        try:
            assert read_group(path, number) == group
        except DamagedWork as error:
            noticed.append(str(error))
    assert noticed
    assert all(f"delete {FOLDER}/_work/{'a' * 64}, which holds" in one for one in noticed)


def test_a_cut_file_is_noticed() -> None:
    path = f"{FOLDER}/groups.bin"
    write_groups(path, b"onethree", [0, 3, 3, 8])
    data = storage.read_bytes(path)
    for size in range(len(data)):
        storage.write_bytes(path, data[:size])
        with pytest.raises(DamagedWork, match=r"groups\.bin is damaged"):
            read_group(path, 2)
    storage.write_bytes(path, b"")
    with pytest.raises(DamagedWork, match="it is empty"):
        count_groups(path)


def test_a_file_of_a_former_version_is_read() -> None:
    path = f"{FOLDER}/groups.bin"
    head = (np.array([0, 3, 3, 8]) + 32).astype("<u8")
    storage.write_bytes(path, head.tobytes() + b"onethree")
    assert [read_group(path, number) for number in range(3)] == [b"one", b"", b"three"]
    assert count_groups(path) == 3


def test_an_empty_group_needs_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    path, requests = f"{FOLDER}/groups.bin", []
    write_groups(path, b"one", [0, 3, 3])
    read = storage.read_bytes
    monkeypatch.setattr(shuffle, "read_bytes", lambda *a: requests.append(a) or read(*a))
    assert read_group(path, 1) == b""
    assert len(requests) == 1
    assert count_groups(path) == 2


def test_rows_keep_their_order_within_a_bucket() -> None:
    rows, bounds = group_rows(np.array([5, 3, 1, 2]), np.array([1, 0, 1, 0]), 3)
    assert rows.tolist() == [3, 2, 5, 1]
    assert bounds.tolist() == [0, 2, 4, 4]
