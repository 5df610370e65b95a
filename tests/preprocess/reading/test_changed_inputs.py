"""Detection of raw files that changed at equal size."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
import xxhash

from preprocess.files.errors import StorageError
from preprocess.files.search.find import find_files
from preprocess.files.search.found import FileInfo
from preprocess.files.storage import TEMPORARY, open_read, write_bytes
from preprocess.reading import changed_inputs
from preprocess.reading.changed_inputs import (
    CHECKED,
    INPUTS,
    changed,
    digest,
    keep_checked,
    write_inputs,
)
from preprocess.work.folder import unit_record, word_record


def raw_files(folder: Path, **texts: str) -> list[FileInfo]:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text)
    return find_files(f"{folder}/*.txt")


def rows(files: list[FileInfo], cut: int = 4) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for file in files:
        data = Path(file.path).read_bytes()
        for start in range(0, len(data), cut):
            piece = data[start : start + cut]
            digest = xxhash.xxh3_128(piece).hexdigest()
            end = start + len(piece)
            row = {"name": file.name, "start": start, "end": end, "version": file.version}
            found.append({**row, "xxh128": digest})
    return found


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))


def test_a_file_of_the_same_version_is_not_hashed(tmp_path: Path) -> None:
    files = raw_files(tmp_path / "raw", a="aaaaaa", b="bbbbbb")
    write_inputs(str(tmp_path), rows(files))
    (tmp_path / "raw" / "a.txt").unlink()
    assert changed(str(tmp_path), files) == []


def test_ranges_are_counted_while_they_are_compared(tmp_path: Path) -> None:
    files = raw_files(tmp_path / "raw", a="aaaaaa", b="bbbbbb")
    write_inputs(str(tmp_path), rows(files))
    compared: list[None] = []
    assert changed(str(tmp_path), files, compared=lambda: compared.append(None)) == []
    assert len(compared) == len(rows(files)) == 4


@pytest.mark.parametrize("finished", [True, False])
def test_a_changed_file_is_found_and_a_touched_one_is_not(tmp_path: Path, finished: bool) -> None:
    files = raw_files(tmp_path / "raw", a="aaaaaa", b="bbbbbb", c="cccccc")
    folder = str(tmp_path / "prepare")
    if finished:
        write_inputs(folder, rows(files))
    else:
        for unit, row in enumerate(rows(files)):
            data = json.dumps({"inputs": [row]}).encode()
            write_bytes(unit_record(f"{folder}/_work", unit), data)
        left = tmp_path / "prepare" / "_work" / "units" / f"{TEMPORARY}host-1-000009.json"
        left.write_text('{"inp')
    work = f"{folder}/_work"
    assert changed(folder, files, work) == []
    rewrite(tmp_path / "raw" / "a.txt", "aaaaaa")
    rewrite(tmp_path / "raw" / "b.txt", "bbbbbB")
    rewrite(tmp_path / "raw" / "c.txt", "CCCCcc")
    again = find_files(f"{tmp_path}/raw/*.txt")
    assert [file.version for file in again] != [file.version for file in files]
    assert changed(folder, again, work) == ["b.txt", "c.txt"]
    # A file that is no longer in the input changes the fingerprint instead.
    assert changed(folder, again[:1], work) == []


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened to hash them."""
    opened: list[str] = []

    def open_and_note(path: str) -> BinaryIO:
        opened.append(Path(path).name)
        return open_read(path)

    monkeypatch.setattr(changed_inputs, "open_read", open_and_note)
    return opened


def check(folder: str, raw: Path) -> list[str]:
    """Return what a new process finds changed, which keeps what it hashed."""
    found = changed(folder, find_files(f"{raw}/*.txt"))
    assert changed(folder, find_files(f"{raw}/*.txt")) == found
    keep_checked(folder)
    return found


def test_a_version_is_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    raw, folder = tmp_path / "raw", str(tmp_path / "prepare")
    write_inputs(folder, rows(raw_files(raw, a="aaaa", b="bbbb", c="cccc")))
    checked = tmp_path / "prepare" / CHECKED
    assert check(folder, raw) == []
    assert not checked.exists()
    rewrite(raw / "a.txt", "aaaa")
    rewrite(raw / "b.txt", "BBBB")
    for _ in range(3):
        assert check(folder, raw) == ["b.txt"]
    assert hashed == ["a.txt", "b.txt"]
    # Another version is hashed, and replaces the answer for the former.
    rewrite(raw / "b.txt", "bbbb")
    assert check(folder, raw) == []
    assert check(folder, raw) == []
    assert hashed == ["a.txt", "b.txt", "b.txt"]
    assert len(checked.read_text().splitlines()) == 2
    # A file of answers that is damaged is no answer.
    checked.write_text('{"path": 1}\n{')
    assert check(folder, raw) == []
    assert len(hashed) == 5
    assert len(checked.read_text().splitlines()) == 2


def test_a_file_without_a_version_is_hashed_each_time(tmp_path: Path, hashed: list[str]) -> None:
    folder = str(tmp_path / "prepare")
    files = [replace(file, version="") for file in raw_files(tmp_path / "raw", a="aaaa")]
    write_inputs(folder, rows(files))
    for _ in range(2):
        assert changed(folder, files) == []
        keep_checked(folder)
    assert hashed == ["a.txt", "a.txt"]
    (tmp_path / "raw" / "a.txt").write_text("AAAA")
    assert changed(folder, files) == ["a.txt"]


def test_a_folder_that_cannot_be_written_is_checked_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, folder = tmp_path / "raw", str(tmp_path / "prepare")
    write_inputs(folder, rows(raw_files(raw, a="aaaa")))
    rewrite(raw / "a.txt", "aaaa")
    for error in (StorageError("full"), PermissionError(13, "no")):

        def refuse(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(changed_inputs, "write_bytes", refuse)
        assert check(folder, raw) == []


def test_a_file_that_has_become_shorter_than_what_was_read_has_changed(tmp_path: Path) -> None:
    folder = str(tmp_path / "prepare")
    (file,) = raw_files(tmp_path / "raw", a="aaaa")
    write_inputs(folder, rows([file]))
    assert changed(folder, [replace(file, bytes=3, version="2")]) == ["a.txt"]
    (tmp_path / "raw" / "a.txt").write_text("aa")
    assert changed(folder, [replace(file, version="3")]) == ["a.txt"]


def test_counted_words_are_checked_as_well(tmp_path: Path) -> None:
    folder, work = str(tmp_path / "tokenizer"), str(tmp_path / "tokenizer" / "_work")
    files = raw_files(tmp_path / "raw", a="aaaa", b="bbbb")
    for unit, row in enumerate(rows(files[:1])):
        data = json.dumps({"documents": 1, "inputs": [row]}).encode()
        write_bytes(word_record(work, unit), data)
    write_bytes(word_record(work, 1), b'{"documents": 1}')  # of a former version
    assert changed(folder, files, work) == []
    for name in "ab":
        rewrite(tmp_path / "raw" / f"{name}.txt", "xxxx")
    assert changed(folder, find_files(f"{tmp_path}/raw/*.txt"), work) == ["a.txt"]


def test_files_of_equal_name_in_two_sources_are_not_confused(tmp_path: Path) -> None:
    files = raw_files(tmp_path / "x", text="one one") + raw_files(tmp_path / "y", text="two two")
    os.utime(files[0].path, ns=(1, 1))
    files = find_files(files[0].path) + find_files(files[1].path)
    assert [file.name for file in files] == ["text.txt", "text.txt"]
    folder = str(tmp_path / "prepare")
    write_inputs(folder, rows(files))
    assert changed(folder, files) == []
    rewrite(tmp_path / "y" / "text.txt", "two 2wo")
    files = find_files(files[0].path) + find_files(files[1].path)
    assert changed(folder, files) == ["text.txt"]


def test_names_with_any_characters_are_kept(tmp_path: Path) -> None:
    name = "a\u2028b\x85c"
    files = raw_files(tmp_path / "raw", **{name: "text"})
    folder = str(tmp_path / "prepare")
    write_inputs(folder, rows(files))
    assert len((tmp_path / "prepare" / INPUTS).read_bytes().splitlines()) == 1
    rewrite(Path(files[0].path), "TEXT")
    assert changed(folder, find_files(f"{tmp_path}/raw/*.txt")) == [f"{name}.txt"]


def test_nothing_has_changed_before_anything_was_read(tmp_path: Path) -> None:
    assert changed(str(tmp_path / "prepare"), raw_files(tmp_path / "raw", a="x")) == []


def test_the_digest_depends_on_names_sizes_and_order_but_not_on_paths() -> None:
    one, two = FileInfo("a", "/x/a", 3, "1"), FileInfo("b", "/x/b", 4, "1")
    moved = FileInfo("a", "s3://y/a", 3, "9")
    assert digest([one, two]) == digest([moved, two])
    assert digest([one, two])["files"] == 2
    assert digest([one, two])["bytes"] == 7
    others = [[two, one], [one], [FileInfo("a", "/x/a", 4, "1"), two], []]
    marks = {digest(files)["names_and_sizes"] for files in [[one, two], *others]}
    assert len(marks) == 5
    assert digest([FileInfo("bad \udcff", "/x", 1, "1")])["bytes"] == 1
