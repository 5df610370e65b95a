"""The records of many units are read at once from a store, in the order of units."""

import threading
from pathlib import Path

import pytest

from preprocess.files import storage
from preprocess.work import done
from preprocess.work.folder import finished_record, unit_record, write_done


@pytest.fixture(params=["disk", "store"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "disk" else f"memory://done-{tmp_path.name}"
    return f"{root}/_work/{'a' * 64}"


def write(work: str, units: int) -> None:
    for unit in range(units):
        write_done(work, unit_record(work, unit), {"read": unit})
        write_done(work, finished_record(work, unit), {"files": [unit]})


def test_the_records_of_both_passes_come_in_the_order_of_units(work: str) -> None:
    write(work, 20)
    found = [*done.read_finished_units(work, 20)]
    assert found == [({"read": unit}, {"files": [unit]}) for unit in range(20)]


def test_a_unit_without_a_record_is_an_error(work: str) -> None:
    write(work, 3)
    storage.remove(finished_record(work, 1))
    with pytest.raises(FileNotFoundError):
        list(done.read_finished_units(work, 3))


def test_a_store_is_asked_for_many_records_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = f"memory://done-{tmp_path.name}/_work/{'a' * 64}"
    write(work, 4)
    # Broken if fewer than four threads read.
    together, read = threading.Barrier(4, timeout=60), done.read_unit_record

    def wait_and_read(work: str, unit: int) -> object:
        together.wait()
        return read(work, unit)

    monkeypatch.setattr(done, "read_unit_record", wait_and_read)
    assert len([*done.read_finished_units(work, 4)]) == 4
