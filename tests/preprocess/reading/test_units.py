"""The plan of work units: cutting, packing and order."""

import json

import pytest

from preprocess.config import Source
from preprocess.files.search.found import FileInfo
from preprocess.reading.units import Range, Unit, plan_units

MIB = 1024**2


def info(name: str, size: int) -> FileInfo:
    return FileInfo(name, f"/data/{name}", size, "v1")


def spans(units: list[Unit]) -> list[list[tuple[str, int, int]]]:
    return [[(r.name, r.start, r.end) for r in unit.ranges] for unit in units]


def test_a_large_file_is_cut_and_small_files_are_packed_in_order() -> None:
    files = [info("a", 25), info("b", 3), info("c", 3), info("d", 0), info("e", 9)]
    units = plan_units([Source(path="x")], [files], 10)
    assert spans(units) == [
        [("a", 0, 10)],
        [("a", 10, 20)],
        [("a", 20, 25), ("b", 0, 3)],
        [("c", 0, 3)],
        [("e", 0, 9)],
    ]
    assert [unit.index for unit in units] == [0, 1, 2, 3, 4]
    assert units[0].ranges[0] == Range("a", "/data/a", 0, 10, 25, "v1")


def test_compressed_files_and_python_sources_are_never_cut() -> None:
    files = [info("a.gz", 25), info("b.py", 25), info("c.txt.XZ", 4)]
    source = Source(path="x", format="docstrings")
    for sources in ([source], [Source(path="installed-docs:")]):
        assert spans(plan_units(sources, [files], 10)) == [
            [("a.gz", 0, 25)],
            [("b.py", 0, 25)],
            [("c.txt.XZ", 0, 4)],
        ]


def test_an_empty_file_is_read_if_its_name_says_that_it_is_never_empty() -> None:
    files = [info("a.gz", 0), info("b.txt", 0), info("c.txt", 10), info("d.parquet", 0)]
    assert spans(plan_units([Source(path="x")], [files], 10)) == [
        [("a.gz", 0, 0), ("c.txt", 0, 10), ("d.parquet", 0, 0)]
    ]
    assert spans(plan_units([Source(path="x")], [files[:2]], 10)) == [[("a.gz", 0, 0)]]


def test_a_unit_has_files_of_one_source_only() -> None:
    sources = [Source(path="x"), Source(path="y", name="other")]
    units = plan_units(sources, [[info("a", 1)], [info("b", 1), info("c", 1)]], 10)
    assert [unit.source for unit in units] == [0, 1]
    assert spans(units) == [[("a", 0, 1)], [("b", 0, 1), ("c", 0, 1)]]


def test_the_default_size_grows_with_the_input() -> None:
    small = plan_units([Source(path="x")], [[info("a", 2048 * MIB - 1)]], None)
    large = plan_units([Source(path="x")], [[info("a", 2048 * MIB)]], None)
    assert small[0].ranges[0].end == 8 * MIB
    assert large[0].ranges[0].end == 32 * MIB


@pytest.mark.parametrize(("size", "units"), [(1, 1), (8, 1), (9, 4), (33, 8), (100, 16), (400, 52)])
def test_two_or_four_workers_have_equal_work(size: int, units: int) -> None:
    planned = plan_units([Source(path="x")], [[info("a", size * MIB)]], None)
    sizes = [sum(r.end - r.start for r in unit.ranges) for unit in planned]
    assert len(sizes) == units
    assert sum(sizes) == size * MIB
    assert max(sizes) <= 8 * MIB
    assert max(sizes) - min(sizes) <= units


def test_a_unit_is_restored_from_json() -> None:
    for unit in plan_units([Source(path="x")], [[info("a", 25), info("b", 3)]], 10):
        assert Unit.from_dict(json.loads(json.dumps(unit.to_dict()))) == unit


def test_a_million_small_files_make_a_small_plan() -> None:
    files = [info(f"{i:06d}", 5000) for i in range(20_000)]
    units = plan_units([Source(path="x")], [files], None)
    # Twelve full units, and a few files left over at the breaks between files.
    assert len(units) == 13
    assert [name for unit in spans(units) for name, *_ in unit] == [file.name for file in files]
    # With slots, a range takes a third less memory than with a dictionary.
    assert not hasattr(units[0].ranges[0], "__dict__")
