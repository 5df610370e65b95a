import json
import pickle
import re
from dataclasses import replace

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import manifest as module
from preprocess.files import storage
from preprocess.files.manifest import (
    ROWS_FORMAT,
    FileRecord,
    Manifest,
    ManifestError,
    content_hash,
    hash_file,
    read_manifest,
    write_manifest,
)

FILES = (
    FileRecord("train-000000-000.bin", 3, "0" * 32, {"documents": 3, "split": "train"}),
    FileRecord("语/文.bin", 0, "1" * 32),
)
MADE = Manifest(
    stage="prepare",
    stage_version=1,
    biloom="0.1.0",
    fingerprint="f" * 64,
    content="c" * 64,
    asked={"prepare.input": ["语.txt", "\ud800", 3], "nested": {"files": []}},
    files=FILES,
    details={"perplexity": 0.1},
    beside=(FileRecord("stats.json", 3, "2" * 32),),
)


def _damage(folder, **columns):
    """Change columns of the manifest and its checksum, as a stranger can."""
    path = storage.join(folder, "manifest.json")
    raw = json.loads(storage.read_bytes(path)) | columns
    raw.pop("checksum")
    text = json.dumps({**raw, "checksum": module._checksum(raw)})
    storage.write_bytes(path, text.encode())


def test_manifest_reads_back_equal(folder):
    write_manifest(folder, MADE)
    assert read_manifest(folder, "prepare") == MADE
    assert read_manifest(folder) == MADE


def test_manifest_without_files_reads_back_equal(folder):
    write_manifest(folder, replace(MADE, files=(), beside=()))
    assert read_manifest(folder) == replace(MADE, files=(), beside=())


def test_manifest_is_readable_utf8_with_one_line_per_file(folder):
    write_manifest(folder, MADE)
    lines = storage.read_bytes(storage.join(folder, "manifest.json")).decode().splitlines()
    assert lines[1] == f'  "format": {ROWS_FORMAT},'
    assert any("语.txt" in line for line in lines)
    rows = [json.loads(line.strip(" ,")) for line in lines if '"xxh128"' in line]
    assert [row["bytes"] for row in rows] == [3, 0, 3]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("prepare", "holds no finished 'prepare' (no manifest.json); run `biloom prepare` first"),
        (None, "holds no finished stage (no manifest.json); check the path"),
    ],
)
def test_folder_without_a_manifest_is_refused(folder, stage, message):
    with pytest.raises(ManifestError, match=re.escape(f"{folder} {message}")):
        read_manifest(folder, stage)


def test_file_in_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ManifestError, match="holds no finished stage"):
        read_manifest(str(tmp_path / "file"))


def test_newer_format_is_refused_before_its_columns_are_parsed(folder):
    storage.write_bytes(storage.join(folder, "manifest.json"), b'{"format": 99}')
    with pytest.raises(ManifestError, match=r"newer biloom .*format 99.*upgrade biloom"):
        read_manifest(folder)


def test_another_stage_is_refused(folder):
    write_manifest(folder, MADE)
    with pytest.raises(ManifestError, match=r"a finished 'prepare', not 'train'.*`biloom train`"):
        read_manifest(folder, "train")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"format": 1',
        b"\xff",
        b"[]",
        b"1",
        b"[" * 100_000,
        b'{"format": ' + b"9" * 5000 + b"}",
        b'{"format": ' + b"9" * 101 + b"}",
        b'{"format": NaN}',
        b'{"format": 1e999}',
        b'{"format": -1}',
        b'{"format": 0}',
        b'{"format": true}',
    ],
)
def test_manifest_that_is_not_a_json_object_is_refused(folder, data):
    storage.write_bytes(storage.join(folder, "manifest.json"), data)
    with pytest.raises(ManifestError, match=r"damaged \(.*\); .*`biloom prepare --overwrite`"):
        read_manifest(folder, "prepare")


def _file(**columns):
    return {"files": [{"name": "x", "bytes": 3, "xxh128": "a" * 32, **columns}]}


def _nested(depth):
    return {} if depth == 0 else {"x": _nested(depth - 1)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"files": [{"name": "x", "bytes": 3}]}, "no 'xxh128'"),
        (_file(bytes="3"), "the size of 'x' is '3'"),
        (_file(bytes=-1), "the size of 'x' is -1"),
        (_file(bytes=1 << 63), "the size of 'x' is 9223372036854775808"),
        (_file(bytes=True), "the size of 'x' is True"),
        (_file(xxh128=""), "the hash of 'x' is ''"),
        (_file(xxh128="/" + "a" * 31), "the hash of 'x' is '/aaa"),
        (_file(xxh128="A" * 32), "the hash of 'x'"),
        (_file(xxh128="a" * 32 + "\n"), "the hash of 'x'"),
        ({"files": ["x"]}, "a file is 'x'"),
        (_file(odd=[]), "column 'odd' of 'x' is []"),
        (_file(tokens=-1), "column 'tokens' of 'x' is -1"),
        (_file(tokens=1.5), "column 'tokens' of 'x' is 1.5"),
        (_file(tokens=1 << 63), "column 'tokens' of 'x' is 9223372036854775808"),
        ({"files": _file()["files"] * 2}, "it lists 'x' twice"),
        ({"beside": _file()["files"], **_file()}, "it lists 'x' twice"),
        ({"files": {}}, "'files' is {}"),
        ({"beside": {}}, "'beside' is {}"),
        ({"content": None}, "'content' is None"),
        ({"content": "c" * 65}, "'content' is 'cc"),
        ({"fingerprint": "/" * 64}, "'fingerprint' is '//"),
        ({"format": "1"}, "'format' is '1'"),
        ({"stage_version": True}, "'stage_version' is True"),
        ({"stage_version": -1}, "'stage_version' is -1"),
        ({"details": []}, "'details' is"),
        ({"details": {"vocabulary": "many"}}, "'vocabulary': Input should be a valid integer"),
        ({"details": {"vocabulary": -1}}, "'vocabulary': Input should be greater than or equal"),
        ({"details": _nested(60)}, "'details' is nested too deeply"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_manifest_with_a_wrong_column_is_refused(folder, columns, message):
    write_manifest(folder, MADE)
    _damage(folder, **columns)
    with pytest.raises(ManifestError, match="damaged") as caught:
        read_manifest(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "/x",
            "x/",
            "x//y",
            "../x",
            "x/../y",
            "x/..",
            "\\x",
            "x\\y",
            "C:x",
            "s3://x/y",
        ),
        *("x\0", "x\n", "x\ud800", "x" * 256, 3, None),
    ],
)
def test_file_name_outside_the_folder_is_refused(folder, name):
    with pytest.raises(ManifestError, match="a file has the name"):
        FileRecord(name, 0, "0" * 32)
    write_manifest(folder, MADE)
    _damage(folder, **_file(name=name))
    with pytest.raises(ManifestError, match=r"damaged \(a file has the name"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["x", "...", "..x", "a/b.c", "语 文", "-x", "~x", "%2e"])
def test_other_file_names_are_accepted(name):
    assert FileRecord(name, 0, "0" * 32).name == name


def test_record_refuses_a_reserved_column_name():
    with pytest.raises(AssertionError, match="reserved column name"):
        FileRecord("x", 1, "0" * 32, {"bytes": 2})


def test_missing_entry_is_an_error_of_the_manifest(folder):
    write_manifest(folder, replace(MADE, details={"model": {"layers": [{"a": 1}]}}))
    details = read_manifest(folder).details
    assert details == {"model": {"layers": [{"a": 1}]}}
    assert details.get("x") is None
    for one in (details, details["model"], details["model"]["layers"][0]):
        with pytest.raises(ManifestError) as caught:
            one["x"]
        assert str(caught.value) == (
            f"{folder}: manifest.json is damaged (no 'x'); copy or make the folder again"
        )
    assert pickle.loads(pickle.dumps(details)) == details


def test_changed_value_is_noticed_by_the_checksum(folder):
    write_manifest(folder, MADE)
    path = storage.join(folder, "manifest.json")
    data = storage.read_bytes(path)
    for index in range(len(data)):
        flipped = bytearray(data)
        flipped[index] ^= 1 << index % 8
        storage.write_bytes(path, bytes(flipped))
        try:
            same = json.loads(bytes(flipped)) == json.loads(data)
        except ValueError:
            same = False
        if same:
            assert read_manifest(folder) == MADE
        else:
            with pytest.raises(ManifestError, match=r"is damaged|newer biloom"):
                read_manifest(folder)


def test_format_1_without_a_checksum_is_read(folder):
    write_manifest(folder, replace(MADE, beside=()))
    path = storage.join(folder, "manifest.json")
    raw = json.loads(storage.read_bytes(path))
    former = {**raw, "format": 1}
    storage.write_bytes(path, json.dumps(former).encode())
    with pytest.raises(ManifestError, match="checksum does not match"):
        read_manifest(folder)
    del former["checksum"], former["beside"]
    storage.write_bytes(path, json.dumps(former).encode())
    assert read_manifest(folder) == replace(MADE, format=1, beside=())


def test_format_2_without_a_checksum_is_refused(folder):
    write_manifest(folder, MADE)
    path = storage.join(folder, "manifest.json")
    raw = json.loads(storage.read_bytes(path))
    del raw["checksum"]
    storage.write_bytes(path, json.dumps(raw).encode())
    with pytest.raises(ManifestError, match="checksum does not match"):
        read_manifest(folder)


def test_former_manifest_is_written_in_the_present_format(folder):
    write_manifest(folder, replace(MADE, format=1))
    assert read_manifest(folder) == MADE


def test_hash_file_reads_in_blocks(folder, monkeypatch):
    monkeypatch.setattr(module, "HASHED_AT_ONCE", 4)
    path = storage.join(folder, "x.bin")
    storage.write_bytes(path, b"0123456789")
    assert hash_file(path) == (10, xxhash.xxh3_128_hexdigest(b"0123456789"))


@given(st.permutations(FILES))
@settings(deadline=None)
def test_content_does_not_depend_on_the_order_of_files(files):
    assert content_hash(files) == content_hash(FILES)


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"xxh128": "2" * 32}, {"counts": {"documents": 4}}]
)
def test_content_changes_with_every_column(change):
    assert content_hash([replace(FILES[0], **change), FILES[1]]) != content_hash(FILES)
