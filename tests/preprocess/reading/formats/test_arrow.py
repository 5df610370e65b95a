"""Arrow files and streams and Feather files: columns, batches, compression and damage."""

import gzip
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.reading.byte_range import DamagedFile, UnreadableFile
from preprocess.reading.options import Limits

pyarrow = pytest.importorskip("pyarrow")
feather = pytest.importorskip("pyarrow.feather")
Read = Callable[..., Any]  # fixture of conftest.py
COLUMNS = {
    "id": list(range(30)),
    "text": ["é one", None, *(f"text {i}" for i in range(28))],
    "parts": [["a", "b"], *[["c"]] * 29],
    "meta": [{"title": f"T{i}"} for i in range(30)],
}
KINDS = ("file", "stream", "compressed file", "feather 1", "feather 2")


def arrow(kind: str, columns: dict[str, Any] = COLUMNS, rows: int = 10) -> bytes:
    table = pyarrow.table(columns)
    sink = io.BytesIO()
    if kind == "feather 2":
        feather.write_feather(table, sink)
        return sink.getvalue()
    if kind == "feather 1":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            feather.write_feather(table.select(["id", "text"]), sink, version=1)
        return sink.getvalue()
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd" if "compressed" in kind else None)
    new = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
    with new(sink, table.schema, options=options) as writer:
        writer.write_table(table, rows)
    return sink.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.dat"])
def test_any_arrow_file_is_read_by_rows(
    tmp_path: Path, read_file: Read, kind: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(arrow(kind))
    for sizes in ((1 << 30, 1 << 20), (200, 1)):
        block, places = read_file(path, *sizes, id_field="id")
        assert block.documents == [text for text in COLUMNS["text"] if text is not None]
        assert places == [f"{name}:row {i} id={i}" for i in range(30) if i != 1]
        assert [(one.reason, one.where) for one in block.rejected] == [
            ("missing_text_field", f"{name}:row 1 id=1")
        ]


def test_a_packed_file_is_read_in_memory(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.arrow.gz"
    path.write_bytes(gzip.compress(arrow("file")))
    block, _ = read_file(path, template="{meta.title}: {parts[]}")
    assert block.documents[:2] == ["T0: a\nb", "T1: c"]


@pytest.mark.parametrize("kind", KINDS)
def test_oversized_rows_are_rejected(tmp_path: Path, read_file: Read, kind: str) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(arrow(kind, {"id": [1, 2], "text": ["x" * 2000, "y"]}))
    block, _ = read_file(path, limits=Limits(1024))
    assert (block.documents, [one.reason for one in block.rejected]) == (["y"], ["oversized"])


def test_a_missing_column_is_told_with_those_that_exist(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(arrow("stream"))
    with pytest.raises(
        UnreadableFile, match=r"no column 'body'; .* to one of 'id', 'text', 'parts'"
    ):
        read_file(path, text_field="body")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_early_is_damaged(tmp_path: Path, read_file: Read, kind: str) -> None:
    data = arrow(kind)
    for end in (20, len(data) // 2, len(data) - 30):
        path = tmp_path / "a.arrow"
        path.write_bytes(data[:end])
        if kind == "stream" and end > 20:
            # Its end mark is optional.
            block, _ = read_file(path, limits=Limits(skip_damaged=True))
            assert len(block.documents) + len(block.rejected) > 1
            continue
        with pytest.raises(DamagedFile, match=r"a\.arrow: cannot be read as Arrow \("):
            read_file(path)
        block, _ = read_file(path, limits=Limits(skip_damaged=True))
        assert [one.reason for one in block.rejected][-1] == "damaged_file"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_the_middle_is_told_or_loses_no_row(
    tmp_path: Path, read_file: Read, kind: str
) -> None:
    data = bytearray(arrow(kind))
    data[len(data) // 3 : len(data) // 2] = b"\xff" * (len(data) // 2 - len(data) // 3)
    path = tmp_path / "a.arrow"
    path.write_bytes(data)
    block, _ = read_file(path, limits=Limits(skip_damaged=True))
    told = any(one.reason == "damaged_file" for one in block.rejected)
    assert told or len(block.documents) + len(block.rejected) == 30
