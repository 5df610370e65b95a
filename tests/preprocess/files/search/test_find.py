"""Files found by a path, a glob or a URL."""

import os
from pathlib import Path

import pytest

from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.search import find
from preprocess.files.search.find import find_files


def test_names_are_relative_to_the_folders_before_the_first_wildcard(folder: str) -> None:
    for name in ("b.txt", "x/a.txt", "x/c.bin"):
        storage.write_bytes(storage.join(folder, name), b"123")
    found = find_files(f"{folder}/**/*.txt")
    assert [(file.name, file.bytes) for file in found] == [("b.txt", 3), ("x/a.txt", 3)]
    assert [storage.read_bytes(file.path) for file in found] == [b"123", b"123"]
    assert all(file.version for file in found)
    (single,) = find_files(f"{folder}/x/a.txt")
    assert single.name == "a.txt"


def test_any_number_of_folders_below_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a.txt", "x/b.txt"):
        (tmp_path / name).write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    for pattern in ("**/*.txt", "./**/*.txt", "**"):
        found = find_files(pattern)
        assert [(file.name, file.path) for file in found] == [
            ("a.txt", str(tmp_path / "a.txt")),
            ("x/b.txt", str(tmp_path / "x" / "b.txt")),
        ]


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
        def invalidate_cache(self) -> None:
            pass

        def info(self, path: str) -> dict[str, object]:
            return {"name": path, "type": "file", **size}

    monkeypatch.setattr(find, "open_remote", lambda path: (Web(), path))
    with pytest.raises(
        StorageError, match=f"{url}: the server does not report the file's size; download"
    ):
        find_files(url)


def write(folder: str, *names: str) -> None:
    for name in names:
        storage.write_bytes(storage.join(folder, *name.split("/")), name.encode())


def names(pattern: str) -> list[str]:
    found = find_files(pattern)
    for file in found:
        assert storage.read_bytes(file.path, 0, file.bytes).decode().endswith(file.name)
    return [file.name for file in found]


def test_an_existing_folder_is_meant_literally(folder: str) -> None:
    write(folder, "[D] x/a.txt", "D x/b.txt", "a*b?/sub/c.txt", "aXbY/sub/d.txt")
    assert names(f"{folder}/[D] x/*.txt") == ["a.txt"]
    assert names(f"{folder}/[[]D] x/*.txt") == ["[D] x/a.txt"]
    assert names(f"{folder}/[D]?x/*.txt") == ["D x/b.txt"]
    assert names(f"{folder}/a*b?/*/*.txt") == ["sub/c.txt"]
    assert names(f"{folder}/a*b[Y]/*/*.txt") == ["aXbY/sub/d.txt"]
    # After a wildcard, too.
    assert names(f"{folder}/*/[s]ub/*.txt") == ["a*b?/sub/c.txt", "aXbY/sub/d.txt"]


def test_the_exact_name_of_an_existing_file_matches_only_this_file_but_a_lone_star_is_a_wildcard(
    folder: str,
) -> None:
    write(folder, "a?.txt", "ab.txt", "*/c.txt", "d/e.txt")
    assert names(f"{folder}/a?.txt") == ["a?.txt"]
    assert names(f"{folder}/a[?].txt") == ["a?.txt"]
    assert names(f"{folder}/*/*.txt") == ["*/c.txt", "d/e.txt"]
    assert names(f"{folder}/[*]/*.txt") == ["*/c.txt"]


def test_wildcards_do_not_match_a_leading_dot(folder: str) -> None:
    write(folder, "a.txt", ".b.txt", ".c/d.txt", "e/.f/g.txt", "e/.h.txt", "e/i.txt")
    assert names(f"{folder}/*.txt") == ["a.txt"]
    assert names(f"{folder}/**/*.txt") == ["a.txt", "e/i.txt"]
    assert names(f"{folder}/**") == ["a.txt", "e/i.txt"]
    assert names(f"{folder}/.*.txt") == [".b.txt"]
    assert names(f"{folder}/.c/*.txt") == ["d.txt"]
    assert names(f"{folder}/**/.f/*.txt") == ["e/.f/g.txt"]
    assert names(f"{folder}/**/.h*") == ["e/.h.txt"]


def test_a_loop_of_links_gives_a_file_once(tmp_path: Path) -> None:
    write(str(tmp_path), "raw/a.txt", "raw/sub/b.txt")
    (tmp_path / "raw" / "sub" / "up").symlink_to("..")
    (tmp_path / "raw" / "aaa").symlink_to("sub")
    # A file is named by its own place, whatever the order of names.
    assert names(f"{tmp_path}/raw/**/*.txt") == ["a.txt", "sub/b.txt"]
    assert names(f"{tmp_path}/raw/*/*.txt") == ["sub/b.txt"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link").symlink_to("../raw")
    assert [f.name for f in find_files(f"{tmp_path}/other/**/*.txt")] == [
        "link/a.txt",
        "link/sub/b.txt",
    ]


def test_links_to_files_are_files_of_their_own(tmp_path: Path) -> None:
    write(str(tmp_path), "m.txt", "elsewhere/x")
    (tmp_path / "a.txt").symlink_to("m.txt")
    (tmp_path / "y.txt").symlink_to("elsewhere/x")
    (tmp_path / "n.txt").hardlink_to(tmp_path / "m.txt")
    found = find_files(f"{tmp_path}/**/*.txt")
    assert [file.name for file in found] == ["a.txt", "m.txt", "n.txt", "y.txt"]


def test_two_dots_after_a_link_lead_to_the_folder_above_its_target(tmp_path: Path) -> None:
    write(str(tmp_path), "a.txt", "far/away/x", "far/a.txt")
    (tmp_path / "link").symlink_to("far/away")
    (found,) = find_files(f"{tmp_path}/link/../a.txt")
    assert storage.read_bytes(found.path) == b"far/a.txt"


def test_files_that_cannot_be_read_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "gone.txt").symlink_to("nothing")
    (tmp_path / "raw" / "loop.txt").symlink_to("loop.txt")
    for name, reason in {"gone": "No such file", "loop": "Too many levels"}.items():
        for pattern in (f"raw/{name}.txt", f"raw/{name[0]}*.txt", f"**/{name}*"):
            with pytest.raises(StorageError, match=rf"{name}\.txt: cannot be read \({reason}"):
                find_files(f"{tmp_path}/{pattern}")
    os.mkfifo(tmp_path / "pipe")
    for pattern in ("pipe", "pip*"):
        with pytest.raises(StorageError, match="pipe: this is not a file whose size is known"):
            find_files(f"{tmp_path}/{pattern}")

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"this folder cannot be listed \(Permission denied\)"):
        find_files(f"{tmp_path}/**/*.txt")


def test_messages_for_nothing_found_say_how_patterns_are_written(tmp_path: Path) -> None:
    for pattern, message in {
        "[D] x/*.txt": r"'\[' begins a class of characters, write \[\[\]",
        "{a,b}.txt": "braces are not a pattern, give a list",
    }.items():
        with pytest.raises(StorageError, match=message):
            find_files(f"{tmp_path}/{pattern}")


@pytest.mark.parametrize(
    "name",
    [
        "a#b.txt",
        "a?b.txt",
        "a%20b.txt",
        "a b.txt",
        "-a.txt",
        "~a.txt",
        "a::b.txt",
        "é\n\t.txt",
        "{}",
    ],
)
def test_names_with_any_characters_are_listed_and_read(folder: str, name: str) -> None:
    write(folder, f"x/{name}", "x/other")
    assert names(f"{folder}/x/{name}") == [name]
    assert name in names(f"{folder}/x/*")
    assert f"x/{name}" in names(f"{folder}/**")


def test_relative_names_are_read_whatever_they_begin_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("~a.txt", "-a.txt", "a::b.txt", "zip:a.txt"):
        write(".", name)
        assert names(name) == [name]
    assert len(names("*.txt")) == 4


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"5"', "Last-Modified": "Mon"}, '"5"'),
        ({"Last-Modified": "Mon"}, "Mon"),
        ({"blob_id": "b1a6", "last_commit": None}, "b1a6"),
        ({"sha": "b1a6"}, "b1a6"),
        ({"modificationTime": 17}, "17"),
        ({"mtime": 5.5}, "5.5"),
        ({"generation": "7", "md5Hash": "x"}, "x"),
        ({"last_modified": "2026"}, "2026"),
        ({}, ""),
    ],
)
def test_the_version_is_what_a_store_reports_of_the_content(
    monkeypatch: pytest.MonkeyPatch, info: dict[str, object], version: str
) -> None:
    class Store:
        def invalidate_cache(self) -> None:
            pass

        def unstrip_protocol(self, path: str) -> str:
            return f"hf://{path}"

        def info(self, path: str) -> dict[str, object]:
            return {"name": path, "type": "file", "size": 3, **info}

    monkeypatch.setattr(find, "open_remote", lambda path: (Store(), path))
    assert find_files("hf://datasets/a/b.txt")[0].version == version
