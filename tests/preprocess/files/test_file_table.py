"""Records of files in columns: the same records as rows, lazily, and damage."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import manifest as manifests
from preprocess.files import storage
from preprocess.files.bulk.file_table import FileTable, decode_table, encode_table
from preprocess.files.durability import never_synced
from preprocess.files.manifest import (
    DamagedManifest,
    FileRecord,
    Manifest,
    ManifestError,
    check_files,
    content_hash,
    read_manifest,
    record_of,
    write_manifest,
)

NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:\x7f", min_codepoint=32),
    min_size=1,
    max_size=9,
)
COUNTS = st.dictionaries(
    st.sampled_from(["split", "documents", "tokens"]),
    st.one_of(st.integers(0, 2**63 - 1), st.sampled_from(["", "train", "valid", "é"])),
)
RECORDS = st.lists(
    st.builds(
        FileRecord,
        NAME.filter(lambda name: name not in (".", "..")),
        st.integers(0, 2**63 - 1),
        st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}"),
        COUNTS,
    ),
    unique_by=lambda file: file.name,
    max_size=9,
)


@settings(deadline=None)
@given(RECORDS)
def test_a_table_has_the_same_records_as_rows(files: list[FileRecord]) -> None:
    data, described = encode_table(files)
    table = decode_table(data, json.loads(json.dumps(described)))
    assert [*table] == files
    assert len(table) == len(files)
    assert table[1:] == tuple(files[1:])
    assert dict(table.by_name) == {file.name: file for file in files}
    assert "no such file" not in table.by_name
    assert content_hash(table) == content_hash(files)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Manifest]:
    """A folder whose manifest has its files in columns."""
    monkeypatch.setattr(manifests, "TABLE_FROM", 3)
    files = []
    for number in range(5):
        (tmp_path / f"train-{number}.bin").write_bytes(bytes([number]))
        record = record_of(f"train-{number}.bin", bytes([number]))
        files.append(replace(record, counts={"split": "train", "documents": number}))
    (tmp_path / "config.yaml").write_bytes(b"a: 1")
    beside = (record_of("config.yaml", b"a: 1"),)
    made = Manifest("prepare", 1, "0", "f", "c", {}, tuple(files), {}, beside=beside)
    write_manifest(str(tmp_path), made)
    return tmp_path, made


def table_of(folder: Path) -> Path:
    (path,) = folder.glob("files-*.npy")
    return path


def test_a_manifest_of_many_files_has_them_in_a_file_beside_it(
    stage: tuple[Path, Manifest],
) -> None:
    folder, made = stage
    read = read_manifest(str(folder), "prepare")
    assert isinstance(read.files, FileTable)
    assert [*read.files] == [*made.files]
    assert read.format == 3
    assert read.records["train-3.bin"] == made.files[3]
    assert read.records["config.yaml"] == made.beside[0]
    assert {*read.records} == {*(f.name for f in made.all_files), table_of(folder).name}
    assert "train-3.bin" not in (folder / "manifest.json").read_text()
    assert check_files(str(folder), read) == []
    # Written again, as it is when a result takes over a setting.
    write_manifest(str(folder), read)
    assert [*read_manifest(str(folder)).all_files] == [*read.all_files]


def test_a_manifest_of_few_files_is_one_that_earlier_versions_read(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), Manifest("prepare", 1, "0", "f", "c", {}, (), {}))
    assert json.loads((tmp_path / "manifest.json").read_text())["format"] == 2
    assert not list(tmp_path.glob("files-*"))


def test_a_damaged_or_missing_table_is_told(stage: tuple[Path, Manifest]) -> None:
    folder, _ = stage
    path = table_of(folder)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedManifest, match=rf"damaged \({path.name}: hash .*--overwrite"):
        read_manifest(str(folder), "prepare")
    path.unlink()
    with pytest.raises(DamagedManifest, match=rf"{path.name} is missing"):
        read_manifest(str(folder), "prepare")


def test_a_reader_sees_the_result_before_or_after_that_of_a_writer(
    stage: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = stage
    read, former = storage.read_bytes, table_of(folder)
    other = replace(made, files=made.files[:3])
    changes = [lambda: write_manifest(str(folder), other)]

    def read_and_change(path: str) -> bytes:
        data = read(path)
        if path.endswith("manifest.json") and changes:
            changes.pop(0)()
            former.unlink(missing_ok=True)
        return data

    monkeypatch.setattr(storage, "read_bytes", read_and_change)
    assert [*read_manifest(str(folder)).files] == [*other.files]
    changes.append(lambda: shutil.rmtree(folder))
    with pytest.raises(ManifestError, match="holds no finished stage") as told:
        read_manifest(str(folder))
    assert not isinstance(told.value, DamagedManifest)


def test_readers_of_a_result_that_is_replaced_all_the_time_see_it_whole(
    stage: tuple[Path, Manifest],
) -> None:
    folder, made = stage
    results = [replace(made, files=made.files[:n]) for n in (3, 4, 5)]
    ends = threading.Event()

    def write() -> None:
        with never_synced():
            for number in range(200):
                old = table_of(folder)
                write_manifest(str(folder), results[number % 3])
                old.unlink()
        ends.set()

    write_manifest(str(folder), results[2])
    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not ends.is_set():
        seen.add(len(read_manifest(str(folder)).files))
    writer.join()
    assert seen <= {3, 4, 5}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other.npy"},
        {"rows": 4},
        {"rows": -1},
        {"name_bytes": 0},
        {"integers": [1]},
        {"strings": {"split": "train"}},
        {"strings": []},
        {"integers": ["a"] * 101},
    ],
)
def test_a_wrong_description_is_told(stage: tuple[Path, Manifest], change: dict[str, Any]) -> None:
    folder, _ = stage
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    del raw["checksum"]
    raw["table"] |= change
    raw["checksum"] = manifests._checksum(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(DamagedManifest, match="is damaged"):
        read_manifest(str(folder), "prepare")


def test_records_of_an_untrusted_table_are_checked() -> None:
    files = [FileRecord("a", 1, "0" * 32, {"split": "train"}), FileRecord("b", 1, "0" * 32)]
    data, described = encode_table(files)
    rows = np.array(decode_table(data, described)._rows)
    rows["name"][0] = b"/"
    with pytest.raises(ManifestError, match="not one in the folder"):
        FileTable(rows, described)[0]
    with pytest.raises(ManifestError, match="has no string 0"):
        decode_table(data, {**described, "strings": {"split": []}})[0]
    rows = np.array(decode_table(data, described)._rows)
    rows["name"] = b"a"
    with pytest.raises(ValueError, match="it lists 'a' twice"):
        _ = FileTable(rows, described).by_name
    rows["name"] = b"\xff"
    with pytest.raises(ManifestError, match="is not UTF-8"):
        FileTable(rows, described)[0]
