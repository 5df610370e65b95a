"""Parquet: columns, row groups and ranges, and invalid files."""

import gzip
import io
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xxhash

from preprocess.config import Source
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.storage import write_bytes
from preprocess.reading import documents
from preprocess.reading.byte_range import HEAD_BYTES, DamagedFile, UnreadableFile
from preprocess.reading.changed_inputs import changed, keep_checked, ranges_read, write_inputs
from preprocess.reading.formats.parquet import needed_leaves, read_parquet
from preprocess.reading.listing import list_source
from preprocess.reading.options import ReadOptions
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.stream import Stream, read_at
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
Read = Callable[..., Any]  # fixture of conftest.py


def write(path: Path, columns: dict[str, Any], rows: int = 3) -> Path:
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows)
    return path


@pytest.mark.parametrize(
    "kind", ["string", "large_string", "string_view", "binary", "large_binary", "dictionary"]
)
def test_the_column_may_have_any_type_of_text(tmp_path: Path, read_file: Read, kind: str) -> None:
    texts = ["é one\r\ntwo", None, "", "中文", "é one\r\ntwo", *map(str, range(20))]
    if kind == "dictionary":
        column = pyarrow.array(texts).dictionary_encode()
    else:
        values = [one if one is None else one.encode() for one in texts]
        column = pyarrow.array(values if "binary" in kind else texts, getattr(pyarrow, kind)())
    path = write(tmp_path / "a.parquet", {"other": [1] * 25, "text": column})
    for sizes in ((1 << 30, 1 << 20), (50, 1)):
        block, places = read_file(path, *sizes)
        assert block.documents == [text for text in texts if text is not None]
        assert places == [f"a.parquet:row {i}" for i in range(25) if i != 1]
        (rejected,) = block.rejected
        assert (rejected.reason, rejected.where) == ("missing_text_field", "a.parquet:row 1")


def test_locations_of_rows_have_their_ids(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path / "a", {"body": ["one", None, "two"], "n": [7, 8, None]})
    block, places = read_file(path, text_field="body", id_field="n")
    assert places == ["a:row 0 id=7", "a:row 2"]
    assert block.rejected[0].where == "a:row 1 id=8"


def test_invalid_bytes_and_oversized_rows_are_rejected(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path / "a", {"text": [b"a\xffb", b"x" * 2000, b"y" * 1024]})
    limits = Limits(1024)
    block, _ = read_file(path, limits=limits)
    assert (block.documents, block.replaced) == (["a\ufffdb", "y" * 1024], 1)
    block, places = read_file(path, drop=True, limits=limits)
    assert (block.documents, places) == (["y" * 1024], ["a:row 2"])
    found = [(one.reason, one.excerpt, one.where) for one in block.rejected]
    assert found == [
        ("invalid_bytes", r"a\xffb", "a:row 0"),
        ("oversized", "x" * 1000, "a:row 1"),
    ]


def test_blocks_have_the_requested_size(tmp_path: Path) -> None:
    texts = [f"{i:0100d}" for i in range(1000)]
    path = write(tmp_path / "a", {"text": texts}, 1000)
    source = Source(path=str(path))
    (unit,) = plan_units([source], [list_source(source)], None)
    blocks = list(read_unit(unit, source, CleaningConfig(), block_bytes=10_000))
    assert [text for block in blocks for text in block.documents] == texts
    assert max(len(block.documents) for block in blocks) <= 100


def test_a_remote_file_is_read(tmp_path: Path) -> None:
    data = write(tmp_path / "a", {"text": ["one", "two", "three", "four"]}).read_bytes()
    write_bytes("memory://parquet/a", data)
    source = Source(path="memory://parquet/a")
    units = plan_units([source], [list_source(source)], 60)
    blocks = [block for unit in units for block in read_unit(unit, source, CleaningConfig())]
    assert [text for b in blocks for text in b.documents] == ["one", "two", "three", "four"]


def test_an_empty_table_has_no_documents(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path / "a", {"text": pyarrow.array([], pyarrow.string())})
    assert read_file(path)[0].documents == []


def test_a_wrong_column_is_refused_with_the_existing_ones(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path / "a", {"body": ["x"], "n": [1]})
    with pytest.raises(
        UserError, match=r"a: no column 'text'; .* text_field to one of 'body', 'n'"
    ):
        read_file(path)
    with pytest.raises(UserError, match="no column 'id'; set the source's id_field to one of"):
        read_file(path, text_field="body", id_field="id")
    with pytest.raises(UserError, match="a: column 'n' holds int64, not text; set the source's"):
        read_file(path, text_field="n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-10], "a: cannot be read as Parquet"),
        (lambda data: data[:4] + bytes(40) + data[44:], "a: cannot be read as Parquet"),
        (lambda data: b"no magic", "a: cannot be read as Parquet"),
    ],
)
def test_an_invalid_file_raises_or_is_skipped(
    tmp_path: Path, read_file: Read, change: Callable[[bytes], bytes], message: str
) -> None:
    path = write(tmp_path / "a", {"text": ["one"] * 50})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedFile, match=message):
        read_file(path, format="parquet")
    block, _ = read_file(path, format="parquet", limits=Limits(skip_damaged=True))
    assert [one.reason for one in block.rejected] == ["damaged_file"]


def test_a_parquet_file_inside_a_compressed_one_is_read_in_memory(
    tmp_path: Path, read_file: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {number}" for number in range(100)]
    path = write(tmp_path / "a", {"text": texts}, rows=30)
    path.write_bytes(gzip.compress(path.read_bytes()))
    for sizes in ((1 << 30, 4096), (1024, 16)):
        block, places = read_file(path, *sizes)
        assert block.documents == texts
        assert places == [f"a:row {row}" for row in range(100)]
    monkeypatch.setattr(documents, "MOST_IN_MEMORY", 1000)
    message = "a: its format is read in memory if it is packed, up to 1,000 bytes; unpack it, leave"
    with pytest.raises(UnreadableFile, match=message):
        read_file(path)
    block, _ = read_file(path, limits=Limits(skip_damaged=True))
    assert [(one.reason, one.where) for one in block.rejected] == [("oversized", "a")]


def test_a_column_of_nulls_has_no_text(tmp_path: Path, read_file: Read) -> None:
    path = write(tmp_path / "a", {"text": pyarrow.nulls(4)}, 2)
    block, _ = read_file(path, 100)
    assert block.documents == []
    assert [one.reason for one in block.rejected] == ["missing_text_field"] * 4


def test_a_field_of_a_struct_is_read_and_a_column_of_that_name_comes_first(
    tmp_path: Path, read_file: Read
) -> None:
    rows = [{"b": {"text": "one"}, "id": 1}, None, {"b": None, "id": 3}, {"b": {"text": "two"}}]
    path = write(tmp_path / "a", {"a": pyarrow.array(rows)})
    block, places = read_file(path, 50, text_field="a.b.text", id_field="a.id")
    assert (block.documents, places) == (["one", "two"], ["a:row 0 id=1", "a:row 3"])
    assert [one.where for one in block.rejected] == ["a:row 1", "a:row 2 id=3"]
    path = write(tmp_path / "a", {"a": pyarrow.array(rows), "a.b.text": ["x", "y", "z", None]})
    assert read_file(path, text_field="a.b.text")[0].documents == ["x", "y", "z"]


NESTED = {
    "text": pyarrow.array([["a", "b"]]),
    "meta": pyarrow.array([{"title": "x", "tags": ["y"]}]),
    "rows": pyarrow.array([[{"text": "x"}]]),
    "n": pyarrow.array([1]),
}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "text",
            r"column 'text' holds a list in each row .*; set the source's text_field to 'text\[\]' to join",
        ),
        ("meta", r"column 'meta' holds struct.*text_field to one of its fields: 'meta.title', "),
        ("meta.none", r"no column 'meta.none'; .* text_field to one of 'meta.title', 'meta.tags'"),
        ("meta.tags", r"column 'meta.tags' holds a list in each row"),
        ("meta.title.x", r"no column 'meta.title.x'; set the source's text_field to one of 'text'"),
        (
            "rows.text",
            r"'rows' is a list, so 'rows.text' is in each of .* text_field to 'rows\[\].text'",
        ),
        ("n", r"column 'n' holds int64, not text; set the source's text_field to a column of st"),
    ],
)
def test_a_column_that_is_no_text_is_reported_or_counted_once(
    tmp_path: Path, read_file: Read, field: str, message: str
) -> None:
    columns = {name: pyarrow.concat_arrays([column] * 6) for name, column in NESTED.items()}
    path = write(tmp_path / "a", columns, 2)
    with pytest.raises(UnreadableFile, match=f"a: {message}.*, leave it out of the input, or cou"):
        read_file(path, text_field=field)
    limits = Limits(skip_damaged=True)
    block, _ = read_file(path, 100, text_field=field, limits=limits)
    assert [(one.reason, one.where) for one in block.rejected] == [("wrong_columns", "a")]


def test_two_columns_of_one_name_are_reported(tmp_path: Path, read_file: Read) -> None:
    names = ["text", "text", "n", "n", "body"]
    arrays = [pyarrow.array([one]) for one in names]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names), tmp_path / "a")
    for fields in ({}, {"text_field": "body", "id_field": "n"}):
        with pytest.raises(UnreadableFile, match=r"a: 2 columns are named '.*'; rename them, or"):
            read_file(tmp_path / "a", **fields)
    assert read_file(tmp_path / "a", text_field="body")[0].documents == ["body"]


@pytest.mark.parametrize("error", [TimeoutError("slow"), OSError(5, "Input/output error")])
def test_an_error_of_disk_or_network_is_not_an_invalid_file(tmp_path: Path, error: OSError) -> None:
    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

    data = write(tmp_path / "a", {"text": ["one"]}).read_bytes()
    file = File(data)
    stream = Stream("a", "s3://b/a", data, [data], partial(read_at, file), file=file)
    with pytest.raises(type(error), match=str(error.args[-1])):
        list(read_parquet(stream, ReadOptions(Source(path="x"))))


def test_a_missing_pyarrow_is_refused_with_the_extra_to_install(
    tmp_path: Path, read_file: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a", {"text": ["one"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=r"reading Parquet or Arrow needs pyarrow; pip install 'biloom\[b"
    ):
        read_file(path)


DEEP = {
    "messages": [
        [{"role": "u", "content": "é one"}, {"role": "a", "content": "two"}],
        [{"role": "u", "content": None}],
        None,
        [],
    ],
    "parts": [["a", None, "b"], ["c"], [], None],
    "meta": [{"dc.title": "T", "n": 7}, {"dc.title": None, "n": 8}, None, {"dc.title": "U"}],
    "attributes": pyarrow.array(
        [[("lang", "en"), ("x", "y")], [("x", "z")], None, []],
        pyarrow.map_(pyarrow.string(), pyarrow.string()),
    ),
    "unused": ["z" * 5000] * 4,
}


@pytest.mark.parametrize(
    ("source", "documents", "reasons"),
    [
        ({"text_field": "messages[].content"}, ["é one\ntwo"], ["missing_text_field"] * 3),
        ({"text_field": "parts[]"}, ["a\nb", "c"], ["missing_text_field"] * 2),
        ({"text_field": "meta.dc.title"}, ["T", "U"], ["missing_text_field"] * 2),
        ({"text_field": "attributes.lang"}, ["en"], ["missing_text_field"] * 3),
        (
            {"template": "{meta.n}: {parts[]}|{meta.dc.title}"},
            ["7: a\nb|T", "8: c|"],
            ["missing_text_field"] * 2,
        ),
    ],
)
def test_nested_columns_are_read_by_paths_and_templates(
    tmp_path: Path, read_file: Read, source: Any, documents: list[str], reasons: list[str]
) -> None:
    path = write(tmp_path / "a.parquet", DEEP, 2)
    for sizes in ((1 << 30, 1 << 20), (50, 1)):
        block, places = read_file(path, *sizes, id_field="meta.n", **source)
        assert block.documents == documents
        assert [one.reason for one in block.rejected] == reasons
        assert places[0] == "a.parquet:row 0 id=7"


def test_only_the_needed_columns_are_decoded() -> None:
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(DEEP), sink)
    metadata = parquet.ParquetFile(sink).metadata
    for path, root, leaves in (
        ("messages[].content", "messages", ["messages.list.element.content"]),
        ("messages[].role", "messages", ["messages.list.element.role"]),
        ("parts[]", "parts", ["parts.list.element"]),
        ("meta.dc.title", "meta", ["meta.dc.title"]),
        ("attributes.lang", "attributes", ["attributes.key_value.key", "attributes.key_value.value"]),
        ("unused", "unused", ["unused"]),
    ):  # fmt: skip
        assert needed_leaves(metadata, [path], [root]) == leaves


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"text_field": "messages"}, r"holds a list .*a field of its items: 'messages\[\].role', "),
        ({"text_field": "messages.content"}, r"text_field to 'messages\[\].content', leave"),
        (
            {"text_field": "messages[].absent"},
            r"no column .*; set .* to one of 'messages\[\].role'",
        ),
        (
            {"text_field": "unused[]"},
            r"'unused' of 'unused\[\]' holds string, not a list; leave out",
        ),
        ({"text_field": "attributes"}, r"holds map<.*to one of its keys, as in 'attributes.KEY'"),
        (
            {"template": "{unused} {title}"},
            r"no column 'title'; set .* template to one of 'messages'",
        ),
        (
            {"template": "{unused} {meta}"},
            r"holds struct<.*template to one of its fields: 'meta.dc",
        ),
    ],
)
def test_a_wrong_path_is_told_with_the_right_ones(
    tmp_path: Path, read_file: Read, source: Any, message: str
) -> None:
    path = write(tmp_path / "a.parquet", DEEP)
    with pytest.raises(UnreadableFile, match=message):
        read_file(path, **source)


def test_invalid_bytes_in_nested_strings_are_counted(tmp_path: Path, read_file: Read) -> None:
    bad = pyarrow.array([b"a\xffb", b"c"]).cast(pyarrow.string(), safe=False)
    column = pyarrow.ListArray.from_arrays([0, 1, 2], bad)
    path = write(tmp_path / "a.parquet", {"parts": column})
    block, _ = read_file(path, text_field="parts[]")
    assert (block.documents, block.replaced) == (["a\ufffdb", "c"], 1)
    block, _ = read_file(path, drop=True, text_field="parts[]")
    assert (block.documents, block.rejected[0].reason) == (["c"], "invalid_bytes")


def wide(path: Path) -> Path:
    """Write a file whose texts are a small part of it, in four row groups."""
    generator = random.Random(3)
    columns = {
        "before": [generator.randbytes(20_000) for _ in range(40)],
        "text": [f"text {i}" for i in range(40)],
        "after": [generator.randbytes(20_000) for _ in range(40)],
    }
    parquet.write_table(
        pyarrow.table(columns),
        path,
        row_group_size=10,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    return path


def read_ranges(path: Path, unit_bytes: int = 1 << 30) -> list[dict[str, Any]]:
    source = Source(path=str(path))
    rows: list[dict[str, Any]] = []
    for unit in plan_units([source], [list_source(source)], unit_bytes):
        reader = read_unit(unit, source, CleaningConfig())
        assert sum(block.raw_bytes for block in reader) == sum(r.end - r.start for r in unit.ranges)
        rows += ranges_read(unit, reader.read_so_far())
    return rows


@pytest.mark.parametrize("unit_bytes", [1 << 30, 400_000])
def test_only_the_needed_columns_are_hashed(tmp_path: Path, unit_bytes: int) -> None:
    path = wide(tmp_path / "a.parquet")
    rows = read_ranges(path, unit_bytes)
    hashed = sum(end - start for row in rows for start, end in row["parts"])
    assert path.stat().st_size > 1_600_000
    assert hashed < 30_000
    # Texts and footer are among them.
    size = path.stat().st_size
    covered = {at for row in rows for start, end in row["parts"] for at in range(start, end)}
    raw = path.read_bytes()
    assert raw.index(b"text 25") in covered
    assert size - 1 in covered


def test_a_change_is_seen_in_the_needed_columns_only(tmp_path: Path) -> None:
    path = wide(tmp_path / "a.parquet")
    folder = str(tmp_path / "stage")
    write_inputs(folder, read_ranges(path))
    raw = path.read_bytes()
    for needle, is_changed in ((b"text 25", True), (raw[1000:1010], False)):
        at = raw.index(needle)
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        os.utime(path, ns=(1, 10**9 * (1 + is_changed)))
        names = changed(folder, list_source(Source(path=str(path))))
        keep_checked(folder)
        assert names == (["a.parquet"] if is_changed else [])
        path.write_bytes(raw)


def test_a_result_of_a_former_version_compares_the_whole_range(tmp_path: Path) -> None:
    path = wide(tmp_path / "a.parquet")
    folder = str(tmp_path / "stage")
    (row,) = read_ranges(path)
    raw = path.read_bytes()
    del row["parts"]
    write_inputs(folder, [row | {"xxh128": xxhash.xxh128_hexdigest(raw)}])
    os.utime(path, (1, 1))
    assert changed(folder, list_source(Source(path=str(path)))) == []
    keep_checked(folder)
    path.write_bytes(raw[:1000] + bytes([raw[1000] ^ 1]) + raw[1001:])
    os.utime(path, (2, 2))
    assert changed(folder, list_source(Source(path=str(path)))) == ["a.parquet"]


def test_reading_takes_few_bytes_besides_the_needed_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wide(tmp_path / "a.parquet")
    taken: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            taken.append(len(data))
            return data

    monkeypatch.setattr(storage, "open_read", lambda path, *_: Counted(path))
    read_ranges(path)
    # The head and the footer are read besides, and texts and footer twice.
    assert sum(taken) < 5 * HEAD_BYTES
