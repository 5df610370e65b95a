"""Names with brackets are names, not patterns, when objects are moved and removed."""

from pathlib import Path

import pytest

from preprocess.files import storage
from preprocess.work.aside import move_aside

OTHERS = ("run1/prepare/manifest.json", "run1/prepare/a.bin")
OWN = ("run[1]/prepare/manifest.json", "run[1]/prepare/a.bin", "run[1]/prepare/_work/b")


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    folder = f"memory://objects-{tmp_path.name}"
    for name in (*OTHERS, *OWN):
        storage.write_bytes(f"{folder}/{name}", name.encode())
    return folder


def there(folder: str, names: tuple[str, ...]) -> list[bool]:
    return [storage.exists(f"{folder}/{name}") for name in names]


def test_a_folder_that_moves_aside_leaves_others_alone(bucket: str) -> None:
    aside = move_aside(f"{bucket}/run[1]/prepare")
    assert aside == f"{bucket}/run[1]/prepare.old-1"
    assert storage.read_bytes(f"{aside}/a.bin") == b"run[1]/prepare/a.bin"
    assert there(bucket, OTHERS) == [True, True]
    assert there(bucket, OWN) == [False, False, False]


def test_entries_that_move_leave_others_alone(bucket: str) -> None:
    storage.move_entries(f"{bucket}/run[1]/prepare", f"{bucket}/new", ["a.bin"])
    assert storage.read_bytes(f"{bucket}/new/a.bin") == b"run[1]/prepare/a.bin"
    assert there(bucket, OTHERS) == [True, True]
    assert there(bucket, OWN) == [True, False, True]


def test_a_folder_that_is_removed_leaves_others_alone(bucket: str) -> None:
    storage.remove_tree(f"{bucket}/run[1]/prepare")
    assert there(bucket, OTHERS) == [True, True]
    assert there(bucket, OWN) == [False, False, False]
