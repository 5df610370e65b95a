"""Files of numbered groups: reading one or several, and damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import storage
from preprocess.work import groups
from preprocess.work.damage import DamagedWork
from preprocess.work.groups import (
    GroupFile,
    count_groups,
    read_group,
    read_groups,
    write_groups,
    write_pieces,
)

FOLDER = "memory://groups"


def test_a_group_is_read_alone() -> None:
    path = f"{FOLDER}/groups.bin"
    write_groups(path, b"onethree", [0, 3, 3, 8])
    assert [read_group(path, number) for number in range(3)] == [b"one", b"", b"three"]
    assert read_groups(path) == [b"one", b"", b"three"]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_a_changed_byte_is_noticed_or_has_no_effect(
    written: list[bytes], data: st.DataObject
) -> None:
    path = f"{FOLDER}/_work/{'a' * 64}/hashes/groups.bin"
    bounds = np.cumsum([0, *map(len, written)])
    write_groups(path, b"".join(written), bounds)
    changed = bytearray(storage.read_bytes(path))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    storage.write_bytes(path, bytes(changed))
    noticed = []
    for number, group in enumerate(written):
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
    monkeypatch.setattr(groups, "read_bytes", lambda *a: requests.append(a) or read(*a))
    assert read_group(path, 1) == b""
    assert len(requests) == 1
    assert count_groups(path) == 2


def test_consecutive_groups_are_read_in_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    path, requests = f"{FOLDER}/groups.bin", []
    write_pieces(path, [[b"zero"], [b"o", b"ne"], [], [b"three"], [b"four"]])
    read = storage.read_bytes
    monkeypatch.setattr(groups, "read_bytes", lambda *a: requests.append(a) or read(*a))
    file = GroupFile(path, range(1, 4))
    assert file.sizes.tolist() == [11, 0, 13]
    assert [bytes(group) for group in file.read(1, 4)] == [b"one", b"", b"three"]
    assert [bytes(group) for group in file.read(2, 3)] == [b""]
    assert len(requests) == 2
    assert read_groups(path) == [b"zero", b"one", b"", b"three", b"four"]
    assert len(requests) == 3
