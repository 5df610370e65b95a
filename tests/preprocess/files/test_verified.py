"""Files of a finished stage are compared with their records when they are read."""

import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from preprocess.files import storage, verified
from preprocess.files.manifest import FileRecord, Manifest, check_files, hash_file
from preprocess.files.verified import (
    DamagedResult,
    manifest_of,
    read_config,
    read_verified,
    verify,
)

REPAIR = "run `biloom check {}`, and copy the folder again or make it again with `biloom export --overwrite`"


@pytest.fixture(autouse=True)
def _nothing_verified(monkeypatch):
    monkeypatch.setattr(verified, "_verified", type(verified._verified)())


def made(folder: str, names: tuple[str, ...] = ("x",), **columns: int) -> Manifest:
    files = []
    for name in names:
        storage.write_bytes(storage.join(folder, name), b"12345")
        files.append(FileRecord(name, *hash_file(storage.join(folder, name))))
    return Manifest("export", 1, "0", "f" * 64, "c" * 64, {}, tuple(files), {}, **columns)


def verify_record(folder: str, manifest: Manifest, name: str) -> None:
    verify(folder, manifest.records[name], manifest.stage)


def test_intact_files_are_read(folder):
    manifest = made(folder)
    assert read_verified(folder, manifest, "x") == b"12345"
    verify(folder, manifest.records["x"], "export")
    assert read_verified(folder, None, "x") == b"12345"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1234", "is damaged (4 bytes, not 5)"),
        (b"12346", "is damaged (hash "),
        (None, "is missing; "),
    ],
)
def test_damaged_files_are_refused(folder, data, message):
    manifest = made(folder)
    path = storage.join(folder, "x")
    storage.remove(path)
    if data is not None:
        storage.write_bytes(path, data)
    for read in (read_verified, verify_record):
        with pytest.raises(DamagedResult, match=re.escape(f"{path} {message}")) as caught:
            read(folder, manifest, "x")
        assert REPAIR.format(folder) in str(caught.value)


def test_folder_in_place_of_a_file_is_refused(tmp_path):
    manifest = made(str(tmp_path))
    (tmp_path / "x").unlink()
    (tmp_path / "x").mkdir()
    for read in (read_verified, verify_record):
        with pytest.raises(DamagedResult, match="x cannot be read"):
            read(str(tmp_path), manifest, "x")


def test_file_that_no_manifest_lists(folder):
    manifest = made(folder)
    storage.write_bytes(storage.join(folder, "other"), b"1")
    # Older manifests do not list the files beside the result.
    assert read_verified(folder, manifest, "other") == b"1"
    manifest = replace(manifest, beside=(FileRecord("stats.json", 1, "0" * 32),))
    with pytest.raises(DamagedResult, match=re.escape("other is not listed in manifest.json")):
        read_verified(folder, manifest, "other")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("x.json", b'{"a": 1}', {"a": 1}),
        ("x.yaml", b"a: [1]", {"a": [1]}),
        ("x.json", b"[1]", "x.json is damaged (it holds no mapping); run"),
        ("x.json", b"{", "x.json is damaged (Expecting"),
        ("x.json", b"[" * 100_000, "x.json is damaged ("),
        ("x.json", b"\xff", "x.json is damaged ("),
        ("x.yaml", b"a: [", "x.yaml is damaged (while parsing"),
        ("x.yaml", b"\x00", "x.yaml is damaged ("),
        ("x.yaml", b"1", "x.yaml is damaged (it holds no mapping)"),
    ],
)
def test_config_is_a_mapping(folder, name, data, expected):
    storage.write_bytes(storage.join(folder, name), data)
    if isinstance(expected, dict):
        assert read_config(folder, None, name) == expected
    else:
        with pytest.raises(DamagedResult, match=re.escape(expected)):
            read_config(folder, None, name)


def test_folder_without_a_manifest(folder):
    assert manifest_of(folder) is None


def test_a_local_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    manifest, hashed = made(str(tmp_path)), []
    record = manifest.files[0]
    monkeypatch.setattr(verified, "hash_file", lambda p: hashed.append(p) or hash_file(p))
    for _ in range(3):
        verify(str(tmp_path), record, "export")
    assert len(hashed) == 1
    path = tmp_path / "x"
    os.utime(path, ns=(1, 1))
    verify(str(tmp_path), record, "export")
    assert len(hashed) == 2
    path.write_bytes(b"12346")
    for _ in range(2):
        with pytest.raises(DamagedResult, match="hash"):
            verify(str(tmp_path), record, "export")


def test_threads_hash_a_file_once(tmp_path, monkeypatch):
    record, hashed = made(str(tmp_path)).files[0], []
    started = threading.Event()

    def slow(path: str) -> tuple[int, str]:
        hashed.append(path)
        started.wait(0.2)
        return hash_file(path)

    monkeypatch.setattr(verified, "hash_file", slow)
    threads = [
        threading.Thread(target=verify, args=(str(tmp_path), record, "export")) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashed) == 1


def test_memory_is_bounded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(verified, "REMEMBERED", 2)
    manifest = made(str(tmp_path), ("a", "b", "c"))
    for record in manifest.files:
        verify(str(tmp_path), record, "export")
    assert len(verified._verified) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_process_is_not_stopped_by_a_lock_held_elsewhere(tmp_path):
    record = made(str(tmp_path)).files[0]
    with verified._lock, verified._file_locks[0]:
        child = os.fork()
        if child == 0:
            verify(str(tmp_path), record, "export")
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_check_files_names_every_problem(folder):
    records = []
    for name in ("whole", "missing", "short", "changed"):
        storage.write_bytes(storage.join(folder, name), b"12345")
        records.append(FileRecord(name, *hash_file(storage.join(folder, name))))
    manifest = replace(made(folder), files=tuple(records[:2]), beside=tuple(records[2:]))
    assert check_files(folder, manifest) == []

    storage.remove(storage.join(folder, "missing"))
    storage.write_bytes(storage.join(folder, "short"), b"1234")
    storage.write_bytes(storage.join(folder, "changed"), b"12346")
    seen = []
    problems = check_files(folder, manifest, seen.append)
    assert seen == records
    assert problems[:2] == ["missing: missing", "short: size is 4 bytes, was 5"]
    assert problems[2].startswith("changed: hash is ")
    assert len(problems) == 3
