"""Detection of raw files that changed at equal size."""

import json
import os
from pathlib import Path

import pytest
import xxhash

from preprocess.files.find import FileInfo, find_files
from preprocess.files.storage import TEMPORARY, write_bytes
from preprocess.reading.changed_inputs import INPUTS, changed, digest, write_inputs
from preprocess.work.folder import unit_record


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
