"""Files of a source: each once, and never a run's own output."""

import json
import zipfile
from pathlib import Path

from preprocess.config import Source
from preprocess.files import storage
from preprocess.files.manifest import FileRecord, Manifest, write_manifest
from preprocess.reading.listing import list_source
from preprocess.reading.reader import read_unit
from preprocess.reading.units import plan_units
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
