"""Encodings: byte order marks, files that may be cut, and conversion to UTF-8."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.reading.byte_range import DamagedFile
from preprocess.reading.encodings.decoding import (
    blank_lines,
    decode,
    find_encoding,
    is_cuttable,
    to_utf8,
)

Read = Callable[..., Any]  # fixture of conftest.py
MULTIBYTE = ["gb18030", "big5hkscs", "shift_jis_2004", "euc_jis_2004", "euc_kr", "johab", "cp932"]
UNCUT = [
    *("utf-16", "utf-16-be", "utf-32", "utf-7", "hz", "iso2022_jp", "iso2022_kr"),
    *("cp037", "cp500", "cp1026"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
def test_a_byte_order_mark_overrides_the_configured_encoding(
    tmp_path: Path,
    read_file: Read,
    encoding: str,
    pack: Callable[[bytes], bytes],
    document: str,
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(pack("\ufeffoné\r\n\ufefftwo\n".encode(encoding)))
    expected = ["oné", "two"] if document == "line" else ["oné\ntwo"]
    for unit_bytes, block_bytes in ((4, 1), (1 << 30, 4096)):
        for configured in ("latin-1", "utf-16", "utf-8"):
            block, places = read_file(
                path, unit_bytes, block_bytes, document=document, encoding=configured
            )
            assert (block.documents, block.rejected, block.replaced) == (expected, [], 0)
            assert places == ["a.txt:3", "a.txt:9"][: len(expected)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_without_a_mark_the_byte_order_does_not_depend_on_the_machine(encoding: str) -> None:
    assert find_encoding(b"a\0", encoding) == f"{encoding}-le"
    assert find_encoding(b"a\0", "utf-16-be") == "utf-16-be"


@pytest.mark.parametrize("encoding", [*MULTIBYTE, *UNCUT, "koi8-r", "cp1252", "iso8859-15"])
def test_a_text_is_read_in_the_configured_encoding(
    tmp_path: Path, read_file: Read, encoding: str
) -> None:
    text = {"koi8-r": "привет", "euc_kr": "한국어", "johab": "한국어", "iso2022_kr": "한국어"}
    fallback = "caf£" if encoding in ("cp1252", "cp037", "cp500", "cp1026") else "ああ"
    line = text.get(encoding, "a€" if encoding == "iso8859-15" else fallback)
    line = "中文" if encoding in ("hz", "big5hkscs", "gb18030") else line
    path = tmp_path / "a.txt"
    path.write_bytes(f"{line}\r\n \n{line}{line}\n".encode(encoding))
    for sizes in ((3, 2), (1000, 1000)):
        block, _ = read_file(path, *sizes, encoding=encoding)
        assert (block.documents, block.replaced) == ([line, " ", line + line], 0)
        block, _ = read_file(path, *sizes, encoding=encoding, document="paragraph")
        assert block.documents == [line, line + line]


def test_only_encodings_with_an_unambiguous_line_feed_are_cut() -> None:
    cut = ["utf-8", "ascii", "latin-1", "cp1252", "koi8-u", "mac-roman", "gbk", "euc_jp", "big5"]
    assert all(map(is_cuttable, [*cut, *MULTIBYTE]))
    assert not any(map(is_cuttable, UNCUT))


def test_invalid_bytes_are_replaced_and_counted(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\xffb\xc3\n\xef\xbf\xbd kept\nc\n")
    block, _ = read_file(path)
    assert block.documents == ["a\ufffdb\ufffd", "\ufffd kept", "c"]
    assert (block.replaced, block.rejected) == (2, [])


def test_documents_with_invalid_bytes_are_rejected_with_their_location(
    tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfgood\nb\x1b\xff\xe2\x80\xae\r\nend\n")
    block, places = read_file(path, drop=True)
    assert (block.documents, places) == (["good", "end"], ["a.txt:3", "a.txt:16"])
    (rejected,) = block.rejected
    assert (rejected.reason, rejected.where) == ("invalid_bytes", "a.txt:8")
    assert rejected.excerpt == r"b\x1b\xff\u202e\r"
    for document in ("paragraph", "file"):
        (rejected,) = read_file(path, drop=True, document=document)[0].rejected
        assert (rejected.reason, rejected.where) == ("invalid_bytes", "a.txt:3")
        block, _ = read_file(path, document=document)
        assert (block.documents, block.replaced) == (["good\nb\x1b\ufffd\u202e\nend"], 1)


def test_paragraphs_with_invalid_bytes_are_rejected_with_their_location(
    tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n\nb\xff\n\nend\n")
    block, places = read_file(path, drop=True, document="paragraph")
    assert (block.documents, places) == (["good", "end"], ["a.txt:0", "a.txt:10"])
    assert [one.where for one in block.rejected] == ["a.txt:6"]


@pytest.mark.parametrize(
    ("encoding", "data"),
    [("utf-16-le", b"o\0k\0\n\0\0\xd8x\0\n\0a\0b"), ("gb18030", b"ok\n\xffx\n\xd6\xd0\x81")],
)
def test_invalid_bytes_are_found_in_other_encodings(
    tmp_path: Path, read_file: Read, encoding: str, data: bytes
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    last = "a" if encoding == "utf-16-le" else "中"
    block, _ = read_file(path, encoding=encoding)
    assert block.documents == ["ok", "\ufffdx", f"{last}\ufffd"]
    assert block.replaced == 2
    block, _ = read_file(path, encoding=encoding, drop=True)
    assert block.documents == ["ok"]
    assert [one.reason for one in block.rejected] == ["invalid_bytes"] * 2


@settings(deadline=None)
@given(
    data=st.binary(max_size=30), size=st.integers(1, 9), encoding=st.sampled_from([*UNCUT, "gbk"])
)
def test_a_converted_stream_does_not_depend_on_its_chunks(
    data: bytes, size: int, encoding: str
) -> None:
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    encoding = find_encoding(b"", encoding)
    try:
        expected = b"".join(to_utf8([data], encoding))
        assert b"".join(to_utf8(chunks, encoding)) == expected
    except UnicodeError:
        assert encoding.startswith("iso2022")


def test_a_file_that_pythons_decoder_refuses_is_damaged(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"ok\n" + b"\x1b$" * 20)
    with pytest.raises(DamagedFile, match=r"a.txt: cannot be read as iso2022_jp \(pending buffer"):
        read_file(path, block_bytes=12, encoding="iso2022_jp")


@settings(deadline=None)
@given(lines=st.lists(st.binary(max_size=5), min_size=1), encoding=st.sampled_from(MULTIBYTE))
def test_a_block_is_decoded_like_its_lines_one_by_one(lines: list[bytes], encoding: str) -> None:
    ended = [line.replace(b"\n", b"\x81") + b"\n" for line in lines]
    text, _ = decode(b"".join(ended), encoding)
    assert text == "".join(decode(line, encoding)[0] for line in ended)
    assert text.count("\n") == len(lines)


@settings(deadline=None)
@given(
    lines=st.lists(st.text(" \t\r\u3000\u00a0\u0085x", max_size=4), max_size=8),
    encoding=st.sampled_from(["utf-8", "gb18030", "cp1252"]),
)
def test_a_line_is_blank_in_bytes_if_it_is_blank_as_text(lines: list[str], encoding: str) -> None:
    text = "".join(f"{line}\n" for line in ["a", *lines])
    data = text.encode(encoding, "ignore")
    shown = [
        len(run[0].decode(encoding).split("\n")) - 2 for run in blank_lines(encoding).finditer(data)
    ]
    blank = [not line.strip() for line in data.decode(encoding).split("\n")[:-1]]
    assert sum(shown) == sum(blank)


def test_matching_a_long_blank_line_needs_no_extra_memory() -> None:
    assert blank_lines("utf-8").search(b"a\n" + b"\xe3\x80\x80 " * 1_000_000 + b"\n")
