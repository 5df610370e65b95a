"""The layout of the folder of unfinished work."""

from pathlib import Path

import pytest

from preprocess.files import storage
from preprocess.files.storage import TEMPORARY
from preprocess.work import done, folder
from preprocess.work.damage import DamagedWork
from preprocess.work.done import record_counts
from preprocess.work.records import check_sealed, seal


def test_a_record_is_read_back(tmp_path: Path) -> None:
    path = folder.unit_record(str(tmp_path), 3)
    assert folder.read_record_if_written(path) is None
    with pytest.raises(FileNotFoundError):
        folder.read_unit_record(str(tmp_path), 3)
    folder.write_record(path, {"read": 1, "name": "ß"})
    assert folder.read_unit_record(str(tmp_path), 3) == {"read": 1, "name": "ß"}
    assert folder.read_record_if_written(path) == {"read": 1, "name": "ß"}


@pytest.mark.parametrize("record", [{"read": 1, "parts": [{"a": "ß"}]}, ["one", "two"]])
def test_a_changed_byte_of_a_record_is_noticed(tmp_path: Path, record: object) -> None:
    path = tmp_path / "_work" / ("a" * 64) / "units" / "000003.json"
    folder.write_record(str(path), record)
    whole = path.read_bytes()
    for index in range(len(whole)):
        for bit in (1, 4, 32, 128):
            damaged = bytearray(whole)
            damaged[index] ^= bit
            path.write_bytes(damaged)
            if b"0Df" in damaged or b"0dF" in damaged:  # an escape of the same character
                continue
            with pytest.raises(DamagedWork, match=f"; delete {tmp_path}/_work/a{{64}}, which "):
                folder.read_record(str(path))


def test_a_record_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"read": 1}')
    assert folder.read_record(str(path)) == {"read": 1}
    for damaged in ("", "{", "[" * 100_000):
        path.write_text(damaged)
        with pytest.raises(DamagedWork, match=r"record\.json is damaged"):
            folder.read_record(str(path))


def test_a_sealed_file_that_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "sample.jsonl"
    path.write_bytes(b"text")
    check_sealed(str(path))  # as a former version wrote it
    seal(str(path))
    check_sealed(str(path))
    path.write_bytes(b"tent")
    with pytest.raises(DamagedWork, match=r"sample\.jsonl is damaged \(its hash does not match\)"):
        check_sealed(str(path))


def test_records_are_listed_in_the_order_of_units_without_temporary_files(
    tmp_path: Path,
) -> None:
    work = str(tmp_path)
    for unit in (2, 0):
        folder.write_record(folder.unit_record(work, unit), {})
    folder.write_record(folder.finished_record(work, 0), {})
    Path(work, "units", f"{TEMPORARY}host-1-000001.json").write_bytes(b"")
    assert done.unit_records(work) == [folder.unit_record(work, unit) for unit in (0, 2)]
    assert record_counts(work) == (2, 0, 1)
    folder.write_record(folder.group_record(work, range(8, 12)), {})
    assert record_counts(work) == (2, 0, 5)


def test_steps_of_checkpoints_are_in_rising_order(tmp_path: Path) -> None:
    work = str(tmp_path)
    for step in (20, 9):
        Path(folder.checkpoint_file(work, step)).touch()
    Path(work, "asked.json").touch()
    assert folder.checkpoint_steps(work) == [9, 20]


@pytest.mark.parametrize("name", ["0" * 64, ""], ids=["present", "version 0.1"])
def test_work_that_is_removed_in_part_is_not_resumed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = f"{tmp_path}/_work/{name}".rstrip("/")
    folder.write_record(folder.asked_file(work), {"seed": 1})
    folder.write_record(folder.unit_record(work, 0), {"read": 1})
    assert folder.unfinished_work(str(tmp_path)) == [(work, {"seed": 1})]

    def killed(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "remove_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.remove_work(str(tmp_path), work)
    assert folder.unfinished_work(str(tmp_path)) == []
    monkeypatch.undo()
    folder.remove_strays(str(tmp_path))
    assert not storage.exists(folder.unit_record(work, 0))
