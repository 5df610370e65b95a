"""Readers: formats, encodings, line ends, compression, and that nothing is lost in silence."""

import bz2
import gzip
import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from preprocess.config import CleaningConfig, Source
from preprocess.documents import Block, read_unit
from preprocess.normalize import Cleaner
from preprocess.raw_file import DamagedFile
from preprocess.sources import list_source, resolve_format
from preprocess.storage import StorageError
from preprocess.units import plan_units

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def read(
    path: Path,
    unit_bytes: int = 1 << 30,
    block_bytes: int = 4096,
    drop: bool = False,
    **source: Any,
) -> Block:
    """All of a file as one block; checks the digest of every range and the bytes taken."""
    given = Source(path=str(path), **source)
    cleaning = CleaningConfig(invalid_utf8="drop" if drop else "replace")
    raw = path.read_bytes()
    whole = Block([], [], 0, 0)
    for unit in plan_units([given], [list_source(given)], unit_bytes):
        reader = read_unit(unit, given, cleaning, block_bytes)
        for block in reader:
            whole = Block(
                whole.documents + block.documents,
                whole.rejected + block.rejected,
                whole.replaced + block.replaced,
                whole.raw_bytes + block.raw_bytes,
            )
        assert reader.digests == [
            xxhash.xxh128_hexdigest(raw[r.start : r.end]) for r in unit.ranges
        ]
    assert whole.raw_bytes == len(raw)
    return whole


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_the_format_is_told_by_the_name_without_its_compression() -> None:
    source = Source(path="x")
    names = {
        "a.txt": "text",
        "a": "text",
        "a.py": "text",
        "a.JSONL": "jsonl",
        "a.ndjson.gz": "jsonl",
    }
    assert {name: resolve_format(source, name) for name in names} == names
    assert resolve_format(Source(path="x", format="jsonl"), "a.txt") == "jsonl"
    assert resolve_format(Source(path="installed-docs:"), "stdlib/abc.py") == "docstrings"


def test_lines_end_at_lf_and_crlf_and_a_lone_cr_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\r\ntwo\n\n a\rb \r\r\nlast")
    assert read(path).documents == ["one", "two", "", " a\rb \r", "last"]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_yields_nothing(tmp_path: Path, data: bytes) -> None:
    block = read(write(tmp_path, "a.txt", data))
    assert (block.documents, block.rejected) == ([], [])


def test_a_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "\ufeffone\n\ufefftwo\n")
    assert read(path).documents == ["one", "\ufefftwo"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_wide_encoding_is_one_rejection(
    tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path, "a.txt", pack("\ufeffone\ntwo\n".encode(encoding)))
    for unit_bytes in (4, 1 << 30):
        block = read(path, unit_bytes)
        assert block.documents == []
        assert [(r.reason, r.where) for r in block.rejected] == [("utf16_or_utf32", "a.txt:0")]


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"a\xffb\xc3\n\xef\xbf\xbd kept\nc\n")
    block = read(path)
    assert block.documents == ["a\ufffdb\ufffd", "\ufffd kept", "c"]
    assert (block.replaced, block.rejected) == (2, [])


def test_or_the_document_is_dropped_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", b"\xef\xbb\xbfgood\nb\x1b\xff\xe2\x80\xae\r\nend\n")
    block = read(path, drop=True)
    assert block.documents == ["good", "end"]
    (rejected,) = block.rejected
    assert (rejected.reason, rejected.where) == ("invalid_utf8", "a.txt:8")
    assert rejected.excerpt == r"b\x1b\xff\u202e\r"


def test_an_excerpt_is_bounded(tmp_path: Path) -> None:
    (rejected,) = read(write(tmp_path, "a.jsonl", "\x01" * 5000)).rejected
    assert len(rejected.excerpt) == 1000


def test_jsonl_holds_an_object_a_line(tmp_path: Path) -> None:
    records = [
        '{"text": "a\\nb"}',
        "",
        "  ",
        '{"text": "\\ud800x \\ud83d\\ude00"}\r',
        '{"text": ""}',
    ]
    block = read(write(tmp_path, "a.jsonl", "\n".join(records)))
    assert block.documents == ["a\nb", "\ufffdx 😀", ""]
    assert (block.replaced, block.rejected) == (1, [])


def test_another_key_can_hold_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", json.dumps({"body": "here"}))
    assert read(path, text_field="body").documents == ["here"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{broken", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"n": ' + b"1" * 5000 + b"}", "invalid_json"),
        (b'{"other": "x"}', "missing_text_field"),
        (b'"text"', "missing_text_field"),
        (b'{"text": null}', "text_not_a_string"),
        (b'{"text": "\xff"}', "invalid_utf8"),
    ],
)
def test_what_is_no_record_is_rejected_with_its_place(
    tmp_path: Path, record: bytes, reason: str
) -> None:
    path = write(tmp_path, "a.jsonl", b'{"text": "a"}\n' + record + b'\n{"text": "b"}\n')
    block = read(path, drop=True)
    assert block.documents == ["a", "b"]
    assert [(r.reason, r.where) for r in block.rejected] == [(reason, "a.jsonl:14")]


TEXT = "".join(f"line {i} é\n" for i in range(3000))


@pytest.mark.parametrize("kind", PACKERS)
def test_compressed_files_are_read_by_content_in_all_their_members(
    tmp_path: Path, kind: str
) -> None:
    pack = PACKERS[kind]
    data = TEXT.encode()
    packed = pack(data[:7000]) + pack(b"") + pack(data[7000:]) + b"\0" * 8
    expected = TEXT.split("\n")[:-1]
    for name in (f"a.txt.{kind}", "misnamed.txt"):
        for block_bytes in (16, 1 << 20):
            path = write(tmp_path, name, packed)
            assert read(path, 1024, block_bytes).documents == expected


def test_a_plain_file_under_a_compressed_name_is_plain(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.txt.gz", TEXT), 100).documents == TEXT.split("\n")[:-1]
    assert read(write(tmp_path, "a.bz2", "BZh9 is no magic\n")).documents == ["BZh9 is no magic"]
    assert read(write(tmp_path, "b.gz", b"")).documents == []


@pytest.mark.parametrize("kind", PACKERS)
def test_a_damaged_compressed_file_stops_with_its_name_and_advice(
    tmp_path: Path, kind: str
) -> None:
    packed = PACKERS[kind](random.Random(0).randbytes(2000) + TEXT.encode())
    middle = len(packed) // 2
    damaged = {
        "cut off": packed[:middle],
        "damaged compressed file": packed[:middle] + bytes(8) + packed[middle + 8 :],
        "damaged": packed + b"garbage behind the end",
    }
    for message, data in damaged.items():
        path = write(tmp_path, "bad", data)
        with pytest.raises(DamagedFile, match=f"bad: .*{message}.*leave it out of the input"):
            read(path)


@pytest.mark.parametrize(
    ("magic", "kind"), [(b"\x28\xb5\x2f\xfd", "Zstandard"), (b"PK\x03\x04", "zip")]
)
def test_other_compression_is_refused_by_name(tmp_path: Path, magic: bytes, kind: str) -> None:
    path = write(tmp_path, "a.txt", magic + b"...")
    with pytest.raises(DamagedFile, match=f"a.txt: this is a {kind} file; unpack it"):
        read(path)


def test_a_file_that_shrank_after_planning_stops_the_work(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\ntwo\n")
    source = Source(path=str(path))
    (unit,) = plan_units([source], [list_source(source)], None)
    path.write_text("one\n")
    with pytest.raises(DamagedFile, match="ends after 4 bytes, was 8 when the work was planned"):
        list(read_unit(unit, source, CleaningConfig()))


def test_a_file_that_grew_is_read_as_planned(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\ntw")
    source = Source(path=str(path))
    plans = [plan_units([source], [list_source(source)], size) for size in (5, 100)]
    path.write_text("one\ntwo three\n")
    for units in plans:
        blocks = [block for unit in units for block in read_unit(unit, source, CleaningConfig())]
        assert [text for block in blocks for text in block.documents] == ["one", "tw"]


def test_docstrings_are_read_in_the_encoding_their_source_declares(tmp_path: Path) -> None:
    text = '# coding: latin-1\n"""Every café in the town was closed that day."""\n'
    path = write(tmp_path, "a.py", text.encode("latin-1"))
    documents = ["Every café in the town was closed that day."]
    assert read(path, 4, format="docstrings").documents == documents
    (rejected,) = read(write(tmp_path, "b.py", b"# \xff\n"), format="docstrings").rejected
    assert rejected.reason == "invalid_utf8"
    assert read(write(tmp_path, "c.py", b"def"), format="docstrings").documents == []


def test_a_file_found_twice_is_listed_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        write(tmp_path, name, "x")
    paths = (f"{tmp_path}/b.*", f"{tmp_path}/../{tmp_path.name}/a.txt", f"{tmp_path}/*.txt")
    files = list_source(Source(path=paths))
    assert [file.name for file in files] == ["a.txt", "b.txt"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("x/1", "y/1", "z"):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder, "a.txt", folder)
    paths = tuple(f"{tmp_path}/{folder}/*.txt" for folder in ("y/1", "x/1", "z"))
    assert [file.name for file in list_source(Source(path=paths))] == [
        "x/1/a.txt",
        "y/1/a.txt",
        "z/a.txt",
    ]


def test_nothing_found_is_told_by_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no file matches; check the path"):
        list_source(Source(path=f"{tmp_path}/*.txt"))


def test_installed_docs_are_a_source() -> None:
    source = Source(path="installed-docs:")
    file = next(file for file in list_source(source) if file.name == "stdlib/this.py")
    assert resolve_format(source, file.name) == "docstrings"


DAMAGED = {"a.txt.zst", "corrupt-middle.txt.gz", "multi-frame.txt.zst", "truncated.txt.gz"}


def test_no_nasty_file_crashes_reading_or_cleaning() -> None:
    root = os.environ.get("BILOOM_TEST_DATA")
    if not root:
        pytest.skip("BILOOM_TEST_DATA names no folder with nasty/")
    damaged = set()
    for path in sorted(Path(root, "nasty").rglob("*")):
        if not path.is_file():
            continue
        try:
            blocks = [read(path, size, 1 << 16) for size in (1 << 14, 1 << 30)]
        except DamagedFile:
            damaged.add(path.name)
            continue
        assert blocks[0] == blocks[1]
        assert (
            blocks[0].documents
            or blocks[0].rejected
            or not path.stat().st_size
            or "empty" in path.name
        )
        cleaned = Cleaner(CleaningConfig()).clean_batch(blocks[0].documents)
        "".join(cleaned).encode()
    assert damaged == DAMAGED
