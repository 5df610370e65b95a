"""Files found by a path, a glob or a URL."""

import os
from pathlib import Path

import pytest

from preprocess.files import find, storage
from preprocess.files.errors import StorageError
from preprocess.files.find import find_files


def test_names_are_relative_to_the_folders_before_the_first_wildcard(folder: str) -> None:
    for name in ("b.txt", "x/a.txt", "x/c.bin"):
        storage.write_bytes(storage.join(folder, name), b"123")
    found = find_files(f"{folder}/**/*.txt")
    assert [(file.name, file.bytes) for file in found] == [("b.txt", 3), ("x/a.txt", 3)]
    assert [storage.read_bytes(file.path) for file in found] == [b"123", b"123"]
    assert all(file.version for file in found)
    (single,) = find_files(f"{folder}/x/a.txt")
    assert single.name == "a.txt"


def test_an_existing_file_with_a_wildcard_in_its_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "[x]").mkdir()
    (tmp_path / "[x]" / "a*.txt").write_bytes(b"1")
    (found,) = find_files(f"{tmp_path}/[x]/a*.txt")
    assert found.name == "a*.txt"


def test_a_path_that_matches_nothing_is_refused(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "x", "a.txt"), b"")
    for pattern, message in {
        f"{folder}/*.md": "no file matches; check the path",
        f"{folder}/b.txt": "no such file; check the path",
        f"{folder}/x": r"this is a folder; name its files, as in '.*/x/\*.txt'",
    }.items():
        with pytest.raises(StorageError, match=message):
            find_files(pattern)


def test_a_file_without_read_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match=r"a\.txt: no permission to read it; change its perm"):
        find_files(str(tmp_path / "a.txt"))


@pytest.mark.parametrize("size", [{}, {"size": None}])
def test_a_web_server_that_reports_no_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, size: dict[str, None]
) -> None:
    url = "https://example.org/a.txt"

    class Web:
        def info(self, path: str) -> dict[str, object]:
            return {"name": path, "type": "file", **size}

    monkeypatch.setattr(find, "open_remote", lambda path: (Web(), path))
    with pytest.raises(
        StorageError, match=f"{url}: the server does not report the file's size; download"
    ):
        find_files(url)
