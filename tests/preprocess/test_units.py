"""The plan of work units: what is cut, what is packed, and that no document is lost or doubled."""

import json
from pathlib import Path
from typing import Literal

import pytest
import xxhash
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from preprocess.config import CleaningConfig, Source
from preprocess.documents import read_unit
from preprocess.sources import list_source
from preprocess.storage import FileInfo
from preprocess.units import Range, Unit, plan_units

MIB = 1024**2
# Hypothesis takes byte strings from the code under test, so it does find these.
MAGIC = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")


def info(name: str, size: int) -> FileInfo:
    return FileInfo(name, f"/data/{name}", size, "v1")


def spans(units: list[Unit]) -> list[list[tuple[str, int, int]]]:
    return [[(r.name, r.start, r.end) for r in unit.ranges] for unit in units]


def test_a_big_file_is_cut_and_small_files_are_packed_in_order() -> None:
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


def test_a_unit_holds_files_of_one_source_only() -> None:
    sources = [Source(path="x"), Source(path="y", name="other")]
    units = plan_units(sources, [[info("a", 1)], [info("b", 1), info("c", 1)]], 10)
    assert [unit.source for unit in units] == [0, 1]
    assert spans(units) == [[("a", 0, 1)], [("b", 0, 1), ("c", 0, 1)]]


def test_the_default_size_grows_with_the_input() -> None:
    small = plan_units([Source(path="x")], [[info("a", 256 * MIB - 1)]], None)
    large = plan_units([Source(path="x")], [[info("a", 256 * MIB)]], None)
    assert small[0].ranges[0].end == 8 * MIB
    assert large[0].ranges[0].end == 32 * MIB


def test_a_unit_travels_as_json() -> None:
    for unit in plan_units([Source(path="x")], [[info("a", 25), info("b", 3)]], 10):
        assert Unit.from_dict(json.loads(json.dumps(unit.to_dict()))) == unit


LINES = st.lists(st.one_of(st.binary(max_size=6), st.text(max_size=6).map(str.encode)), max_size=12)


@settings(deadline=None, max_examples=300)
@example([b"\xfe\xff", b"a"], [b"\n"] * 12, b"", 1, 1, "replace")
@given(
    lines=LINES,
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b""]), min_size=12, max_size=12),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    unit_bytes=st.integers(1, 40),
    block_bytes=st.integers(1, 40),
    policy=st.sampled_from(["replace", "drop"]),
)
def test_documents_of_all_units_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    ends: list[bytes],
    bom: bytes,
    unit_bytes: int,
    block_bytes: int,
    policy: Literal["replace", "drop"],
) -> None:
    data = bom + b"".join(map(bytes.__add__, lines, ends))
    assume(not data.startswith(MAGIC))
    path = tmp_path_factory.mktemp("units") / "corpus.txt"
    path.write_bytes(data)
    source, cleaning = Source(path=str(path)), CleaningConfig(invalid_utf8=policy)
    files = [list_source(source)]

    def read(size: int, block: int) -> tuple[list[str], list[object], int]:
        documents: list[str] = []
        rejected: list[object] = []
        replaced = 0
        for unit in plan_units([source], files, size):
            reader = read_unit(unit, source, cleaning, block)
            raw = 0
            for one in reader:
                documents += one.documents
                rejected += one.rejected
                replaced += one.replaced
                raw += one.raw_bytes
            assert raw == sum(r.end - r.start for r in unit.ranges)
            assert reader.digests == [
                xxhash.xxh128_hexdigest(data[r.start : r.end]) for r in unit.ranges
            ]
        return documents, rejected, replaced

    assert read(unit_bytes, block_bytes) == read(len(data) + 1, len(data) + 1)
    if not data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) and policy == "replace":
        text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
        expected = text.replace("\r\n", "\n").split("\n")
        assert read(unit_bytes, block_bytes)[0] == (expected if expected[-1] else expected[:-1])


def test_lines_of_jsonl_are_cut_like_lines_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"document\n{i}"}) + "\n" for i in range(40)))
    source = Source(path=str(path))
    units = plan_units([source], [list_source(source)], 17)
    texts = [
        text
        for unit in units
        for block in read_unit(unit, source, CleaningConfig())
        for text in block.documents
    ]
    assert len(units) > 40
    assert texts == [f"document\n{i}" for i in range(40)]
