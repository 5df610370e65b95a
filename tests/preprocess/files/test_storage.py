"""Storage by path and URL: atomic writes, listings and messages, local and remote."""

import os
from pathlib import Path

import fsspec
import pytest

from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.find import find_files


def names_below(folder: str) -> list[str]:
    return storage.list_names(folder)


def test_a_file_appears_when_the_block_ends(folder: str) -> None:
    path = storage.join(folder, "a", "b.bin")
    with storage.atomic_writer(path) as file:
        file.write(b"12")
        assert not storage.exists(path)
        file.write(b"345")
    assert storage.read_bytes(path) == b"12345"
    assert storage.read_bytes(path, 1, 3) == b"23"
    assert names_below(storage.join(folder, "a")) == ["b.bin"]


def test_an_exception_leaves_the_old_file_and_nothing_else(folder: str) -> None:
    path = storage.join(folder, "b.bin")
    storage.write_bytes(path, b"old")

    def fail() -> None:
        with storage.atomic_writer(path) as file:
            file.write(b"new")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert storage.read_bytes(path) == b"old"
    assert names_below(folder) == ["b.bin"]


def test_a_stream_seeks(folder: str) -> None:
    path = storage.join(folder, "b.bin")
    storage.write_bytes(path, b"0123456789")
    with storage.open_read(path) as file:
        file.seek(4)
        assert file.read(2) == b"45"


def test_a_missing_file_raises(folder: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(folder, "none"))


def test_only_the_first_writer_creates_a_file(folder: str) -> None:
    path = storage.join(folder, "lock")
    assert storage.create_exclusive(path, b"first")
    assert not storage.create_exclusive(path, b"second")
    assert storage.read_bytes(path) == b"first"


def test_a_copy_can_be_made_twice_and_leaves_one_name(folder: str) -> None:
    old, new = storage.join(folder, "old"), storage.join(folder, "new")
    storage.write_bytes(old, b"same")
    for _ in range(2):
        storage.copy(old, new)
    storage.write_bytes(old, b"other")
    assert storage.read_bytes(new) == b"same"
    assert names_below(folder) == ["new", "old"]


def test_a_copy_is_made_if_a_hard_link_is_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    storage.write_bytes(str(tmp_path / "old"), b"same")
    storage.copy(str(tmp_path / "old"), str(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == b"same"
    with pytest.raises(FileNotFoundError):
        storage.copy(str(tmp_path / "none"), str(tmp_path / "x"))
    assert names_below(str(tmp_path)) == ["new", "old"]


def test_removing_a_missing_file_or_folder_does_nothing(folder: str) -> None:
    path = storage.join(folder, "a", "b")
    for _ in range(2):
        storage.remove(path)
        storage.write_bytes(path, b"x")
    storage.remove_tree(folder)
    storage.remove_tree(folder)
    assert not storage.exists(path)
    assert names_below(folder) == []


def test_a_folder_moved_aside_gets_the_first_free_name(folder: str) -> None:
    for number in (1, 2):
        storage.write_bytes(storage.join(folder, "a"), str(number).encode())
        assert storage.move_aside(folder + "/") == f"{folder}.old-{number}"
    assert not storage.exists(storage.join(folder, "a"))
    assert storage.read_bytes(f"{folder}.old-2/a") == b"2"


def test_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{storage.TEMPORARY}host-1-b").touch()
    (tmp_path / "a" / "b").touch()
    storage.remove_temporary(str(tmp_path))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


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


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(StorageError, match="nope://x: cannot open a 'nope' URL"):
        storage.exists("nope://x")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(StorageError, match=r"Install s3fs.*pip install 'biloom\[s3\]'"):
        storage.exists("s3://bucket/x")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    storage.check_writable(str(tmp_path / "new"))
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"file/x: cannot write here .*choose another run.output"
    ):
        storage.check_writable(str(tmp_path / "file" / "x"))


def test_paths_without_a_remote_protocol_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.is_remote("s3://bucket/x")
    assert not storage.is_remote("file:///x")
    assert storage.absolute("s3://bucket/x") == "s3://bucket/x"
    assert storage.absolute("file:///x") == "/x"
    monkeypatch.chdir("/")
    assert storage.absolute("x") == "/x"
    assert storage.join("/", "x", "y") == "/x/y"
    assert storage.join("a/", "b") == "a/b"


@pytest.mark.parametrize("size", [{}, {"size": None}])
def test_a_web_server_that_reports_no_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, size: dict[str, None]
) -> None:
    url = "https://example.org/a.txt"

    class Web:
        def info(self, path: str) -> dict[str, object]:
            return {"name": path, "type": "file", **size}

    monkeypatch.setattr(storage, "_remote", lambda path: (Web(), path))
    with pytest.raises(
        StorageError, match=f"{url}: the server does not report the file's size; download"
    ):
        find_files(url)
