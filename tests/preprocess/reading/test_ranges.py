"""Cutting a file into ranges and blocks never loses, repeats or changes a document."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from preprocess.config import Source
from preprocess.reading.listing import list_source
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.records import Oversized, Records, whole_lines, whole_paragraphs
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

Read = Callable[..., Any]  # fixture of conftest.py
# Hypothesis takes byte strings from the code under test, so it does find these.
MAGIC = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1")
SKIPPABLE = b"\x2a\x4d\x18"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}
LINES = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.text(max_size=6).map(str.encode),
        st.text(" \t\u3000", max_size=3).map(str.encode),
    ),
    max_size=12,
)
ENDS = st.lists(st.sampled_from([b"\n", b"\r\n", b"\r", b""]), min_size=12, max_size=12)
WORDS = st.text("ab文é\u3000 \r{}", max_size=5)


@settings(deadline=None, max_examples=200)
@example([b"\xfe\xff", b"a"], [b"\n"] * 12, b"", 1, 1, "replace", "line", 1024)
@example([b"", b"x"], [b"\n"] * 12, b"\xef\xbb\xbf", 1, 1, "replace", "paragraph", 1024)
@given(
    lines=LINES,
    ends=ENDS,
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    unit_bytes=st.integers(1, 40),
    block_bytes=st.integers(1, 40),
    policy=st.sampled_from(["replace", "drop"]),
    document=st.sampled_from(["line", "paragraph", "file"]),
    limit=st.sampled_from([2, 7, 20, 1024]),
)
def test_ranges_together_have_the_documents_of_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    read_file: Read,
    lines: list[bytes],
    ends: list[bytes],
    bom: bytes,
    unit_bytes: int,
    block_bytes: int,
    policy: Literal["replace", "drop"],
    document: str,
    limit: int,
) -> None:
    data = bom + b"".join(map(bytes.__add__, lines, ends))
    assume(not data.startswith(MAGIC) and data[1:4] != SKIPPABLE)
    path = tmp_path_factory.mktemp("ranges") / "corpus.txt"
    path.write_bytes(data)

    def read(size: int, block: int) -> Any:
        # Random bytes may be no text, and no text in UTF-8.
        limits = Limits(max_document_bytes=limit, skip_damaged=True)
        given = {"document": document, "format": "text"}
        return read_file(path, size, block, policy == "drop", limits, **given)

    found, _ = read(unit_bytes, block_bytes)
    assert read(unit_bytes, block_bytes) == read(len(data) + 1, len(data) + 1)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff"))
    refused = [one.reason for one in found.rejected] == ["damaged_file"]
    if refused or wide or policy == "drop" or limit < 1024:
        return
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="replace").replace("\r\n", "\n")
    assert found.rejected == []
    if document == "file":
        assert found.documents == ([text.removesuffix("\n")] if text else [])
    elif document == "line":
        assert (
            found.documents
            == (text.split("\n") if text[-1:] != "\n" else text.split("\n")[:-1])[
                : None if text else 0
            ]
        )
    else:
        expected: list[list[str]] = [[]]
        for line in text.split("\n"):
            if line.strip():
                expected[-1].append(line)
            elif expected[-1]:
                expected.append([])
        assert found.documents == ["\n".join(one) for one in expected if one]


@settings(deadline=None, max_examples=200)
@given(
    texts=st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=6),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-be", "gb18030", "cp1252", "utf-7"]),
    kind=st.sampled_from(["line", "paragraph", "file", "jsonl"]),
    packing=st.sampled_from(sorted(PACKERS)),
    unit_bytes=st.integers(1, 60),
    block_bytes=st.integers(1, 60),
    limit=st.sampled_from([30, 1024]),
)
def test_ranges_together_have_the_documents_in_every_encoding_format_and_compression(
    tmp_path_factory: pytest.TempPathFactory,
    read_file: Read,
    texts: list[list[str]],
    encoding: str,
    kind: str,
    packing: str,
    unit_bytes: int,
    block_bytes: int,
    limit: int,
) -> None:
    if kind == "jsonl":
        data = "\n".join(json.dumps({"text": "\n".join(text)}) for text in texts)
    else:
        data = "\n \n".join("\r\n".join(text) for text in texts)
    path = tmp_path_factory.mktemp("ranges") / "corpus"
    path.write_bytes(PACKERS[packing](data.encode(encoding, "ignore")))
    limits = Limits(max_document_bytes=limit)
    options = {"encoding": encoding, "document": "line" if kind == "jsonl" else kind}
    cut = read_file(path, unit_bytes, block_bytes, limits=limits, **options)
    whole = read_file(path, 1 << 30, 1 << 20, limits=limits, **options)
    assert cut == whole
    if kind == "jsonl" and limit == 1024:
        assert whole[0].documents == ["\n".join(text) for text in texts]


def test_a_range_owns_a_paragraph_if_the_blank_line_before_it_starts_in_the_range(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"aa\naa\n\nbb\nbb\n \ncc\n")
    source = Source(path=str(path), document="paragraph")
    texts = [
        [text for block in read_unit(unit, source, CleaningConfig()) for text in block.documents]
        for unit in plan_units([source], [list_source(source)], 3)
    ]
    # The blank lines start at 6 and 13.
    assert texts == [["aa\naa"], [], ["bb\nbb"], [], ["cc"], []]


def test_jsonl_is_cut_like_lines_of_text(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"document\n{i}"}) + "\n" for i in range(40)))
    assert read_file(path, 17)[0].documents == [f"document\n{i}" for i in range(40)]


@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_oversized_record_is_rejected_and_skipped(
    tmp_path: Path, read_file: Read, document: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(pack(b"a\n\n" + b"\x01x" * 3000 + b"\n\nb\n\n" + b"c" * 1024 + b"\n"))
    limits = Limits(max_document_bytes=1024)
    for sizes in ((100, 50), (1 << 30, 1 << 20)):
        given = {"document": document, "format": "text"}
        block, _ = read_file(path, *sizes, limits=limits, **given)
        (rejected,) = block.rejected
        where = "a.txt:0" if document == "file" else "a.txt:3"
        assert (rejected.reason, rejected.where) == ("oversized", where)
        assert rejected.excerpt.endswith(r"\x01x" * 100)
        assert len(rejected.excerpt) <= 1000
        if document != "file":
            assert [text for text in block.documents if text] == ["a", "b", "c" * 1024]


@pytest.mark.parametrize("paragraphs", [False, True])
def test_an_oversized_record_is_never_held_in_memory(paragraphs: bool) -> None:
    alive = 0
    most = 0

    class Chunk(bytes):
        def __new__(cls, data: bytes) -> "Chunk":
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, data)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

        def __getitem__(self, key: Any) -> Any:
            return Chunk(super().__getitem__(key))

    line = b"x" * 99 + (b"\n" if paragraphs else b"x")
    chunks = (Chunk(line) for _ in range(1000))
    found: Any = whole_lines(chunks, 0, None, True, 500)
    if paragraphs:
        from preprocess.reading.encodings.decoding import blank_lines

        found = whole_paragraphs(found, 0, None, blank_lines("utf-8"), 500)
    (record,) = found
    assert isinstance(record, Oversized)
    assert most < 20


def test_an_oversized_line_is_found_among_short_ones() -> None:
    data = b"a\n" + b"b" * 9 + b"\nc\nd\n" + b"e" * 9
    found = list(whole_lines([data], 0, len(data), True, 5, len(data)))
    assert found == [
        Records(0, b"a\n"),
        Oversized(2, b"b" * 9),
        Records(12, b"c\nd\n"),
        Oversized(16, b"e" * 9),
    ]


def test_the_limit_applies_to_a_last_line_without_line_end() -> None:
    for data, kind in ((b"a\nbbbbb", Records), (b"a\nbbbbbb", Oversized)):
        (_, last) = whole_lines([data], 0, None, True, 5)
        assert isinstance(last, kind)
        assert last[:] == (2, data[2:])


def test_a_small_file_without_a_last_line_end_is_one_piece() -> None:
    assert list(whole_lines([b"a\nb"], 0, 3, True, 9, 3)) == [Records(0, b"a\nb")]
