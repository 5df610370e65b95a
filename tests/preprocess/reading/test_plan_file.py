"""The file of planned units."""

from pathlib import Path

import pytest

from preprocess.reading.plan_file import read_planned, write_plan
from preprocess.reading.units import Range, Unit
from preprocess.work import groups


def unit(index: int) -> Unit:
    name = f"é\udcff {'x' * index}.txt"
    ranges = tuple(Range(name, f"/a/{name}", n, n + 5, 10, "v") for n in range(index))
    return Unit(index, 2, ranges)


def test_every_unit_is_read_back(tmp_path: Path) -> None:
    units = [unit(index) for index in range(4)]
    for work in (str(tmp_path), "memory://plan"):
        write_plan(work, units)
        assert [read_planned(work, index) for index in (3, 0, 2, 1)] == [
            units[index] for index in (3, 0, 2, 1)
        ]


def test_a_worker_reads_only_its_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plan(str(tmp_path), [unit(index) for index in (0, 1)] + [unit(2)])
    read, sizes = groups.read_bytes, []

    def counted(path: str, start: int, end: int) -> bytes:
        data = read(path, start, end)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(groups, "read_bytes", counted)
    assert read_planned(str(tmp_path), 0) == unit(0)
    assert sum(sizes) < 100 < (tmp_path / "plan.bin").stat().st_size
