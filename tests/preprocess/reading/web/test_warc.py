"""Web archives: pages, texts, encodings of the transfer, and records that are damaged."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.reading.byte_range import WRONG_DECLARED, DamagedFile
from preprocess.reading.options import Limits
from preprocess.reading.web.warc import warc_records
from preprocess.reading.web.warc_records import CutWarcError, split_warc

pytest.importorskip("resiliparse")
brotli = pytest.importorskip("brotli")
Read = Callable[..., Any]  # fixture of conftest.py
MENU = (
    "<nav><ul>" + "".join(f"<li><a href='/{i}'>Menu {i}</a></li>" for i in range(9)) + "</ul></nav>"
)
WORDS = "The river runs through the old town, and people walk along it in the evening. " * 6


def page(text: str, head: str = "") -> str:
    return (
        f"<!DOCTYPE html><html lang=en><head>{head}<title>T</title><script>var a = 1</script></head>"
        f"<body>{MENU}<main><article><p>{text}</p></article></main></body></html>"
    )


def http(
    body: bytes, headers: str = "Content-Type: text/html; charset=utf-8", status: int = 200
) -> bytes:
    return f"HTTP/1.1 {status} OK\r\n{headers}\r\n\r\n".encode() + body


def record(
    body: bytes,
    kind: str = "response",
    media: str = "application/http; msgtype=response",
    uri: str = "http://example.org/a",
    length: object = None,
) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nContent-Type: {media}\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


INFO = record(b"software: x\r\n", "warcinfo", "application/warc-fields", "")


def read(data: bytes, size: int = 1 << 20, limit: int = 100_000) -> tuple[list[Any], int]:
    wrong: list[int] = []
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    found = list(warc_records(chunks, "a.warc", limit, "utf-8", str.upper, lambda: wrong.append(1)))
    return found, len(wrong)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_pages_are_documents_with_their_url(
    tmp_path: Path, read_file: Read, pack: Callable[[bytes], bytes]
) -> None:
    records = [
        INFO,
        record(b"GET / HTTP/1.1\r\n\r\n", "request"),
        record(http(page(WORDS).encode()), uri="http://example.org/é?q=1"),
        record(b"Ein Text.\nZwei.", "conversion", "text/plain", "http://example.org/t"),
        record(b"x", "metadata", "application/warc-fields"),
        record(http(b"gone", status=404)),
        record(http(b"\x89PNG", "Content-Type: image/png")),
    ]
    path = tmp_path / "a.warc.gz"
    # A member for each record, as in the archives of Common Crawl.
    path.write_bytes(b"".join(map(pack, records)))
    block, places = read_file(path)
    assert block.documents == [WORDS.strip(), "Ein Text.\nZwei."]
    offset = len(records[0]) + len(records[1])
    assert places[0] == f"a.warc.gz:{offset} id=http://example.org/é?q=1"
    assert [one.reason for one in block.rejected] == [
        *("warc_warcinfo", "warc_request", "warc_metadata", "http_status", "not_text"),
    ]


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


def chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x;a=b\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_transfer_and_content_encodings_are_removed(coding: str, is_chunked: bool) -> None:
    html = page(WORDS).encode()
    headers = f"Content-Type: text/html\r\nContent-Encoding: {coding}"
    body = CODINGS[coding](html)
    if is_chunked:
        body, headers = chunked(body), f"{headers}\r\nTransfer-Encoding: chunked"
    for sent in (body, html):  # an archive may have removed the encodings
        (found,), _ = read(record(http(sent, headers)))
        assert (found.text, found.reason) == (html.decode().upper(), "")


PDF = b"%PDF-1.4\n" + bytes(range(128, 256)) * 9
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
FEED = b"<?xml version='1.0'?><rss><channel><title>News of the town</title></channel></rss>"


@pytest.mark.parametrize(
    ("body", "media", "shown"),
    [
        (PDF, "text/html", "a PDF document, sent as text/html"),
        (PNG, "text/html; charset=utf-8", "an image, sent as text/html"),
        (gzip.compress(WORDS.encode()), "text/html", "a compressed file, sent as text/html"),
        (zstandard.compress(WORDS.encode()), "text/plain", "a compressed file, sent as text/plain"),
        (b"PK\x03\x04" + bytes(80), "text/plain", "a zip archive, sent as text/plain"),
        (bytes(range(256)) * 9, "text/html", "binary data, sent as text/html"),
        (FEED, "text/plain", "an XML document, sent as text/plain"),
    ],
)
def test_a_body_that_is_no_page_is_counted_as_no_text(body: bytes, media: str, shown: str) -> None:
    (found,), wrong = read(record(http(body, f"Content-Type: {media}")))
    assert (found.reason, found.text, wrong) == ("not_text", shown, 0)
    assert found.id == "http://example.org/a"
    (found,), _ = read(record(body, "resource", media))
    assert (found.reason, found.text) == ("not_text", shown)


def test_texts_in_other_encodings_and_markup_are_no_binary_data() -> None:
    for body in (page(WORDS).encode("utf-16"), page(WORDS).encode("utf-16-le"), FEED):
        (found,), _ = read(record(http(body, "Content-Type: text/html; charset=utf-16le")))
        assert found.reason == ""
    (found,), _ = read(record(http(page("words").encode(), "Content-Type: text/plain")))
    assert found.text == page("words").upper()
    (found,), _ = read(record(page("words").encode(), "conversion", "text/plain"))
    assert found.text == page("words")


def test_a_page_without_main_text_is_counted_by_its_url(tmp_path: Path, read_file: Read) -> None:
    empty, blank = b"<html><script>var a = 1</script></html>", b""
    path = tmp_path / "a.warc"
    path.write_bytes(record(http(empty), uri="http://b.org/1") + record(http(blank)))
    block, _ = read_file(path)
    assert block.documents == []
    assert [one.reason for one in block.rejected] == ["no_main_text"] * 2
    assert block.rejected[0].excerpt == empty.decode()
    assert block.rejected[0].where == "a.warc:0 id=http://b.org/1"


def test_a_damaged_body_is_counted() -> None:
    body = gzip.compress(page(WORDS).encode())
    headers = "Content-Type: text/html\r\nContent-Encoding: "
    for data, reason in (
        (http(body[:40] + b"\xff" * 40, f"{headers}gzip"), "invalid_http"),
        (http(body[:-20], f"{headers}gzip"), "invalid_http"),
        (http(b"\xff" * 40, f"{headers}br"), "invalid_http"),
        (b"no status", "invalid_http"),
        (http(gzip.compress(b"x" * 200_000), f"{headers}gzip"), "oversized"),
        (http(brotli.compress(b"x" * 200_000), f"{headers}br"), "oversized"),
        (http(zstandard.compress(b"x" * 200_000), f"{headers}zstd"), "oversized"),
    ):
        (found,), _ = read(record(data))
        assert found.reason == reason, data[:20]
        assert found.id == "http://example.org/a"


@pytest.mark.parametrize("length", [3000, 60, 0, -5, "x", ""])
@pytest.mark.parametrize("size", [7, 100, 1 << 20])
def test_a_wrong_length_costs_one_record(length: object, size: int) -> None:
    records = [
        record(http(page(f"{i} {WORDS}").encode()), length=length if i == 3 else None)
        for i in range(8)
    ]
    found, _ = read(b"".join(records), size)
    assert [one.reason for one in found] == ["", "", "", "invalid_warc", "", "", "", ""]
    assert [one.number for one in found] == [sum(map(len, records[:i])) for i in range(8)]


def test_bytes_between_records_are_counted_once() -> None:
    good = record(http(page(WORDS).encode()))
    for size in (5, 1 << 20):
        found, _ = read(b"\r\n" + good + b"junk\x00 " * 50 + b"\n" + good, size)
        assert [one.reason for one in found] in (["invalid_warc", ""], ["", "invalid_warc", ""])
    found, _ = read(b"WARC/1.0\r\nno headers here\r\n\r\n" + good)
    assert [one.reason for one in found] == ["invalid_warc", ""]


@pytest.mark.parametrize("size", [7, 1 << 20])
def test_a_long_record_is_oversized_and_not_held_in_memory(size: int) -> None:
    good = record(http(page(WORDS).encode()))
    data = good + record(b"x" * 50_000) + good + record(b"x" * 50_000, length=99_999_999) + good
    found, _ = read(data, size, limit=10_000)
    assert [one.reason for one in found] == ["", "oversized", "", "oversized", ""]


@pytest.mark.parametrize("end", [10, 100, 500, -6])
def test_a_file_that_ends_early_is_damaged_after_its_records(end: int) -> None:
    good = record(http(page(WORDS).encode()))
    data = good + good[:end]
    assert len(read(data[: len(good)])[0]) == 1
    records = warc_records([data], "a", 100_000, "utf-8", str.upper, lambda: None)
    assert next(records).reason == ""
    with pytest.raises(DamagedFile, match=f"ends inside a WARC .* at byte {len(good):,}; replace"):
        next(records)


def test_the_encoding_is_that_of_the_mark_the_header_or_the_page() -> None:
    russian = "Река течёт через старый город. " * 20
    meta = '<meta http-equiv="Content-Type" content="text/html; charset=%s">'
    for body, headers, wrong in (
        (page(russian).encode("utf-8-sig"), "text/html; charset=koi8-r", 0),
        (page(russian).encode("utf-16"), "text/html", 0),
        (page(russian).encode("koi8-r"), "text/html; charset=koi8-r", 0),
        (page(russian, meta % "windows-1251").encode("cp1251"), "text/html", 0),
        (page(russian, meta % "utf-8").encode("cp1251"), "text/html; charset=cp1251", 0),
        (page(russian, meta % "cp1251").encode("cp1251"), "text/html; charset=utf-8", 1),
        (page(russian, meta % "latin1").encode(), "text/html; charset=iso-8859-1", 1),
        (page(russian, meta % "nonsense").encode(), "text/html; charset=none", 0),
    ):
        (found,), times = read(record(http(body, f"Content-Type: {headers}")))
        assert russian.upper() in found.text, headers
        assert (found.reason, times) == ("", wrong), headers


def test_a_page_that_is_in_no_declared_encoding_is_counted(tmp_path: Path, read_file: Read) -> None:
    chinese = "河流穿过老城，人们晚上沿着它散步。" * 30
    path = tmp_path / "a.warc"
    path.write_bytes(
        record(http(page(chinese).encode("gb18030"))) + record(http(page(WORDS).encode()))
    )
    block, _ = read_file(path)
    assert block.documents == [WORDS.strip()]
    assert [one.reason for one in block.rejected] == ["wrong_encoding"]
    # As for texts, the likely encoding is used only if it is asked for.
    pytest.importorskip("chardet")
    block, _ = read_file(path, encoding="auto")
    assert block.documents == [chinese, WORDS.strip()]


def test_a_wrong_declaration_is_noted_with_the_file(tmp_path: Path) -> None:
    from preprocess.config import Source
    from preprocess.reading.changed_inputs import ranges_read, warnings_of
    from preprocess.reading.listing import list_source
    from preprocess.reading.reader import read_unit
    from preprocess.reading.units import plan_units
    from preprocess.text.config import CleaningConfig

    path = tmp_path / "a.warc"
    path.write_bytes(
        record(http(page("é " * 50).encode(), "Content-Type: text/html; charset=latin1"))
    )
    source = Source(path=str(path))
    (unit,) = plan_units([source], [list_source(source)], None)
    reader = read_unit(unit, source, CleaningConfig())
    assert [text for block in reader for text in block.documents] == [("é " * 50).strip()]
    assert reader.notes == [WRONG_DECLARED]
    (warning,) = warnings_of(ranges_read(unit, reader.read_so_far()))
    assert warning.startswith(
        "a.warc: pages are not in the encoding that they declare, or not in UTF-8 if they declare none; those in UTF-8"
    )


def test_without_resiliparse_texts_are_read_and_pages_refused(
    tmp_path: Path, read_file: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from preprocess.errors import UserError

    monkeypatch.setitem(sys.modules, "resiliparse.extract.html2text", None)
    path = tmp_path / "a.warc.wet"
    path.write_bytes(record(b"A text.", "conversion", "text/plain"))
    assert read_file(path)[0].documents == ["A text."]
    for name, data in (
        ("a.warc", record(http(page("x").encode()))),
        ("a.html", page("x").encode()),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            UserError, match=f"{name}: reading web pages needs resiliparse; pip inst"
        ):
            read_file(tmp_path / name, limits=Limits())


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 99), st.binary(max_size=30))
def test_whole_records_return_whatever_they_hold(
    bodies: list[bytes], size: int, junk: bytes
) -> None:
    data = b"".join(record(body, "resource", "x/y") for body in bodies)
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    assert [one.body for one in split_warc(chunks, 1000)] == bodies
    with_junk = data + junk
    try:
        found = list(split_warc([with_junk], 1000))
    except CutWarcError:
        return
    assert len(found) >= len(bodies) - 1
