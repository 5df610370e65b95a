"""What is not text is refused by name or counted, in any packing; what is text is read."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from preprocess.config import Source
from preprocess.reading.byte_range import DamagedFile, UnreadableFile
from preprocess.reading.kinds.signatures import find_kind
from preprocess.reading.listing import list_source
from preprocess.reading.reader import Limits, read_unit
from preprocess.reading.units import plan_units
from preprocess.text.config import CleaningConfig

pyarrow = pytest.importorskip("pyarrow")
Read = Callable[..., Any]  # fixture of conftest.py
TEXT = "Plain words, one line\nafter another, with commas.\n" * 400
DATA = TEXT.encode()
RANDOM = random.Random(5).randbytes(9000)
ROWS = [{"text": f"document {i}"} for i in range(300)]


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, TEXT)
    return buffer.getvalue()


def arrow(stream: bool) -> bytes:
    table = pyarrow.Table.from_pylist(ROWS)
    sink = io.BytesIO()
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def orc() -> bytes:
    from pyarrow import orc

    sink = io.BytesIO()
    orc.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


def feather_1() -> bytes:
    from pyarrow import feather

    sink = io.BytesIO()
    feather.write_feather(pyarrow.Table.from_pylist(ROWS), sink, version=1)
    return sink.getvalue()


def numpy_file(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    if arrays:
        np.savez(buffer, **arrays)
    else:
        np.save(buffer, np.arange(1000))
    return buffer.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table a (text)")
        data = connection.serialize()
    connection.close()
    return data


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
)
WARC = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 5\r\n\r\nhello\r\n\r\n"
TOKENS = struct.pack("<2000I", *range(2000))

KINDS: dict[str, tuple[str, bytes]] = {
    "docx": ("an Office document", zipped("[Content_Types].xml", "word/document.xml")),
    "epub": ("an e-book", zipped("mimetype", "a.xhtml")),
    "jar": ("a Java archive", zipped("META-INF/MANIFEST.MF", "a.txt")),
    "torch": ("a model file of PyTorch", zipped("model/data.pkl", "model/version")),
    "part of a zip": ("a part of a zip archive", b"PK\x07\x08" + zipped("a.txt")),
    "7z": ("a 7z archive", b"7z\xbc\xaf\x27\x1c\0\x04" + RANDOM),
    "rar": ("a RAR archive", b"Rar!\x1a\x07\x01\0" + RANDOM),
    "ar": (
        "an ar archive",
        b"!<arch>\ndebian-binary   1342943816  0     0     100644  4  `\n2.0\n",
    ),
    "matlab": ("a MATLAB file", b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + b" " * 78 + RANDOM),
    "bmp": ("an image", b"BM\x36\x10\x0e\0\0\0\0\0\x36\0\0\0" + RANDOM),
    "cpio": ("a cpio archive", b"070701" + b"0123abCD" * 13 + b"name\0" + DATA),
    "lz4": ("an LZ4 file", b"\x04\x22\x4d\x18\x64\x40\xa7" + RANDOM),
    "old lz4": ("an LZ4 file", b"\x02\x21\x4c\x18" + RANDOM),
    "compress": ("a file of compress", b"\x1f\x9d\x90" + RANDOM),
    "snappy": ("a Snappy file", b"\xff\x06\x00\x00sNaPpY" + RANDOM),
    "lzma": ("an LZMA file", lzma_alone(DATA)),
    "zlib": ("a zlib stream", zlib.compress(DATA)),
    "arrow": ("an Arrow or Feather file", arrow(False)),
    "arrow stream": ("an Arrow stream", arrow(True)),
    "orc": ("an ORC file", orc()),
    "avro": ("an Avro file", b"Obj\x01\x04\x14avro.codec\x08null" + DATA),
    "hdf5": ("an HDF5 file", b"\x89HDF\r\n\x1a\n\0\0" + DATA),
    "sqlite": ("an SQLite database", database()),
    "npy": ("a NumPy array", numpy_file()),
    "npz": ("a NumPy archive", numpy_file(a=np.arange(9))),
    "pickle": ("a Python pickle", pickle.dumps([TEXT])),
    "safetensors": ("a model file", b'\x40\0\0\0\0\0\0\0{"a":{"dtype":"F32"}}' + bytes(90)),
    "pdf": ("a PDF document", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\n" + DATA),
    "ps": ("a PostScript document", b"%!PS-Adobe-3.0\n" + DATA),
    "rtf": ("an RTF document", rb"{\rtf1\ansi hello}"),
    "doc": ("an old Office document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + DATA),
    "png": ("an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + RANDOM),
    "jpeg": ("an image", b"\xff\xd8\xff\xe0\0\x10JFIF" + RANDOM),
    "gif": ("an image", b"GIF89a\x01\0\x01\0" + RANDOM),
    "mp3": ("audio or video", b"ID3\x04\0\0\0\0\0\0" + RANDOM),
    "ogg": ("audio or video", b"OggS\0\x02\0\0" + RANDOM),
    "mp4": ("audio or video", b"\0\0\0\x20ftypisom" + RANDOM),
    "elf": ("a program", b"\x7fELF\x02\x01\x01" + bytes(9) + RANDOM),
    "lfs": ("a Git LFS pointer, not the data", POINTER),
    "xet": ("a Git Xet pointer", b"# xet version 0\nfilesize = 5\nhash = 'ab'\n"),
    "annex": ("a git-annex pointer", b"/annex/objects/SHA256E-s5--ab.txt\n"),
    "annex link": ("a git-annex pointer", b"../.git/annex/objects/P/8/S-s5--a.txt/S-s5--a.txt"),
    "warc": ("a WARC web archive", WARC),
    "html": ("an HTML page", b"\xef\xbb\xbf\n <!-- a\nb -->\n<!DOCTYPE html>\n<p>x</p>\n"),
    "bare html": ("an HTML page", b"<HTML lang=en>\n<p>x</p>\n"),
    "html in utf-16": ("an HTML page", "\ufeff<html>\n<p>x</p>\n".encode("utf-16-le")),
    "xml": ("an XML document", b'<?xml version="1.0"?>\n<a>\n</a>\n'),
    "dump": ("a dump of a wiki", b'<mediawiki xmlns="http://www.mediawiki.org/">\n<page>\n'),
    "tei": ("an XML document", b'<text:doc id="1" xmlns:text="http://x">\n<p>x</p>\n'),
    "json": ("a JSON document", json.dumps(ROWS).encode()),
    "short json": ("a JSON document", b'[{"text": "a"}]'),
    "pretty json": ("a JSON document", b"\xef\xbb\xbf\r\n" + json.dumps(ROWS, indent=1).encode()),
    "object": ("a JSON document", json.dumps({"data": ROWS}, indent=2).encode()),
    "json in utf-16": ("a JSON document", json.dumps(ROWS, indent=1).encode("utf-16")),
    "zeros": ("binary data", bytes(50_000)),
    "random": ("binary data", b"\xfe" + RANDOM),
    "token ids": ("binary data", TOKENS),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
READ = (
    *("arrow", "arrow stream", "warc", "html", "bare html", "html in utf-16", "dump"),
    *("json", "short json", "pretty json", "object", "json in utf-16"),
)
"""Kinds that are read, unless another format is set."""
ADVICE = ", leave it out of the input, or count it with prepare.damaged_files=skip"


@pytest.mark.parametrize(
    ("kind", "packing"),
    [
        *((kind, packing) for kind in KINDS if kind not in READ for packing in ("", ".gz")),
        *(("xml", packing) for packing in PACKERS),
    ],
)
def test_files_that_are_not_text_are_refused_or_counted_once(
    kind: str, packing: str, tmp_path: Path, read_file: Read
) -> None:
    what, data = KINDS[kind]
    inside = " inside a compressed file" if packing else ""
    path = tmp_path / f"a.txt{packing}"
    path.write_bytes(PACKERS[packing](data))
    with pytest.raises(UnreadableFile) as raised:
        read_file(path, 4096)
    message = str(raised.value)
    assert message.startswith(f"{path}: this is {what}")
    assert inside in message
    assert message.endswith(ADVICE)
    assert ("set format: text" in message) == (what == "an XML document")
    block, _ = read_file(path, 1024, limits=Limits(skip_damaged=True))
    assert block.documents == []
    found = [(one.reason, one.where, one.excerpt) for one in block.rejected]
    # By its name, because no result contains an absolute path.
    assert found == [("not_text", path.name, message.replace(str(path), path.name))]


@pytest.mark.parametrize("kind", ["lfs", "warc", "html", "xml", "json", "object", "pdf"])
def test_the_user_decides_with_the_format_text(kind: str, tmp_path: Path, read_file: Read) -> None:
    for packing in ("", ".gz"):
        path = tmp_path / f"a{packing}"
        path.write_bytes(PACKERS[packing](KINDS[kind][1]))
        block, _ = read_file(path, format="text", limits=Limits(max_document_bytes=1 << 20))
        assert block.documents
        assert not block.rejected


@pytest.mark.parametrize("kind", KINDS)
def test_jsonl_and_parquet_given_by_the_user_refuse_the_same(
    kind: str, tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a"
    path.write_bytes(KINDS[kind][1])
    with pytest.raises(UnreadableFile, match=f"a: this is {KINDS[kind][0]}"):
        read_file(path, format="jsonl")
    with pytest.raises(UnreadableFile):
        read_file(path, format="parquet")


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("packing", PACKERS)
def test_the_content_decides_which_format_reads_a_file(
    kind: str, packing: str, tmp_path: Path, read_file: Read
) -> None:
    pytest.importorskip("resiliparse")
    for name in ("a", "a.txt", "a.jsonl"):
        path = tmp_path / f"{name}{packing}"
        path.write_bytes(PACKERS[packing](KINDS[kind][1]))
        block, _ = read_file(path, limits=Limits(skip_damaged=True))
        assert len(block.documents) + len(block.rejected) > 0
        shown = "".join(block.documents)
        assert not any(mark in shown for mark in "<>{}[]"), shown[:100]
        assert "ARROW" not in shown
        assert "WARC" not in shown


def test_a_format_that_does_not_fit_is_refused_with_the_one_that_does(
    tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a"
    for kind in READ[:7]:
        path.write_bytes(KINDS[kind][1])
        with pytest.raises(
            UnreadableFile, match=f"a: this is {KINDS[kind][0]}.*; set format: auto"
        ):
            read_file(path, format="csv")


@pytest.mark.parametrize("packing", PACKERS)
def test_compressed_files_and_parquet_inside_a_compressed_file(
    packing: str, tmp_path: Path, read_file: Read
) -> None:
    if not packing:
        pytest.skip("the inner file must be compressed")
    path = tmp_path / f"a{packing}"
    path.write_bytes(gzip.compress(PACKERS[packing](DATA)))
    with pytest.raises(UnreadableFile, match="a compressed file inside a compressed file; unpack"):
        read_file(path)


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.csv.gz"])
def test_a_table_is_recognised_by_its_name_only(name: str, tmp_path: Path, read_file: Read) -> None:
    data = b'id,text\n1,"hello, world"\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_file(path)[0].documents == ["hello, world"]
    assert read_file(path, format="text")[0].documents[0] == "id,text"
    (tmp_path / "a.txt").write_bytes(data)
    assert read_file(tmp_path / "a.txt")[0].documents[0] == "id,text"
    assert read_file(tmp_path / "a.txt", format="csv")[0].documents == ["hello, world"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_table_by_name_that_is_json_is_read_as_json(
    name: str, tmp_path: Path, read_file: Read
) -> None:
    data = b'{"text": "one, two"}\n{"text": "three"}\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read_file(path)[0].documents == ["one, two", "three"]


@pytest.mark.parametrize("name", ["a.conllu", "a.CoNLL", "a.conllu.gz"])
def test_a_file_of_annotated_tokens_is_refused_by_its_name(
    name: str, tmp_path: Path, read_file: Read
) -> None:
    data = b"# sent_id = 1\n1\tIk\tik\tPRON\t_\t_\t0\troot\t_\t_\n\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    message = "this is a CoNLL file without the comments '# text', which has a line for each token.*; write"
    with pytest.raises(UnreadableFile, match=message):
        read_file(path)
    assert read_file(path, format="text")[0].documents[0] == "# sent_id = 1"
    with_text = b"# text = Ik.\n" + data
    path.write_bytes(gzip.compress(with_text) if name.endswith("gz") else with_text)
    block, places = read_file(path)
    assert (block.documents, places) == (["Ik."], [f"{name}:0 id=1"])


@pytest.mark.parametrize("name", ["a.html", "a.HTM", "a.html.gz", "a.xml", "a.xml.gz"])
def test_markup_that_begins_like_tagged_lines_is_recognised_by_its_name(
    name: str, tmp_path: Path, read_file: Read
) -> None:
    pytest.importorskip("resiliparse")
    data = b"\xef\xbb\xbf \n<body><p>words</p>\n</body>\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    if "xml" in name:
        with pytest.raises(UnreadableFile, match=r"this is an XML document.*; extract its text"):
            read_file(path)
    else:
        assert read_file(path)[0].documents == ["words"]
    assert "</body>" in read_file(path, format="text")[0].documents
    for other, content in (("a.txt", data), ("b.html", b"Words, no markup.\n")):
        (tmp_path / other).write_bytes(content)
        assert read_file(tmp_path / other)[0].documents


def test_brotli_is_recognised_by_its_name_and_breton_is_text(
    tmp_path: Path, read_file: Read
) -> None:
    # A stream of one uncompressed block; longer ones look random.
    (tmp_path / "a.br").write_bytes(b"\x0b\x02\x80hello\x03")
    with pytest.raises(UnreadableFile, match="this is a Brotli file; unpack it, or compress it"):
        read_file(tmp_path / "a.br")
    for encoding in ("utf-8", "latin-1"):
        (tmp_path / "b.br").write_bytes("Demat d'an holl, eñ eo\n".encode(encoding))
        assert read_file(tmp_path / "b.br", encoding=encoding)[0].documents


TEXTS = {
    "reference": "[1] Smith, J. A text.\n[2] Another.\n",
    "music": "[Music] Hello there\nagain\n",
    "wikiextractor": '<doc id="1" url="https://x" title="A">\nA\n\nWords.\n</doc>\n',
    "tags later": "A first line.\n<!DOCTYPE html>\n<html>\n",
    "tag": "<p>One paragraph.</p>\n<b>two</b>\n",
    "title": '<doc id="1" url="https://x" title="The word xmlns in XML">\nWords.\n</doc>\n',
    "letters and a control character": "BMW and MZ, RIFF and ID3.\n" * 9 + "\x01\x02\x00 .\n",
    "letters": "ORCs, BMs and MZs; RIFFs of PAR2\nMore\n",
    "parquet": "PAR1 and PAR2 are formats\nMore\n",
    "orc": "ORCHID flowers\n",
    "begin": "BEGIN\nWARC/1.0 is a format\n",
    "warc": "WARC/1.0 is a format\n",
    "version": "version https://git-lfs.github.com/spec/v1 begins a pointer\n",
    "percent": "%PDF is a format\n%!\n",
    "form feeds": "page one\f\npage two\x1b[0m\v\n" * 50,
    "some controls": ("words \x01 and \x02 words\x00 .\n" * 3 + "words\n") * 30,
    "braces": "{curly} words\n{ more }\n",
    "commas": "One, two, three, four\nfive, six, seven, eight\n" * 20,
    "quoted": '"A quotation," he said.\n"Another."\n',
    "digits": "070701 and other numbers\n1\t2\t3\n",
    "short": " \x00\n",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
def test_prose_is_text_whatever_its_first_characters_are(
    name: str, encoding: str, tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a"
    path.write_bytes(TEXTS[name].encode(encoding))
    block, _ = read_file(path, encoding=encoding)
    assert block.documents == TEXTS[name].removesuffix("\n").split("\n")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["Plain words.\n" * 99, "汉字文本。" * 99])
def test_wide_text_without_a_mark_is_not_called_binary(
    text: str, encoding: str, tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a"
    path.write_bytes(text.encode(encoding))
    assert find_kind(path.read_bytes()[:4096], "utf-8", "a") is None
    given, _ = read_file(path, encoding=encoding)
    assert "".join(given.documents) == text.replace("\n", "")


def test_a_json_file_is_json_even_if_it_is_invalid(tmp_path: Path, read_file: Read) -> None:
    path = tmp_path / "a.json"
    for text, reasons in (
        ("{\n'text': 'one',\n}", ["invalid_json"]),
        ("[1, 2]", ["missing_text_field"] * 2),
        ("{}\n[", ["missing_text_field", "damaged_file"]),
        ("{text: one}", ["invalid_json"]),
    ):
        path.write_text(text)
        block, _ = read_file(path, limits=Limits(skip_damaged=True))
        assert (block.documents, [one.reason for one in block.rejected]) == ([], reasons)
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_file(path)[0].documents == ["one", "two"]


@pytest.mark.parametrize(
    "name", ["a.json", "a.json.gz", "a.parquet", "a.feather", "a.warc", "a.wet"]
)
def test_text_with_the_name_of_another_format_is_refused(
    name: str, tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / name
    data = b"// exported\n[\n{}\n]\n"
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(UnreadableFile, match=f"text that is not {name.split('.')[1]}, as its name"):
        read_file(path)
    assert read_file(path, format="text")[0].documents == ["// exported", "[", "{}", "]"]
    path.write_bytes(gzip.compress(b" \n") if name.endswith(".gz") else b" \n")
    read_file(path)  # as empty text


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.parquet"])
def test_bytes_with_the_name_of_a_format_with_a_signature_are_refused_by_name(
    name: str, tmp_path: Path, read_file: Read
) -> None:
    data = bytes(range(0x80, 0x100)) + b"WARC/1.0\r\nWARC-Type: response\r\n" * 20
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(UnreadableFile, match=f"is not {name.split('.')[1]}, as its name") as caught:
        read_file(tmp_path / name)
    assert "format: text" not in str(caught.value)


@pytest.mark.parametrize("name", ["z.jsonl.gz", "z.parquet", "z.txt.zst", "z.bz2", "z.zip"])
def test_a_packed_file_of_zero_bytes_is_reported_or_counted(
    name: str, tmp_path: Path, read_file: Read
) -> None:
    (tmp_path / name).touch()
    message = f"{name}: this file is empty .0 bytes., which no intact file of its format is; copy"
    for form in ("auto", "text"):
        with pytest.raises(UnreadableFile, match=message):
            read_file(tmp_path / name, format=form)
    block, _ = read_file(tmp_path / name, limits=Limits(skip_damaged=True))
    assert [(one.reason, one.where) for one in block.rejected] == [("damaged_file", name)]


def test_one_error_names_the_other_files_of_its_unit(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.txt").write_text("words\n" * 9)
        (tmp_path / f"{number:02}.zip").write_bytes(zipped("word/a.xml"))
    source = Source(path=f"{tmp_path}/*")
    (unit,) = plan_units([source], [list_source(source)], None)
    with pytest.raises(UnreadableFile) as raised:
        list(read_unit(unit, source, CleaningConfig()))
    lines = str(raised.value).split("\n")
    assert [Path(line.split(":")[0]).name for line in lines] == [f"{n:02}.zip" for n in range(20)]


@pytest.mark.parametrize("data", [b"PK\x03\x04\x14\0", "gr\u00fc\u00df".encode("latin-1") * 99])
def test_names_with_line_breaks_are_shown_on_one_line(
    data: bytes, tmp_path: Path, read_file: Read
) -> None:
    path = tmp_path / "a\nb.txt"
    path.write_bytes(data)
    with pytest.raises(DamagedFile) as raised:
        read_file(path, 1024)
    assert str(raised.value).startswith(f"{tmp_path}/a\\nb.txt: ")
    block, _ = read_file(path, 1024, limits=Limits(skip_damaged=True))
    (rejected,) = block.rejected
    assert rejected.excerpt.startswith("a\\nb.txt: ")
    assert str(tmp_path) not in rejected.excerpt
