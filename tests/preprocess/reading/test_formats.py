"""Detection of formats by name and content."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.config import Source
from preprocess.reading.formats import find_format, holds_json, is_never_cut
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
    assert {name: find_format(Source(path="x"), name, b"") for name in names} == names
    assert find_format(Source(path="installed-docs:"), "stdlib/abc.py", b"") == "docstrings"
    (file,) = [f for f in list_source(Source(path="installed-docs:")) if f.name == "stdlib/this.py"]
    assert is_never_cut(Source(path="installed-docs:"), file.name)


def test_a_magic_number_overrides_the_name_and_the_settings_override_both() -> None:
    assert find_format(Source(path="x"), "a.jsonl", b"PAR1") == "parquet"
    assert find_format(Source(path="x", format="text"), "a.jsonl", b"PAR1") == "text"
    assert find_format(Source(path="x", format="jsonl"), "a.txt", b"") == "jsonl"


@pytest.mark.parametrize(
    ("source", "uncut"),
    [
        ({}, ["a.txt.gz", "a.zip"]),
        ({"document": "file"}, ["a.txt.gz", "a.zip", "a.txt"]),
        ({"encoding": "utf-16"}, ["a.txt.gz", "a.zip", "a.txt", "a.jsonl"]),
        ({"encoding": "utf-16", "format": "parquet"}, ["a.txt.gz", "a.zip"]),
        ({"format": "docstrings"}, ["a.txt.gz", "a.zip", "a.txt", "a.jsonl"]),
        ({"encoding": "gb18030"}, ["a.txt.gz", "a.zip"]),
    ],
)
def test_files_that_must_be_read_from_their_start_are_never_cut(
    source: dict[str, Any], uncut: list[str]
) -> None:
    names = ["a.txt.gz", "a.zip", "a.txt", "a.jsonl"]
    assert [name for name in names if is_never_cut(Source(path="x", **source), name)] == uncut


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OBJECT, True),
        (b"\xef\xbb\xbf\r\n  \n " + OBJECT + b"\r\nno json", True),
        (b'{"text": 1}\n' + OBJECT, False),
        (b'{"other": "x"}', False),
        (b"{not json}\n", False),
        (b'{"text": "cut', False),
        (b'{"a":' * 100_000, False),
        (b'[{"text": "one"}]', False),
        (b"text\n" + OBJECT, False),
        (b"\n \n", False),
        (b'{"text": "' + b"x" * 988 + b'"}', True),
        (b'{"text": "' + b"x" * 989 + b'"}', False),
        (b'{"text": "' + b"x" * 989 + b'"}\n', False),
        (b"\n" * 1000 + OBJECT, False),
        (b"", False),
    ],
)
def test_jsonl_is_detected_from_the_first_non_blank_line(text: bytes, found: bool) -> None:
    for size in (4, 5, 1 << 20):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        assert holds_json(chunks, "utf-8", "text", 1000) is found


def test_detection_reads_no_more_than_necessary() -> None:
    chunks = iter([b" \n", b"plain", b"more"])
    assert not holds_json(chunks, "utf-8", "text", 1000)
    assert next(chunks) == b"more"
    chunks = iter([b'{"text": "', *[b"x" * 100] * 50])
    assert not holds_json(chunks, "utf-8", "text", 1000)
    assert len(list(chunks)) == 40
    blank = iter([b" " * 100] * 50)
    assert not holds_json(blank, "utf-8", "text", 1000)
    assert len(list(blank)) == 39


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


def test_a_json_file_that_is_not_json_lines_is_text(tmp_path: Path, read_file: Read) -> None:
    (tmp_path / "a.json").write_text('{\n"text": "one"\n}')
    assert read_file(tmp_path / "a.json")[0].documents == ["{", '"text": "one"', "}"]
