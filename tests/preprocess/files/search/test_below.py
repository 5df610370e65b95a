"""All files in a folder: what is found, what is left out, and links."""

import os
from collections.abc import Collection
from pathlib import Path

import fsspec
import pytest

from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.search import below
from preprocess.files.search.below import Below, find_below, is_folder
from preprocess.reading.kinds.by_name import STAGE_FOLDER, kind_of_file, kind_of_folder


def find(folder: str) -> Below:
    def excluded(path: str, names: Collection[str]) -> bool:
        return "out.json" in names

    return find_below(folder, kind_of_file, kind_of_folder, excluded, STAGE_FOLDER)


def write(folder: str, *names: str) -> None:
    for name in names:
        storage.write_bytes(storage.join(folder, *name.split("/")), b"text")


def test_all_files_are_found_by_their_names_below_the_folder(folder: str) -> None:
    write(folder, "x/b.txt", "x/y/c", "a.png", ".git/config", ".hidden", "x/_SUCCESS", "d.JPG")
    write(folder, "_temporary/e.txt", "stage/out.json", "stage/f/g.txt", "_posts/h.md", "a.txt")
    found = find(folder)
    assert [file.name for file in found.files] == ["_posts/h.md", "a.txt", "x/b.txt", "x/y/c"]
    assert all(file.in_folder and file.bytes == 4 for file in found.files)
    assert all(storage.read_bytes(file.path) == b"text" for file in found.files)
    assert {singular: number for (singular, _), number in found.left_out.items()} == {
        **{"hidden file": 1, "hidden folder": 1, "marker of a finished job": 1},
        **{"folder of other programs' work": 1, "folder of a biloom stage": 1},
        **{"image (.png)": 1, "image (.jpg)": 1},
    }


def test_the_folder_itself_may_have_any_name(folder: str) -> None:
    for name in (".hidden", "_work", "stage"):
        write(storage.join(folder, name), "a.txt", "out.json")
        assert [file.name for file in find(storage.join(folder, name)).files] == [
            *("a.txt", "out.json")
        ]


def test_a_path_is_a_folder_only_if_it_exists(folder: str) -> None:
    write(folder, "x/a.txt")
    assert is_folder(folder)
    assert is_folder(storage.join(folder, "x"))
    assert is_folder(storage.join(folder, "x") + "/")
    for other in ("x/a.txt", "y", "*"):
        assert not is_folder(storage.join(folder, *other.split("/")))
    assert not is_folder("https://localhost:1/x/")
    assert not is_folder("zip://x::/a.zip")


def test_markers_of_folders_in_a_store_are_no_files(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    try:
        write("memory://marked", "x/a.txt")
        store.store["/marked/x/"] = store.store["/marked/x/a.txt"]
        store.store["/marked/y/"] = store.store["/marked/x/a.txt"]
        assert [file.name for file in find("memory://marked").files] == ["x/a.txt"]
    finally:
        store.store.clear()


def test_links_lead_to_each_file_once(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    write(str(root), "sub/a.txt", "b.txt")
    write(str(other), "c.txt", "d.txt")
    (root / "sub" / "up").symlink_to("..")
    (root / "sub" / "itself").symlink_to("itself")
    (root / "out").symlink_to(other)
    (root / "again").symlink_to("b.txt")
    (root / "d").symlink_to(other / "d.txt")
    (root / "nothing").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    found = find(str(root))
    names = [file.name for file in found.files]
    assert names == ["b.txt", "out/c.txt", "out/d.txt", "sub/a.txt"]
    assert found.left_out == {below.SECOND_LINK: 2, below.BROKEN: 2, below.NO_FILE: 1}
    relative = find(f"{root}/sub/..")
    assert [file.path for file in relative.files] == [file.path for file in found.files]


def test_a_file_or_folder_without_permission_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(str(tmp_path), "a.txt")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match=r"a\.txt: no permission to read it"):
        find(str(tmp_path))
