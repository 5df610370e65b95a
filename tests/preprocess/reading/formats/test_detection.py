"""Detection of formats by name and content."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.config import Source
from preprocess.reading.formats.detection import (
    find_shape,
    format_by_name,
    is_never_cut,
    is_never_empty,
)
from preprocess.reading.listing import list_source

Read = Callable[..., Any]  # fixture of conftest.py
OBJECT = json.dumps({"text": "one"}).encode()


def test_names_tell_jsonl_and_python_sources_also_if_compressed() -> None:
    names = {
        "a.txt": None,
        "a": None,
        "a.py": None,
        "a.json": None,
        "a.JSONL": "jsonl",
        "a.ndjson.gz": "jsonl",
        ".jsonl.zst": "jsonl",
    }
    assert {name: format_by_name(Source(path="x"), name) for name in names} == names
    assert format_by_name(Source(path="installed-docs:"), "stdlib/abc.py") == "docstrings"
    (file,) = [f for f in list_source(Source(path="installed-docs:")) if f.name == "stdlib/this.py"]
    assert is_never_cut(Source(path="installed-docs:"), file.name)


def test_the_settings_override_the_name() -> None:
    assert format_by_name(Source(path="x", format="text"), "a.jsonl") == "text"
    assert format_by_name(Source(path="x", format="jsonl"), "a.txt") == "jsonl"


@pytest.mark.parametrize(
    ("source", "uncut"),
    [
        ({}, ["a.txt.gz", "a.tar", "a.TGZ"]),
        ({"document": "file"}, ["a.txt.gz", "a.tar", "a.TGZ", "a.txt"]),
        ({"encoding": "utf-16"}, ["a.txt.gz", "a.tar", "a.TGZ", "a.txt", "a.jsonl"]),
        ({"encoding": "utf-16", "format": "parquet"}, ["a.txt.gz", "a.tar", "a.TGZ"]),
        *(
            ({"format": kind}, ["a.txt.gz", "a.tar", "a.TGZ", "a.txt", "a.jsonl"])
            for kind in ("docstrings", "json", "csv", "arrow", "html", "warc", "wiki", "conllu")
        ),
        ({"encoding": "gb18030"}, ["a.txt.gz", "a.tar", "a.TGZ"]),
    ],
)
def test_files_that_must_be_read_from_their_start_are_never_cut(
    source: dict[str, Any], uncut: list[str]
) -> None:
    names = ["a.txt.gz", "a.tar", "a.TGZ", "a.zip", "a.txt", "a.jsonl"]
    assert [name for name in names if is_never_cut(Source(path="x", **source), name)] == uncut


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OBJECT, "lines"),
        (b"\xef\xbb\xbf\r\n  \n " + OBJECT + b"\r\nno json", "lines"),
        (b'{"text": 1}\n' + OBJECT, "lines"),
        (b'{"other": "x"}', "lines"),
        (b'{"other": "x"}\nprose', None),
        (b"{not json}\n", None),
        (b'{"text": "cut', None),
        (b'{"a":' * 100_000, None),
        (b'[{"text": "one"}]', "document"),
        (b"text\n" + OBJECT, None),
        (b"\n \n", None),
        (b'{"text": "' + b"x" * 988 + b'"}', "lines"),
        (b'{"text": "' + b"x" * 989 + b'"}', "lines"),
        (b'{"text": "' + b"x" * 989 + b'"}\n', "lines"),
        (b"\n" * 1001 + OBJECT, None),
        (b"", None),
    ],
)
def test_jsonl_is_detected_from_the_first_non_blank_line(text: bytes, found: str | None) -> None:
    for size in (4, 5, 1 << 20):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert find_shape(chunks, "utf-8", "text", 1000) == found


def test_detection_reads_no_more_than_necessary() -> None:
    chunks = iter([b" \n", b"plain", b"more"])
    assert find_shape(chunks, "utf-8", "text", 1000) is None
    assert next(chunks) == b"more"
    chunks = iter([b'{"text": "', *[b"x" * 100] * 100])
    assert find_shape(chunks, "utf-8", "text", 1000) == "lines"
    assert len(list(chunks)) == 100 - 51
    blank = iter([b" " * 100] * 50)
    assert find_shape(blank, "utf-8", "text", 1000) is None
    assert len(list(blank)) == 39
    array = iter([b'["a", ', *[b'"b", '] * 5000])
    assert find_shape(array, "utf-8", "text", 1 << 20) == "document"
    assert len(list(array)) == 5000 - 819


def test_all_ranges_of_a_file_are_read_in_one_format(tmp_path: Path, read_file: Read) -> None:
    lines = [json.dumps({"text": f"文 {i}" * 300}, ensure_ascii=False) for i in range(20)]
    for encoding in ("utf-8", "gb18030", "utf-16"):
        path = tmp_path / "a.json"
        path.write_bytes(("\n \n" + "\n".join(lines)).encode(encoding))
        for document in ("line", "paragraph"):
            block, _ = read_file(path, 500, 300, encoding=encoding, document=document)
            assert block.documents == [f"文 {i}" * 300 for i in range(20)]


def test_a_file_named_jsonl_is_read_as_jsonl_whatever_its_content(
    tmp_path: Path, read_file: Read
) -> None:
    (tmp_path / "a.jsonl").write_text("no json\n" + OBJECT.decode())
    block, _ = read_file(tmp_path / "a.jsonl")
    assert (block.documents, [one.reason for one in block.rejected]) == (["one"], ["invalid_json"])


@pytest.mark.parametrize(
    ("source", "name", "found"),
    [
        *(({}, name, True) for name in ("a.GZ", "a.txt.zst", "a.parquet", "a.tar", "a.zip")),
        *(({}, name, False) for name in ("a.txt", "a", "a.jsonl", "a.csv", "a.json")),
        ({"format": "parquet"}, "a", True),
    ],
)
def test_names_tell_which_files_are_never_empty(
    source: dict[str, Any], name: str, found: bool
) -> None:
    assert is_never_empty(Source(path="x", **source), name) is found
