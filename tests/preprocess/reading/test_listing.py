"""Files of a source: each once, and never a run's own output."""

import gzip
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from preprocess.config import Source
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.manifest import FileRecord, Manifest, write_manifest
from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.listing import by_kind, describe_left_out, list_source, survey
from preprocess.reading.reader import read_unit
from preprocess.reading.units import Unit, plan_units
from preprocess.text.config import CleaningConfig
from preprocess.work.folder import asked_file, work_folder, write_record


def names(*paths: str) -> list[str]:
    return [file.name for file in list_source(Source(path=paths))]


def write(folder: str, *files: str) -> None:
    for name in files:
        storage.write_bytes(storage.join(folder, *name.split("/")), b"{}")


def test_a_file_that_two_patterns_find_through_links_is_one(tmp_path: Path) -> None:
    write(str(tmp_path), "raw/a.txt", "raw/b.txt")
    (tmp_path / "same").symlink_to("raw")
    patterns = [f"{tmp_path}/{name}" for name in ("raw/*.txt", "same/*.txt", "same/a.txt")]
    assert names(*patterns) == ["a.txt", "b.txt"]


def test_files_of_a_stage_are_no_input_unless_they_are_named(folder: str) -> None:
    write(folder, "a.json", "x/b.json", "x/manifest.json", "out/report.json", "y/_work/c.json")
    expected = ["a.json", "out/report.json", "x/b.json", "x/manifest.json", "y/_work/c.json"]
    for pattern in ("**/*.json", "**"):
        assert names(f"{folder}/{pattern}") == expected
    done, begun = (storage.join(folder, "out", name) for name in ("tokenizer", "prepare"))
    record = FileRecord("d.json", 2, "0" * 32)
    write(done, "d.json", "sub/e.json")
    write_manifest(done, Manifest("tokenizer", 1, "", "f", "c", {}, (record,), {}))
    write(begun, "f.json")
    write_record(asked_file(work_folder(begun, "0" * 64)), {})
    for pattern in ("**/*.json", "**"):
        assert names(f"{folder}/{pattern}") == expected
    assert names(f"{folder}/*/*/*.json") == ["y/_work/c.json"]
    assert names(f"{done}/*.json") == ["d.json", "manifest.json"]
    assert names(f"{begun}/**/f.json") == ["f.json"]


def test_a_manifest_of_somebody_else_hides_nothing(tmp_path: Path) -> None:
    for number, content in enumerate(["[]", "{", json.dumps({"stage": "x"})]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "manifest.json").write_text(content)
        (tmp_path / str(number) / "a.txt").write_text("")
    assert names(f"{tmp_path}/*/*.txt") == ["0/a.txt", "1/a.txt", "2/a.txt"]


def test_members_of_an_archive_are_read_in_ranges(tmp_path: Path) -> None:
    lines = [f"line {number} of a text" for number in range(500)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/a.txt", "\n".join(lines))
        archive.writestr("b.txt", "one\ntwo\n")
    source = Source(path=f"zip://**/*.txt::{tmp_path}/a.zip")
    units = plan_units([source], [list_source(source)], 1024)
    assert len(units) > 5
    read = [
        text
        for unit in units
        for block in read_unit(unit, source, CleaningConfig())
        for text in block.documents
    ]
    assert read == ["one", "two", *lines]


def test_a_folder_is_an_input_like_any_pattern(folder: str) -> None:
    write(folder, "x/a.txt", "x/y/b.txt", "x/z.png", "c.txt", "out/report.html")
    done = storage.join(folder, "out", "tokenizer")
    write(done, "d.json")
    write_manifest(done, Manifest("tokenizer", 1, "", "f", "c", {}, (), {}))
    assert names(folder) == ["c.txt", "x/a.txt", "x/y/b.txt"]
    assert names(storage.join(folder, "x"), f"{folder}/*.txt") == ["a.txt", "c.txt", "y/b.txt"]
    assert names(done) == ["d.json", "manifest.json"]
    found = survey(Source(path=(storage.join(folder, "x"), storage.join(folder, "x"))))
    assert [file.name for file in found.files] == ["a.txt", "y/b.txt"]


def test_what_is_left_out_of_a_folder_is_counted_by_kind(tmp_path: Path) -> None:
    write(str(tmp_path), "a.txt", "b.png", "c.png", "d.pdf", ".e", ".git/f")
    found = survey(Source(path=str(tmp_path))).left_out
    assert describe_left_out(found) == (
        "2 images (.png), 1 PDF or DjVu document (.pdf), 1 hidden file, 1 hidden folder"
    )
    assert by_kind(found) == {
        **{"images (.png)": 2, "PDF and DjVu documents (.pdf)": 1},
        **{"hidden files": 1, "hidden folders": 1},
    }
    many = Counter({(f"{n:02}", f"{n:02}s"): 2 for n in range(20)})
    assert describe_left_out(many).endswith("2 10s, 18 of other kinds")


def test_files_are_counted_while_they_are_listed(folder: str) -> None:
    write(folder, "a.txt", "b.png", "x/c.txt", "x/d.txt", ".git/e.txt")
    seen: list[None] = []
    listed = list_source(Source(path=folder), lambda: seen.append(None))
    # The picture too; a folder that is left out is not searched.
    assert (len(listed), len(seen)) == (3, 4)
    seen.clear()
    listed = list_source(Source(path=f"{folder}/*/*.txt"), lambda: seen.append(None))
    assert (len(listed), len(seen)) == (2, 2)


@pytest.mark.parametrize(
    ("files", "there"), [(["a.png"], r"1 image \(.png\)"), ([], "it is empty")]
)
def test_a_folder_with_nothing_readable_is_refused(
    tmp_path: Path, files: list[str], there: str
) -> None:
    write(str(tmp_path), *files)
    message = rf"no file in this folder may be text \({there}\); name a folder with text"
    with pytest.raises(StorageError, match=message):
        names(str(tmp_path))


def test_a_file_in_a_folder_that_is_not_text_is_counted_and_others_stop(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"words")
    (tmp_path / "b.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    source = Source(path=str(tmp_path))
    (unit,) = plan_units([source], [list_source(source)], 1024)
    (block,) = read_unit(unit, source, CleaningConfig())
    assert block.documents == ["words"]
    assert [(one.reason, one.where) for one in block.rejected] == [("not_text", "b.txt")]
    assert Unit.from_dict(unit.to_dict()) == unit
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"words")[:-9])
    (unit,) = plan_units([source], [list_source(source)], 1024)
    with pytest.raises(DamagedFile, match=r"c\.txt\.gz: "):
        list(read_unit(unit, source, CleaningConfig()))
    pattern = Source(path=f"{tmp_path}/*.txt")
    (unit,) = plan_units([pattern], [list_source(pattern)], 1024)
    with pytest.raises(DamagedFile, match=r"b\.txt: this is an image"):
        list(read_unit(unit, pattern, CleaningConfig()))
